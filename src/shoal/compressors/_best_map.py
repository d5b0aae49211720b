"""The best linear map by least squares, from sums over rows, and how much of what it is fitted to it explains."""

from __future__ import annotations

import torch
from torch import Tensor


def best_map(square: Tensor, product: Tensor, wanted: float, ridge: float) -> tuple[Tensor, float]:
    """(channels + 1, channels), the map and, last, its shift; and the share of the variance of y that it explains.

    ``square``, ``product`` and ``wanted``: the sums of x'x, x'y and |y|^2 over rows, each x with a last one;
    ``ridge`` is added to the diagonal, as a share of its mean, but not where the shift stands.
    """
    held = square.clone()
    held.diagonal()[:-1].add_(ridge * square.diagonal()[:-1].mean())
    fit = torch.linalg.lstsq(held, product, driver="gelsd").solution
    missed = wanted - 2 * float((fit * product).sum()) + float((fit * (square @ fit)).sum())
    spread = wanted - float(product[-1].square().sum() / square[-1, -1])
    return fit, 1.0 if spread <= 1e-12 * wanted else 1 - missed / spread
