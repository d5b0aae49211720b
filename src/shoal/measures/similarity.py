"""Similarity: CKA of the streams behind any two spans, layer by layer, on small batches.

    K_l = X_l X_l'                              the products of examples, behind span l
    <K, L> = sum_{i != j} K~_ij L~_ij / n (n - 3)        K~: centred so that the mean over batches is unbiased
    CKA = <K, L> / sqrt(<K, K> <L, L>)          each summed over pieces of the data

Columns: similarity to the stream before the span, to the first and the last span, and the mean over all others. ``map``
has all pairs. An example counts once, by the mean over its places. 0 where nothing varies.

Cost     one run of `rows` examples; piece^2 numbers for each span and piece
Exact when one piece holds all examples
Papers   convergent-learning-do-different-neural-networks
"""

from __future__ import annotations

import torch
from pandas import DataFrame
from torch import Tensor

from shoal.core.base import Measure
from shoal.core.errors import BadData
from shoal.core.scene import Scene
from shoal.measures._alone import at_least
from shoal.measures._likeness import Units, features
from shoal.measures._tables import square, table

LEAST = 4  # examples, with fewer the products cannot be centred
ROUNDING = 1e-12  # of the largest: numbers that are all the same differ by so much from their mean


class Similarity(Measure):
    """Settings: `rows` that are looked at; `piece`, how many of them are compared at a time."""

    tiny = {"rows": 12, "piece": 6}

    def __init__(self, *, rows: int = 1024, piece: int = 128) -> None:
        self.rows = at_least("similarity", "rows", rows, LEAST)
        self.piece = at_least("similarity", "piece", piece, LEAST)

    def table(self, scene: Scene) -> DataFrame:
        given, made = features(scene, self.rows)
        count = len(scene.spans)
        both = self._alike([*(given[span.at] for span in scene.spans), *(made[span.at] for span in scene.spans)])
        between = both[count:, count:]
        others = (between.sum(dim=1) - between.diagonal()) / max(count - 1, 1)
        return table(
            scene,
            {
                "input": both[:count, count:].diagonal().tolist(),
                "first": between[:, 0].tolist(),
                "last": between[:, -1].tolist(),
                "mean": others.tolist(),
            },
        )

    def map(self, scene: Scene) -> DataFrame:
        """(spans, spans): CKA of the streams behind every two."""
        made = features(scene, self.rows)[1]
        return square(scene, self._alike([made[span.at] for span in scene.spans]))

    def _alike(self, units: list[Units]) -> Tensor:
        rows = {len(one.values) for one in units}
        if len(rows) > 1:
            raise BadData(f"similarity: spans of {min(rows)} and of {max(rows)} rows; these are not the same examples")
        if max(rows) < LEAST:
            raise BadData(f"similarity: {max(rows)} examples; give at least {LEAST}")
        sums = torch.zeros(len(units), len(units), dtype=torch.float64)
        for start in range(0, max(rows) - LEAST + 1, self.piece):
            grams = torch.stack([_centred(one.values[start : start + self.piece]) for one in units])
            size = min(self.piece, max(rows) - start)
            sums += grams @ grams.T / (size * (size - 3))
        own = sums.diagonal().clamp_min(0).sqrt()
        scale = own.unsqueeze(1) * own
        return torch.where(scale > 0, sums / scale, 0.0).clamp(-1, 1)


def _centred(x: Tensor) -> Tensor:
    """The products of examples less the means of their rows and columns, without those with themselves; flat."""
    off = x - x.mean(dim=0)
    x = torch.where(off.abs() > ROUNDING * x.abs().max(), off, 0.0)
    gram = (x @ x.T).fill_diagonal_(0)
    n = len(x)
    rows = gram.sum(dim=1) / (n - 2)
    gram = gram - rows - rows.unsqueeze(1) + gram.sum() / ((n - 1) * (n - 2))
    return gram.fill_diagonal_(0).flatten()
