"""Alignment: which layers of a deep net those of a shallow one stand for, in their order.

    a = argmin sum_j C[a(j), j],    a(0) = 0,  a(j) < a(j + 1)        C[i, j]: how unlike layer i is to layer j
    F[j, i] = min( F[j, i - 1], F[j - 1, i - 1] + C[i, j] )           the best with the first j among the first i

Papers   on-cross-layer-alignment-for-model
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shoal.measures._likeness import Units


def cka(one: Units, other: Units) -> float:
    """|X'Y|^2 / (|X'X| |Y'Y|), centred: 1 where one is the other, turned and scaled; 0 where either stands still."""
    x, y = one.centred, other.centred
    lengths = float((x.T @ x).norm() * (y.T @ y).norm())
    return float((x.T @ y).square().sum()) / lengths if lengths > 0 else 0.0


def aligned(cost: NDArray[np.float64]) -> list[int]:
    """a(0), a(1), ... of costs (layers of the deep one, layers of the shallow one), by dynamic programming."""
    deep, shallow = cost.shape
    best = np.full((shallow, deep), np.inf)
    best[0] = cost[0, 0]
    for j in range(1, shallow):
        for i in range(j, deep):
            best[j, i] = min(best[j, i - 1], best[j - 1, i - 1] + cost[i, j])
    found, i = [0], deep - 1
    for j in range(shallow - 1, 0, -1):
        while i > j and best[j, i] == best[j, i - 1]:
            i -= 1
        found.append(i)
        i -= 1
    return sorted(found)
