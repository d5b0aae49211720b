"""Train: from a spec or a net to a trained net, with what is known about how good it is.

    run = train("residual(mlp) 3x64", open_data("houses.csv", target="price"))
    print(run.test.quality)

After every epoch the (averaged) weights are scored on the validation part; those that score best are kept, the later
ones among equals. The test part is looked at once, at the end.
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from shoal.building import build
from shoal.core.base import Task
from shoal.core.errors import BadArtifact, BadSetting, Diverged, OutOfReach
from shoal.core.spec import Spec
from shoal.data import Dataset, open_data
from shoal.kinds import TASKS
from shoal.training.checkpoint import Checkpoint
from shoal.training.engine import Objective
from shoal.training.evaluate import Result, evaluate
from shoal.training.loop import Step, fit, pick_device
from shoal.training.optimizer import make_optimizer
from shoal.training.recipe import TrainingRecipe, default_recipe
from shoal.training.state import copied, fill, tensors_of

log = logging.getLogger("shoal")
Row: TypeAlias = dict[str, float | None]


@dataclass(frozen=True, eq=False)
class Run:
    """A training that was made.

    net          trained, in eval mode, on the CPU; the net that was given is as it was
    history      a row an epoch: epoch, step, loss (mean of training), quality and valid_loss, seconds; row 0 is before
                 training
    best         the epoch whose weights were kept
    valid, test  how good they are; `valid` chose them, so only `test` is unbiased
    stopped      why it ended: epochs, seconds or interrupt
    """

    net: nn.Module
    data: str
    fingerprint: str
    recipe: TrainingRecipe
    seed: int
    history: tuple[Mapping[str, float | None], ...]
    best: int
    valid: Result
    test: Result
    seconds: float
    stopped: str

    def to_json(self) -> dict[str, Any]:
        """All but the weights."""
        return {
            "spec": str(self.net.spec) if hasattr(self.net, "spec") else type(self.net).__name__,
            "data": self.data,
            "fingerprint": self.fingerprint,
            "recipe": self.recipe.to_json(),
            "seed": self.seed,
            "history": [dict(row) for row in self.history],
            "best": self.best,
            "valid": self.valid.to_json(),
            "test": self.test.to_json(),
            "seconds": self.seconds,
            "stopped": self.stopped,
        }


def train(
    net: nn.Module | Spec | str | None,
    data: Dataset | str,
    recipe: TrainingRecipe | None = None,
    *,
    seed: int = 0,
    within: float | None = None,
    device: torch.device | str | None = None,
    objective: Objective | None = None,
    progress: Callable[[Step], None] | None = None,
    checkpoint: Path | str | None = None,
    resume: bool = False,
) -> Run:
    """Train a net and score it.

    net          a module (copied, never changed), a spec or its text, or None: the default for such data
    data         what was opened, or a name or path that is opened now, split by seed 0
    recipe       None: the default for such data
    within       seconds for all of it, scoring too; training ends earlier where the recipe does
    objective    (net, x, y) -> the loss; None: the task's, for a net with exits that of them all
    progress     called after every step
    checkpoint   a folder; the state is written there after every epoch. With `resume`, goes on from it.

    Ctrl-C ends training: the best weights so far are scored and returned. Raises Diverged, BadSetting, BadArtifact,
    and OutOfReach where `within` leaves no time to train.
    """
    if resume and checkpoint is None:
        raise BadSetting("resume: no checkpoint folder to go on from; give checkpoint=FOLDER")
    began = time.perf_counter()
    data = open_data(data)
    place = pick_device(device)
    learner = copy.deepcopy(net) if isinstance(net, nn.Module) else build(net, like=data, seed=seed)
    keeper = _Keeper(learner.to(place), data, Path(checkpoint) if checkpoint is not None else None)
    asked = recipe or default_recipe(data)
    saved = Checkpoint.load(checkpoint) if resume and checkpoint is not None else None
    if saved is None:
        keeper.score(0, 0, None, 0.0)
    else:
        keeper.restore(saved)
        asked = recipe or TrainingRecipe.from_json(saved.facts["recipe"])
    if within is not None:
        make_optimizer(learner, asked)  # the first of a process loads much of torch: seconds that must be counted
        gone = 0.0 if saved is None else float(saved.facts["elapsed"])
        asked = _shortened(asked, within, time.perf_counter() - began, gone, keeper.reserve())
    loop = fit(learner, data, asked, seed=seed, device=place, objective=objective, resume=saved)
    stopped = _run(loop, progress, keeper)
    fill(tensors_of(learner), keeper.weights, "best weights")
    valid = keeper.result or evaluate(learner, data.valid, keeper.task)
    test = evaluate(learner, data.test, keeper.task)
    seconds, history = time.perf_counter() - began, tuple(keeper.history)
    return Run(
        learner.cpu(), data.name, data.fingerprint, asked, seed, history, keeper.best, valid, test, seconds, stopped
    )


class _Keeper:
    """Scores the net on the validation part and keeps the best weights, in memory and in a folder."""

    def __init__(self, net: nn.Module, data: Dataset, folder: Path | None) -> None:
        self.net, self.data, self.folder = net, data, folder
        self.task: Task = TASKS.make(data.signature.task)
        self.history: list[Row] = []
        self.best, self.weights = 0, dict[str, Tensor]()
        self.result: Result | None = None  # of the best weights; None where they were read from the folder
        self.took = 0.0

    def score(self, epoch: int, step: int, loss: float | None, seconds: float) -> None:
        """Add a row; keep the weights where none before were better. Answers that are NaN have no quality."""
        began = time.perf_counter()
        result: Result | None = None
        quality: float | None = None
        valid_loss: float | None = None
        try:
            result = evaluate(self.net, self.data.valid, self.task)
            quality, valid_loss = result.quality.value, result.loss if math.isfinite(result.loss) else None
        except Diverged as error:  # a fresh net may answer so before its batch statistics are learned
            log.info("epoch %d: %s", epoch, error)
        self.took = time.perf_counter() - began
        row: Row = {"epoch": epoch, "step": step, "loss": loss, "quality": quality}
        self.history.append({**row, "valid_loss": valid_loss, "seconds": seconds})
        before = [row["quality"] for row in self.history[:-1] if row["quality"] is not None]
        if quality is not None and quality >= max(before, default=-math.inf):
            self.best, self.weights, self.result = epoch, copied(tensors_of(self.net)), result

    def reserve(self) -> float:
        """Seconds that scoring takes when training is over: what is left of an epoch, then the test part."""
        return self.took * (1 + len(self.data.test) / len(self.data.valid))

    def save(self, step: Step) -> None:
        """Write the state of training, the best weights and the history, where there is a folder for them."""
        if self.folder is not None:
            best = {f"best/{name}": value for name, value in self.weights.items()}
            step.checkpoint().plus(best, {"history": self.history, "best": self.best}).save(self.folder)

    def restore(self, saved: Checkpoint) -> None:
        """Go on from what :meth:`save` wrote."""
        if "history" not in saved.facts:
            raise BadArtifact(f"{self.folder}: its checkpoint was not written by train; go on with fit(resume=...)")
        self.history, self.best, self.weights = list(saved.facts["history"]), saved.facts["best"], saved.under("best")
        began = time.perf_counter()
        evaluate(self.net, self.data.valid.take(512, 0), self.task)
        self.took = (time.perf_counter() - began) * max(1.0, len(self.data.valid) / 512)


def _run(
    loop: Generator[Step, None, None],
    progress: Callable[[Step], None] | None,
    keeper: _Keeper,
) -> str:
    """Go through all steps, score each epoch, and say why it ended."""
    step: Step | None = None
    losses: list[float] = []
    stopped = "epochs"
    try:
        for step in loop:
            losses.append(step.loss)
            if progress is not None:
                progress(step)
            if step.last:
                with step.averaged():
                    keeper.score(step.epoch + 1, step.index, fmean(losses), step.seconds)
                losses.clear()
                keeper.save(step)
    except KeyboardInterrupt:
        stopped = "interrupt"
    finally:
        loop.close()
    scored = bool(keeper.history) and step is not None and keeper.history[-1]["step"] == step.index
    if step is not None and losses and not scored:  # an epoch that was begun; Ctrl-C may also come just behind a score
        keeper.score(step.epoch + 1, step.index, fmean(losses), step.seconds)
    if not keeper.weights:
        raise Diverged("training: the net answered NaN on the validation part after every epoch; lower lr")
    if stopped == "epochs" and step is not None and step.index != step.total:
        stopped = "seconds"
    return stopped


def _shortened(recipe: TrainingRecipe, within: float, used: float, gone: float, reserve: float) -> TrainingRecipe:
    """The recipe with no more seconds than are left when opening and scoring are taken off."""
    left = within - used - reserve
    if not left > 0:
        raise OutOfReach(f"within={within}: scoring alone takes {used + reserve:.1f} s; give more time or fewer rows")
    limit = gone + left
    return replace(recipe, seconds=limit if recipe.seconds is None else min(limit, recipe.seconds))
