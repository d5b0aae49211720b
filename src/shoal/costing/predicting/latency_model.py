"""Latency model: milliseconds of a net from the operations that it executes, without running it.

    ms  =  a . (kernels of each family, as timed alone)  +  b . operations  +  c . calls of modules

What single operations take comes from :class:`Kernels`; a, b and c say what becomes of them within a net, in each
runtime: compiled nets pay little for calls, onnxruntime folds norms away. They are fitted, none below 0, to small nets
that were timed whole, so that the relative errors are least; each net's own error is of a fit that did not see it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from shoal.costing.predicting.kernels import FAMILIES, Array, Kernels, family_of, kernels_of
from shoal.costing.table import Cost


@dataclass(frozen=True)
class LatencyModel:
    """Kernels, and what they weigh within a net; ``errors``: log(measured / predicted) of nets left out of the fit."""

    kernels: Kernels
    weights: tuple[float, ...]
    errors: tuple[float, ...]

    def ms(self, found: Cost) -> float:
        """Milliseconds of a run that costs this much."""
        return float(columns(found, self.kernels) @ np.array(self.weights))

    def interval(self, ms: float) -> tuple[float, float]:
        """Where nine in ten of the nets that the model was fitted to would lie, had they been predicted at that."""
        low, high = np.exp(np.quantile(self.errors, (0.05, 0.95)))
        return ms * float(low), ms * float(high)


def columns(found: Cost, kernels: Kernels) -> Array:
    """Milliseconds of each family alone, then how many operations and calls of modules there are."""
    operations = kernels_of(found)
    times = kernels.times(operations, found.bytes)
    families = np.array([family_of(operation) for operation in operations])
    return np.array([*(times[families == name].sum() for name in FAMILIES), len(times), found.module_calls], float)


def fit(costs: Sequence[Cost], ms: Sequence[float], kernels: Kernels) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Weights and errors of a LatencyModel for nets that cost and took this much."""
    rows = np.stack([columns(one, kernels) for one in costs]) / np.array(ms)[:, None]
    errors = [-float(np.log(rows[i] @ _weights(np.delete(rows, i, axis=0)))) for i in range(len(rows))]
    return tuple(_weights(rows).tolist()), tuple(errors)


def _weights(rows: Array) -> Array:
    """Weights, none negative, for which every row gives 1 as nearly as can be; a little drawn to 1 for the kernels."""
    prior = 0.05 * len(rows) ** 0.5
    pull = prior * np.diag((rows**2).mean(axis=0) ** 0.5)[: len(FAMILIES)]
    target = np.concatenate([np.ones(len(rows)), pull.sum(axis=1)])
    found: Array = nnls(np.concatenate([rows, pull]), target)[0]
    return found
