"""Effective rank: how many directions the stream fills, and how many a span adds to it.

    rank = exp( - sum_i p_i log p_i ),    p_i = s_i / sum s      s the singular values of (places, channels)

Cost     1 run a batch and dim^2 multiply-adds a place; dim^2 numbers a span are kept
Exact when all singular values are equal: then it is their number
Papers   learning-to-compress-local-rank-and
"""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor

from shoal.core.base import Measure
from shoal.core.scene import Scene
from shoal.core.spans import Visit
from shoal.measures._tables import entropy_rank, rows, table
from shoal.measures._watching import every_update


class EffectiveRank(Measure):
    """No settings."""

    def table(self, scene: Scene) -> pd.DataFrame:
        behind: dict[Visit, Tensor] = {}
        added: dict[Visit, Tensor] = {}
        for _, _, found in every_update(scene):
            for span in scene.spans:
                for sums, flow in ((behind, found[span.at].behind), (added, found[span.at].added)):
                    x = rows(flow, span)
                    sums[span.at] = sums.get(span.at, 0) + x.T @ x
        ranks = [_rank(behind[span.at]) for span in scene.spans]
        return table(
            scene,
            {
                "rank": ranks,
                "share": [rank / len(behind[span.at]) for rank, span in zip(ranks, scene.spans, strict=True)],
                "rank_added": [_rank(added[span.at]) for span in scene.spans],
            },
        )


def _rank(square: Tensor) -> float:
    """The effective rank of a matrix, from its product with itself."""
    return float(entropy_rank(torch.linalg.eigvalsh(square).clamp_min(0).sqrt()))
