"""Kernels: what wide random layers do to the mean square of a signal, in closed form or by one integral.

K' = C_b + C_W <phi(z)^2>,  z ~ N(0, K)        C_W: variance of a weight times its fan-in
chi_parallel = dK'/dK,  chi_perpendicular = C_W <phi'(z)^2>        both 1 where depth changes nothing
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Act = Callable[[Tensor], Tensor]

NU = {"relu": 5.0, "linear": 2.0, "tanh": 2 / 3}  # of the-principles-of-deep-learning-theory
REACH, POINTS = 12.0, 6000  # of the integrals, in deviations


def expectation(f: Act, kernel: float) -> float:
    """<f(z)>, z ~ N(0, kernel): the midpoint rule, whose points keep clear of a kink at zero."""
    width = 2 * REACH / POINTS
    z = torch.arange(POINTS, dtype=torch.float64) * width - REACH + width / 2
    weights = torch.exp(-z.square() / 2) * width / math.sqrt(2 * math.pi)
    return float((weights * f(z * math.sqrt(kernel))).sum())


def next_kernel(act: Act, kernel: float, weights: float, bias: float = 0.0) -> float:
    """The kernel behind a layer, from the one before it."""
    return bias + weights * expectation(lambda z: act(z).square(), kernel)


def kernels(act: Act, depth: int, kernel: float, weights: float, bias: float = 0.0) -> list[float]:
    """The kernels behind so many layers, the first as given."""
    found = [kernel]
    for _ in range(depth):
        found.append(next_kernel(act, found[-1], weights, bias))
    return found


def parallel(act: Act, kernel: float, weights: float) -> float:
    """chi_parallel = C_W / (2 K^2) <phi(z)^2 (z^2 - K)>: what becomes of a change of scale."""
    moved = expectation(lambda z: act(z).square() * (z.square() - kernel), kernel)
    return weights * moved / (2 * kernel**2)


def perpendicular(act: Act, kernel: float, weights: float) -> float:
    """chi_perpendicular = C_W <phi'(z)^2>: what becomes of a change of direction."""

    def steepness(z: Tensor) -> Tensor:
        z.requires_grad_()
        return torch.autograd.grad(act(z).sum(), z)[0].square()

    return weights * expectation(steepness, kernel)


def fluctuation(layer: int, width: int, nu: float) -> float:
    """Variance over inits of the layer's mean square, over the square of its mean, to first order in 1 / width."""
    return (nu * (layer - 1) + 2) / width


def optimal_ratio(outputs: int, nu: float) -> float:
    """r* = 4 / (20 + 3 outputs) / nu: the depth over the width at which most is learned; an order of magnitude."""
    return 4 / (20 + 3 * outputs) / nu


class Pair(NamedTuple):
    """Mean squares of a place, and the mean product of two places."""

    own: float
    across: float


def attention_adds(alike: float, places: int, weights: float) -> Pair:
    """What attention at initialisation adds: all places weigh the same, so the mean of the values goes to each.

    ``alike``: correlation of two places behind the norm; ``weights``: C of the values times C of the way out.
    """
    mean = weights * (1 + (places - 1) * alike) / places
    return Pair(mean, mean)


def relu_mlp_adds(alike: float, weights: float) -> Pair:
    """What an MLP with ReLU adds behind a norm; ``weights``: C of the way in times C of the way out."""
    angle = math.acos(max(-1.0, min(1.0, alike)))
    across = (math.sin(angle) + (math.pi - angle) * alike) / (2 * math.pi)
    return Pair(weights / 2, weights * across)
