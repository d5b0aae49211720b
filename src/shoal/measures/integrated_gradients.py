"""Integrated gradients: what each span adds to the answer, on the way from a module without spans to the whole.

    attribution_i = integral_0^1  d f(a, ..., a) / d a_i  da        a_i: what span i adds is taken so many times
    share_i       = |attribution_i| / sum |attribution|

f is the mean log-probability of the classes that the module chooses, where classes are told apart; else how much of its
own answers there is in the answers, 1 for the whole. The integral is a sum at `steps` Gauss points. `depth` is the mean
place of what matters, weighted by the shares: 1 / L where the first span alone does, 1 where the last does.

Cost     `steps` runs and backward runs a batch
Exact when f is smooth along the way: then all attributions sum to f(1) - f(0)
Papers   do-language-models-use-their-depth
"""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from shoal.core.base import Measure
from shoal.core.errors import BadSetting
from shoal.core.example import arguments, unmarked
from shoal.core.scene import Batch, Scene, answer
from shoal.core.spans import Visit
from shoal.measures._tables import table
from shoal.measures._visits import hooked, requiring


class IntegratedGradients(Measure):
    """Settings: `steps`, at how many points of the way; `rows`, on how many."""

    tiny = {"steps": 3}

    def __init__(self, *, steps: int = 8, rows: int = 256) -> None:
        if min(steps, rows) < 1:
            raise BadSetting(f"measure integrated_gradients: steps={steps}, rows={rows}; give at least 1 of each")
        self.steps, self.rows = steps, rows

    def table(self, scene: Scene) -> pd.DataFrame:
        few, total = scene.head(self.rows), torch.zeros(len(scene.spans), dtype=torch.float64)
        every = sum(batch.rows for batch in few.batches)
        for batch in few.batches:
            total += self._attributions(few, batch) * (batch.rows / every)
        share = total.abs() / total.abs().sum().clamp_min(1e-300)
        return table(scene, {"attribution": total.tolist(), "share": share.tolist()})

    def depth(self, scene: Scene) -> float:
        """The mean place of what matters, between 0 and 1."""
        share = self.table(scene)["share"].to_numpy()
        return float((share * (np.arange(len(share)) + 1)).sum() / len(share))

    def _attributions(self, scene: Scene, batch: Batch) -> Tensor:
        """(spans,) the means over a batch."""
        points, weights = np.polynomial.legendre.leggauss(self.steps)
        count, found = len(scene.spans), torch.zeros(len(scene.spans), dtype=torch.float64)
        with unmarked(scene.module), requiring(scene.module, False):
            own = _run(scene, batch, torch.ones(count, dtype=torch.float64)).detach()
            for point, weight in zip((points + 1) / 2, weights / 2, strict=True):
                sizes = torch.full((count,), float(point), dtype=torch.float64, requires_grad=True)
                told = _told(scene, _run(scene, batch, sizes).double(), own.double())
                found += float(weight) * torch.autograd.grad(told, sizes)[0]
        return found


def _run(scene: Scene, batch: Batch, sizes: Tensor) -> Tensor:
    """The answers where what every span adds is taken so many times."""
    index = {span.at: number for number, span in enumerate(scene.spans)}
    given: dict[Visit, Tensor] = {}

    def before(visit: Visit, x: Tensor) -> None:
        given[visit] = x.clone()  # it may be written to

    def after(visit: Visit, y: Tensor) -> Tensor:
        size, x = sizes[index[visit]].to(y.dtype), given[visit]
        return size * y if scene.spans[index[visit]].branch else x + size * (y - x)

    args, kwargs = arguments(batch.example)
    with ExitStack() as stack:
        hooked(stack, scene, before, after)
        return answer(scene.module(*args, **kwargs))


def _told(scene: Scene, found: Tensor, own: Tensor) -> Tensor:
    """How much of its own answers a module still gives."""
    if scene.task is not None and scene.task.unit == "%":
        return found.log_softmax(dim=-1).gather(-1, own.argmax(dim=-1, keepdim=True)).mean()
    found, own = found.flatten(1), own.flatten(1)
    return ((found * own).sum(dim=1) / own.square().sum(dim=1).clamp_min(1e-30)).mean()
