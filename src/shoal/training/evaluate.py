"""Evaluate: how good a model is on held-out rows, with one score an example and the interval of its quality.

    evaluate(net, data.test, task).quality        '98.4% [97.1, 99.2] n=360'

Quality is in the task's own measure: accuracy as a fraction (shown as percent), R2, or mean log-likelihood.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from shoal.core.base import Task
from shoal.core.errors import BadData, BadModel, Diverged
from shoal.core.example import evaluating
from shoal.core.inputs import answer_to, placed
from shoal.core.part import Part
from shoal.data import Split
from shoal.evidence import Evidence, mean, proportion
from shoal.kinds import TASKS
from shoal.training.graphs import OnGraph, asked

DRAWS = 400


@dataclass(frozen=True, eq=False)
class Result:
    """How good a model is.

    scores    (n,) float64, one an example in the order of the split, higher is better: for paired comparisons
    quality   the task's measure with its interval at 95%
    loss      the task's mean loss, without smoothing
    """

    scores: np.ndarray
    quality: Evidence
    loss: float

    def __repr__(self) -> str:
        return f"Result({self.quality}, loss {self.loss:.4g})"

    def to_json(self) -> dict[str, Any]:
        """Quality and loss; the scores are left to those who keep arrays."""
        return {"quality": self.quality.to_json(), "loss": self.loss}


def evaluate(model: Callable[..., Any], split: Split, task: Task | Part, batch: int = 512) -> Result:
    """Score a model on every row of a split, in eval mode and without gradients.

    `model` is a module, on whatever device, or any callable on the CPU; its training flags are put back as they were.
    What it gives is read by ``answer_to``: a tensor, or the one that counts among several.
    Raises Diverged where an answer is not finite, BadData for a split without rows.
    """
    judge: Task = TASKS.make(task) if isinstance(task, Part) else task
    outputs, targets = predict(model, split, batch)
    return judged(outputs, targets, judge)


def predict(model: Callable[..., Any], split: Split, batch: int = 512) -> tuple[Tensor, Tensor]:
    """The outputs and the targets of a split, on the CPU."""
    if not len(split):
        raise BadData("evaluate: the split has no rows; give some")
    device = _device(model)
    model, split = asked(model, split, device)
    batch = len(split) if isinstance(model, OnGraph) else batch  # it answers for all nodes at once anyway
    outputs, targets = [], []
    resting = evaluating(model) if isinstance(model, nn.Module) else nullcontext()
    with resting, torch.inference_mode():
        for x, y in split.batches(batch):
            outputs.append(answer_to(model, placed(x, device)).float().cpu())
            targets.append(y.cpu())
    return torch.cat(outputs), torch.cat(targets)


def judged(outputs: Tensor, targets: Tensor, task: Task) -> Result:
    """The result of outputs that are already there."""
    if targets.is_floating_point() and outputs.shape != targets.shape:
        raise BadModel(
            f"evaluate: the model gives {tuple(outputs.shape)} for targets {tuple(targets.shape)}; make them equal"
        )
    loss = float(task.loss(outputs, targets))
    scores = task.scores(outputs, targets)
    spoilt = (outputs.isnan() | outputs.isposinf()).reshape(len(outputs), -1).any(dim=1)  # -inf may mask a class
    wrong = int((spoilt | ~scores.isfinite()).sum())
    if wrong:
        raise Diverged(f"evaluate: the model's answers to {wrong} of {len(outputs)} rows are not finite; lower lr")
    return Result(scores.double().numpy(), quality_of(scores, targets, task), loss)


def quality_of(scores: Tensor, targets: Tensor, task: Task) -> Evidence:
    """The task's quality with its interval: Wilson's for shares of ones, t for other means, else the bootstrap."""
    value = task.quality(scores, targets)
    if not np.isfinite(value):
        raise BadData(f"evaluate: {type(task).metric} of {len(scores)} rows is {value}; give rows whose targets differ")
    if type(task).unit == "%":
        shares = bool(torch.isin(scores, torch.tensor([0.0, 1.0], dtype=scores.dtype)).all())
        return proportion(scores.numpy()) if shares else mean(scores.numpy(), unit="%")
    if np.isclose(value, float(scores.mean()), rtol=1e-12):
        return mean(scores.numpy(), unit=f" {type(task).unit}" if type(task).unit else "")
    return _bootstrap(value, scores, targets, task)


def _bootstrap(value: float, scores: Tensor, targets: Tensor, task: Task) -> Evidence:
    """Percentiles of the quality over rows drawn again."""
    generator = torch.Generator().manual_seed(0)
    drawn = []
    for _ in range(DRAWS):
        rows = torch.randint(len(scores), (len(scores),), generator=generator)
        drawn.append(task.quality(scores[rows], targets[rows]))
    found = np.asarray(drawn)[np.isfinite(drawn)]  # a few rows may be drawn all alike, and have no spread
    if len(found) < DRAWS // 2:
        raise BadData(f"evaluate: {len(scores)} rows are too few for an interval of {type(task).metric}; give more")
    low, high = np.quantile(found, [0.025, 0.975])
    return Evidence(value, float(low), float(high), len(scores), unit=type(task).unit)


def _device(model: Any) -> torch.device:
    tensors = [*model.parameters(), *model.buffers()] if isinstance(model, nn.Module) else []
    return tensors[0].device if tensors else torch.device("cpu")
