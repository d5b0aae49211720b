"""Likeness: how alike two sets of features of the same examples are.

correlation   R_ij of the units that live; semi-matching max_j R_ij, one-to-one matching by the Hungarian method
cka           |X'Y|^2 / (|X'X| |Y'Y|)        centred; turning either changes nothing
cca           mean canonical correlation of what holds 99% of the variance; any invertible map changes nothing there
procrustes    |X'Y|_* / (|X| |Y|)            how well one turns into the other
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from sklearn.linear_model import Lasso
from torch import Tensor

from shoal.core.errors import BadData
from shoal.core.scene import Scene, pooled
from shoal.core.spans import Visit
from shoal.measures._alone import share, squares
from shoal.measures._watching import every_update

HELD = 0.99  # of the variance: what is compared by cca
LIVING = 1e-6  # of the largest deviation: a unit that varies by less is dead
MATCHED = 0.5  # a correlation from which on two units are said to be one

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Units:
    """Features of some examples, (examples, units)."""

    values: Tensor

    @cached_property
    def centred(self) -> Tensor:
        """With mean zero, in float64."""
        x = self.values.double()
        return x - x.mean(dim=0)

    @cached_property
    def standard(self) -> Tensor:
        """The units that live, each of length one."""
        lengths = self.centred.norm(dim=0)
        return (self.centred / lengths.clamp_min(1e-300))[:, lengths > LIVING * lengths.max().clamp_min(1e-30)]

    @cached_property
    def basis(self) -> Tensor:
        """Directions over the examples that hold most of the variance, orthonormal."""
        left, sizes, _ = torch.linalg.svd(self.centred, full_matrices=False)
        held = sizes.square().cumsum(0)
        if held[-1] <= 0:
            return left[:, :0]
        return left[:, : int((held < HELD * held[-1]).sum()) + 1]


def features(scene: Scene, rows: int) -> tuple[dict[Visit, Units], dict[Visit, Units]]:
    """The streams before every span and behind it, the mean over all places, on the first examples."""
    given: dict[Visit, list[Tensor]] = {span.at: [] for span in scene.spans}
    made: dict[Visit, list[Tensor]] = {span.at: [] for span in scene.spans}
    for _, _, updates in every_update(scene.head(rows)):
        for span in scene.spans:
            given[span.at].append(pooled(updates[span.at].stream, span.axis).double())
            made[span.at].append(pooled(updates[span.at].behind, span.axis).double())
    before, after = ({at: Units(torch.cat(all_of)[:rows]) for at, all_of in found.items()} for found in (given, made))
    return before, after


def correlation(x: Units, y: Units) -> Array:
    """(units of x, units of y), of those that live."""
    if len(x.values) != len(y.values):
        raise BadData(f"{len(x.values)} examples on one side, {len(y.values)} on the other; show both the same")
    found: Array = (x.standard.T @ y.standard).numpy()
    return found


def semi(between: Array) -> Array:
    """For each unit of the first the correlation with the most alike of the second."""
    found: Array = between.max(axis=1) if between.size else np.zeros(0)
    return found


def one_to_one(between: Array) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pairs of units, none twice, of the largest sum of correlations."""
    first, second = linear_sum_assignment(between, maximize=True)
    return first, second


def compared(x: Units, y: Units) -> dict[str, float]:
    """All of these numbers; 0 where nothing lives."""
    between = correlation(x, y)
    matched = between[one_to_one(between)]
    cross = x.centred.T @ y.centred
    turned = float(torch.linalg.matrix_norm(cross, ord="nuc"))
    canonical = torch.linalg.svdvals(x.basis.T @ y.basis).clamp(max=1.0)
    return {
        "semi": _mean(semi(between)),
        "one_to_one": _mean(matched),
        "unmatched": _mean((matched < MATCHED).astype(np.float64)),
        "cka": share(squares(cross), _length(x.centred) * _length(y.centred)),
        "cca": float(canonical.mean()) if len(canonical) else 0.0,
        "procrustes": share(turned, (squares(x.centred) * squares(y.centred)) ** 0.5),
    }


def sparse(x: Units, y: Units, penalty: float) -> dict[str, float]:
    """Each unit of the second from few of the first, all of variance one: 1/2 |y - x w|^2 / examples + penalty |w|_1.

    ``used``: how many of the first a unit takes; ``error``: the share of its variance that is left. Means over units.
    """
    scale = len(x.values) ** 0.5
    given, wanted = (scale * side.standard.numpy() for side in (x, y))
    if not (given.size and wanted.size):
        return {"used": 0.0, "error": 1.0 if wanted.size else 0.0}
    weights = (
        Lasso(alpha=penalty, fit_intercept=False, max_iter=100_000).fit(given, wanted).coef_.reshape(-1, given.shape[1])
    )
    left = np.square(wanted - given @ weights.T).mean(axis=0)
    return {"used": _mean(np.count_nonzero(weights, axis=1).astype(np.float64)), "error": _mean(left)}


def _length(x: Tensor) -> float:
    return float((x.T @ x).norm())


def _mean(values: Array) -> float:
    return float(values.mean()) if values.size else 0.0
