"""Lasso: which inputs of a matrix to keep, and the weights that make up best for those that go; from sums of squares.

    y = sum_i X_i W_i^T                                    X_i: (rows, columns of unit i);  W_i: (outputs, columns)
    1   min over b of  1/2 |y - sum_i b_i Z_i|^2 + l |b|_1,    Z_i = X_i W_i^T / |W_i|;    l rises until few b_i stay
    2   min over W of  |y - sum_{i kept} X_i W_i^T|^2 + ridge |W - W as it was|^2

Both need no more than X^T X and X^T y: <Z_i, Z_j> is the sum over the block (i, j) of X^T X * W^T W.

Papers   channel-pruning-for-accelerating-very-deep, pruning-very-deep-neural-network-channels
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Lasso
from torch import Tensor

HALVINGS = 24  # of the interval in which the penalty is looked for
WEAKEST = 1e-7  # of the penalty that leaves nothing
SILENCE = 1e-30  # a mean square that is none: where nothing is read, nothing is made up
NOTHING = 1e-10  # of the largest: directions in which there is so little are none


class Squares(NamedTuple):
    """X^T X: (columns, columns), X^T y: (columns, outputs), and the means of X and y that were taken away before."""

    xx: Tensor
    xy: Tensor
    x: Tensor
    y: Tensor


def squares(x: Tensor, y: Tensor, centred: bool) -> Squares:
    """Of rows (rows, columns) and (rows, outputs), in float64, a row; ``centred`` where a bias takes up the means."""
    x, y = x.double(), y.double()
    means = x.mean(dim=0) * centred, y.mean(dim=0) * centred
    x, y = x - means[0], y - means[1]
    return Squares(x.T @ x / len(x), x.T @ y / len(x), *means)


def chosen(found: Squares, weight: Tensor, columns: Tensor, keep: int) -> list[int]:
    """Step 1: the units to keep, in order. ``weight``: (outputs, all columns); ``columns``: (units, those of each)."""
    units, each = columns.shape
    order = columns.flatten()
    weight = weight.double()[:, order]
    norms = weight.reshape(len(weight), units, each).square().sum((0, 2)).sqrt()
    scale = torch.where(norms > 0, 1 / norms, 0.0)
    products = found.xx[order][:, order] * (weight.T @ weight)
    gram = products.reshape(units, each, units, each).sum((1, 3)) * scale * scale[:, None]
    aim = (found.xy[order] * weight.T).sum(1).reshape(units, each).sum(1) * scale
    return _few(gram.numpy(), aim.numpy(), keep)


def _few(gram: np.ndarray, aim: np.ndarray, keep: int) -> list[int]:
    """The units that a penalty leaves which leaves so many; where none does, fewer and those that would be next."""
    values, vectors = np.linalg.eigh(gram)
    held = values > NOTHING * max(values[-1], 0.0)
    root = np.sqrt(values[held])
    x, y = root[:, None] * vectors[:, held].T, vectors[:, held].T @ aim / root  # x^T x is the gram, x^T y the aim
    best = np.zeros(len(aim))
    strong = np.abs(aim).max() / max(len(y), 1)
    if strong > 0:
        low, high = WEAKEST * strong, strong
        model = Lasso(fit_intercept=False, max_iter=300, warm_start=True)
        for _ in range(HALVINGS):
            penalty = float(np.sqrt(low * high))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # only which of them are zero is asked for
                found = model.set_params(alpha=penalty).fit(x, y).coef_.copy()
            many = np.count_nonzero(found)
            best = found if many <= keep else best
            if many == keep:
                break
            low, high = (low, penalty) if many < keep else (penalty, high)
    order = np.lexsort((-np.abs(aim - gram @ best), best == 0))
    return sorted(int(unit) for unit in order[:keep])


def refitted(found: Squares, weight: Tensor, kept: Tensor, ridge: float) -> Tensor:
    """Step 2: the weights of the columns kept, (outputs, kept). ``ridge``: a share of the mean square of a column."""
    old = weight.double()[:, kept]
    square = found.xx[kept][:, kept]
    missing = found.xy[kept] - square @ old.T
    square.diagonal().add_(ridge * square.diagonal().mean() + SILENCE)
    return old + torch.cholesky_solve(missing, torch.linalg.cholesky(square)).T
