"""Rank collapse: how far apart the places of an example still are.

    res(X) = X - 1 x^T,  x the mean place          residual = |res(X)| / |X|,  the mean over examples

Attention without skips and MLPs drives it to 0, doubly exponentially with depth. `residual` is behind the span, with
`composite` the same in the norm sqrt(|.|_1 |.|_inf), largest sums of a column and of a row. `residual_added` is that
of what the span adds. Where an example has but one place, the rows of a batch stand in the place of places.

Cost     1 run a batch
Exact when all places are alike: then it is 0
Papers   attention-is-not-all-you-need
"""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import torch
from torch import Tensor

from shoal.core.base import Measure
from shoal.core.scene import Scene
from shoal.measures._tables import Means, table
from shoal.measures._watching import every_update


class RankCollapse(Measure):
    """No settings."""

    def table(self, scene: Scene) -> pd.DataFrame:
        means = Means()
        for _, _, found in every_update(scene):
            for span in scene.spans:
                behind, added = (_places(flow, span.axis) for flow in (found[span.at].behind, found[span.at].added))
                means.add(span.at, "residual", _share(behind, _frobenius))
                means.add(span.at, "composite", _share(behind, _composite))
                means.add(span.at, "residual_added", _share(added, _frobenius))
        return table(scene, means.columns(scene))


def _places(flow: Tensor, axis: int) -> Tensor:
    """(examples, places, channels)."""
    last = flow.movedim(axis, -1).double()
    return last.unsqueeze(0) if last.dim() == 2 else last.flatten(1, -2)


def _frobenius(x: Tensor) -> Tensor:
    return x.flatten(1).norm(dim=1)


def _composite(x: Tensor) -> Tensor:
    return (x.abs().sum(dim=1).amax(dim=1) * x.abs().sum(dim=2).amax(dim=1)).sqrt()


def _share(x: Tensor, norm: Callable[[Tensor], Tensor]) -> Tensor:
    """(examples,) the residual over the whole; 0 where there is nothing."""
    left, whole = norm(x - x.mean(dim=1, keepdim=True)), norm(x)
    return torch.where(whole > 0, left / whole.clamp_min(1e-300), torch.zeros_like(whole))
