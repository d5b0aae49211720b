"""Gradient share: which spans the loss pulls at.

    weights = |dL / dW|,   share = weights^2 / sum over spans        L the mean loss, W all weights of the span
    output  = |dL_x / dy|, the mean over examples x                  y what the span gives

Without a task L is the part of the answers in one direction, drawn at random from the scene's seed. The visits of one
module share its weights, and so that number.

Cost     1 run and 1 backward run a batch; a gradient of every weight is kept
Exact when rows do not read each other: L_x is then the loss of one example
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack

import pandas as pd
import torch
from torch import Tensor

from shoal.core.base import Measure
from shoal.core.example import arguments, unmarked
from shoal.core.scene import Batch, Scene, answer
from shoal.core.spans import Visit
from shoal.measures._tables import Means, table
from shoal.measures._visits import hooked, requiring


class GradientShare(Measure):
    """No settings."""

    def table(self, scene: Scene) -> pd.DataFrame:
        means, total = Means(), sum(batch.rows for batch in scene.batches)
        sums = {name: torch.zeros_like(weight) for name, weight in scene.module.named_parameters()}
        for batch in scene.batches:
            weights, outputs = _gradients(scene, batch)
            for name, gradient in weights.items():
                sums[name] += gradient * (batch.rows / total)
            for span in scene.spans:
                each = outputs[span.at].flatten(1) * batch.rows  # of its own loss, not of the mean
                means.add(span.at, "output", each.norm(dim=1))
        squares = _squares(scene, sums)
        every = sum(squares.values())
        columns = {
            "weights": [squares[span.path] ** 0.5 for span in scene.spans],
            "share": [squares[span.path] / every if every else 0.0 for span in scene.spans],
        }
        return table(scene, {**columns, **means.columns(scene)})


def _gradients(scene: Scene, batch: Batch) -> tuple[Mapping[str, Tensor], Mapping[Visit, Tensor]]:
    """The gradients of the mean loss of a batch: of every weight, and of what every span gives."""
    made: dict[Visit, Tensor] = {}
    outputs: dict[Visit, Tensor] = {}

    def keep(visit: Visit, out: Tensor) -> None:
        made[visit] = out
        out.register_hook(lambda gradient: outputs.__setitem__(visit, gradient.detach()))  # of it, as it is now

    args, kwargs = arguments(batch.example)
    with unmarked(scene.module), requiring(scene.module, True), ExitStack() as stack:
        hooked(stack, scene, lambda *_: None, keep)
        loss = _loss(scene, answer(scene.module(*args, **kwargs)), batch.target)
        weights = dict(scene.module.named_parameters())
        found = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
    given = {name: each for name, each in zip(weights, found, strict=True) if each is not None}
    return given, {visit: outputs.get(visit, torch.zeros_like(out)) for visit, out in made.items()}


def _loss(scene: Scene, output: Tensor, target: Tensor | None) -> Tensor:
    if scene.task is None or target is None:
        drawn = torch.Generator().manual_seed(scene.seed)
        direction = torch.randn(output.shape[1:], generator=drawn, dtype=torch.float64).to(output)
        return (output * direction).sum() / (len(output) * direction.norm())
    return scene.task.loss(output, target)


def _squares(scene: Scene, gradients: Mapping[str, Tensor]) -> dict[str, float]:
    """The square of the gradient of each module's weights, by path; a weight that is shared counts in every one."""
    names = {id(weight): name for name, weight in scene.module.named_parameters()}
    return {
        path: sum(float(gradients[names[id(w)]].double().square().sum()) for w in part.parameters())
        for path, part in ((span.path, scene.module.get_submodule(span.path)) for span in scene.spans)
    }
