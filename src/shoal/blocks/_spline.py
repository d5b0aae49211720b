"""B-splines on a uniform grid, in matrix form: what the block ``kan`` is made of.

    [B_i(t), ..., B_{i+k}(t)] = [1, u, ..., u^k] N / k!        i = floor(t), u = t - i;  all other functions are zero

t counts intervals from the low end of the grid. The ``grid + degree`` functions are the cardinal B-splines that reach
into it; within the grid their sum is one, and over ``degree`` intervals on either side they fade to zero.
"""

from __future__ import annotations

from math import comb, factorial

import torch
from torch import Tensor


def numerators(degree: int) -> Tensor:
    """N of that degree, (powers of u, functions): whole numbers, so that no precision of a net can round them."""
    powers = range(degree + 1)
    return torch.tensor([[_entry(degree, power, function) for function in powers] for power in powers])


def _entry(degree: int, power: int, function: int) -> int:
    pieces = range(function, degree + 1)
    signed = (
        (-1) ** (s - function) * comb(degree + 1, s - function) * (degree - s) ** (degree - power) for s in pieces
    )
    return comb(degree, power) * sum(signed)


def places(grid: int, degree: int) -> Tensor:
    """Which functions are not zero in an interval: (intervals, degree + 1), from degree + 1 before the grid to as many
    behind it. For functions that do not reach into the grid it says grid + degree, one more than there are."""
    beyond, count = degree + 1, grid + degree
    found = torch.arange(-beyond, grid + beyond).unsqueeze(1) + torch.arange(degree + 1)
    return torch.where((found >= 0) & (found < count), found, count)


def basis(t: Tensor, matrix: Tensor, places: Tensor) -> Tensor:
    """Every function at every t: (rows, dim) -> (rows, dim * (grid + degree)), all functions of one input together.

    ``matrix``: the numerators of the degree; ``places``: those of the grid. Functions stand last because there torch
    places values four times as fast as along any other axis.
    """
    rows, beyond = t.shape[0], len(matrix)
    count = len(places) - beyond - 1
    t = (t + beyond).clamp(0.0, len(places) - 0.5).flatten()
    start = t.detach().long().clamp(min=0)  # what is no number is taken to be in the first, and stays no number
    u = t - start
    powers = [torch.full_like(u, 1 / factorial(beyond - 1))]
    for _ in range(beyond - 1):
        powers.append(powers[-1] * u)
    values = matrix.to(u.dtype).T @ torch.stack(powers)  # one product for all rows
    functions = values.new_zeros(t.shape[0], count + 1).scatter_(1, places.index_select(0, start), values.T)
    return functions[:, :count].reshape(rows, -1)
