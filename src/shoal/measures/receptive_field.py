"""Receptive field: how many places of the stream behind a span one place of the input reaches.

    reach       places that change where one place of the input does, the mean over some of them
    share       the same over how many places there are
    effective   (sum_p |dy_p|)^2 / sum_p |dy_p|^2        how many it is spread over: what hardly changes hardly counts

A place is a pixel, a token, a node of a graph. It is changed for good and the module is run again, so this holds for
any module, whatever it is fed; nothing is said of changes that cancel. Over all places, the reach of a place is on
average what a place of the output reads. A row of features has one place.

Cost     1 + `probes` runs of `rows` examples
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from pandas import DataFrame
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from shoal.core.base import Measure
from shoal.core.errors import BadData
from shoal.core.example import tensors
from shoal.core.scene import Scene
from shoal.core.spans import Span
from shoal.measures._alone import at_least, drawing
from shoal.measures._tables import table
from shoal.measures._watching import watched

ROUNDING = 1e-6  # of the largest place: what changes by less has not changed


class ReceptiveField(Measure):
    """Settings: `rows` that are looked at; `probes`, how many places are changed, one at a time."""

    tiny = {"rows": 4, "probes": 2}

    def __init__(self, *, rows: int = 4, probes: int = 8) -> None:
        self.rows = at_least("receptive_field", "rows", rows, 1)
        self.probes = at_least("receptive_field", "probes", probes, 1)

    def table(self, scene: Scene) -> DataFrame:
        few = scene.head(self.rows)
        batch = few.batches[0]
        drawn = drawing(scene.seed)
        axis = 1 if scene.spans[0].axis == 1 else -1
        places = _places(tensors(batch.example)[0], batch.whole, axis)
        chosen = torch.randperm(len(places), generator=drawn)[: self.probes].tolist()
        sums = np.zeros((len(scene.spans), 3))
        with few.runs() as runs:
            base = watched(few, partial(runs.record, batch.example))[1]
            for number in chosen:
                example = _changed(batch.example, places[number], drawn)
                moved = watched(few, partial(runs.record, example))[1]
                for row, span in zip(sums, scene.spans, strict=True):
                    row += _reached(span, base[span.at].behind, moved[span.at].behind, batch.whole)
        sums /= len(chosen)
        if not sums.any():
            raise BadData(
                "receptive_field: no span changed with the first tensor of the examples; "
                "let that be what the module reads, not the numbers of nodes"
            )
        return table(scene, {name: list(sums[:, i]) for i, name in enumerate(("reach", "share", "effective"))})


def _places(x: Tensor, whole: bool, axis: int) -> list[tuple[slice | int, ...]]:
    """Where the input can be changed: every place, in all rows at once; every node where the rows are a graph's."""
    if whole:
        return [(node,) for node in range(len(x))]
    if x.is_floating_point():
        first = x.dim() > 2 and axis == 1
        sizes = x.shape[2:] if first else x.shape[1:-1]
    else:
        first, sizes = False, x.shape[1:]
    rows = (slice(None), slice(None)) if first else (slice(None),)
    return [(*rows, *index) for index in np.ndindex(*sizes)]


def _changed(example: object, place: tuple[slice | int, ...], drawn: torch.Generator) -> object:
    """The example with another value there in its first tensor: noise is added, a whole number becomes another."""
    leaves, shape = tree_flatten(example)
    at = next(i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor))
    x = leaves[at].clone()
    if x.is_floating_point():
        noise = torch.randn(x[place].shape, generator=drawn, dtype=torch.float64)
        x[place] += (noise * (float(x.double().std()) or 1.0)).to(x)
    else:
        x[place] = torch.where(x[place] == x.max(), x.min(), x.max())
    return tree_unflatten([*leaves[:at], x, *leaves[at + 1 :]], shape)


def _reached(span: Span, base: Tensor, moved: Tensor, whole: bool) -> list[float]:
    """How many places changed, their share of all, and over how many the change is spread; the mean over rows."""
    apart, size = (x.movedim(span.axis, -1).double().norm(dim=-1) for x in (moved - base, base))
    apart = apart.unsqueeze(0) if whole else apart
    apart = apart.flatten(1) if apart.dim() > 1 else apart.unsqueeze(1)
    apart = torch.where(apart > ROUNDING * size.max(), apart, 0.0)
    reach = (apart > 0).sum(dim=1).double()
    spread = apart.sum(dim=1).square() / apart.square().sum(dim=1).clamp_min(1e-300)
    return [float(reach.mean()), float(reach.mean()) / apart.shape[1], float(spread.mean())]
