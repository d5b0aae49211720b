"""Cuts: a matrix or a kernel as the product of smaller ones, cut to given ranks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

SWEEPS = 3  # of the ranks' own axes one by one, after the first guess; each can only come nearer


def leading(matrix: Tensor, rank: int) -> Tensor:
    """The first left singular vectors, (rows, rank)."""
    return torch.linalg.svd(matrix, full_matrices=False)[0][:, :rank]


def two_factors(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """(up, down) with up @ down the nearest matrix of that rank; both carry as much."""
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    root = values[:rank].sqrt()
    return left[:, :rank] * root, root[:, None] * right[:rank]


def tucker_ranks(outputs: int, inputs: int, places: int, ranks: Sequence[int]) -> tuple[int, int]:
    """The ranks of outputs and inputs as they can be: neither is more than what the other and the places span."""
    of_inputs = min(ranks[1], inputs, outputs * places)
    of_outputs = min(ranks[0], outputs, of_inputs * places)
    return of_outputs, min(of_inputs, of_outputs * places)


def tucker(kernel: Tensor, ranks: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """(up, core, down) of (outputs, inputs, *places): up (outputs, a), core (a, b, *places), down (b, inputs).

    First the leading singular vectors along either axis, then each in turn against the other as it is by then.
    """
    flat = kernel.flatten(2) if kernel.dim() > 2 else kernel.unsqueeze(2)  # (outputs, inputs, places)
    up = leading(flat.flatten(1), ranks[0])
    down = leading(flat.transpose(0, 1).flatten(1), ranks[1])
    for _ in range(SWEEPS):
        up = leading(torch.einsum("oip,ib->obp", flat, down).flatten(1), ranks[0])
        down = leading(torch.einsum("oip,oa->iap", flat, up).flatten(1), ranks[1])
    core = torch.einsum("oip,oa,ib->abp", flat, up, down)
    return up, core.reshape(*ranks, *kernel.shape[2:]), down.T


def split(size: int, parts: int) -> tuple[int, ...]:
    """So many factors of a size, as near to each other as its primes allow, the largest first."""
    factors, prime, primes = [1] * parts, 2, []
    while size > 1:
        while size % prime == 0:
            primes.append(prime)
            size //= prime
        prime += 1
    for each in reversed(primes):
        factors[factors.index(min(factors))] *= each
    return tuple(sorted(factors, reverse=True))


def bonds(rows: Sequence[int], columns: Sequence[int], rank: int) -> tuple[int, ...]:
    """The widths between the cores of a train, one at either end: ``rank``, or all that there can be."""
    sizes = [a * b for a, b in zip(rows, columns, strict=True)]
    ends = range(1, len(sizes))
    return (1, *(min(rank, math.prod(sizes[:at]), math.prod(sizes[at:])) for at in ends), 1)


def train(matrix: Tensor, rows: Sequence[int], columns: Sequence[int], widths: Sequence[int]) -> list[Tensor]:
    """The cores of a matrix, each (row, bond behind, bond before, column), by one cut after another."""
    count = len(rows)
    order = [axis for at in range(count) for axis in (at, count + at)]
    rest = matrix.reshape(*rows, *columns).permute(order).reshape(1, -1)
    cores: list[Tensor] = []
    for at in range(count - 1):
        left, values, right = torch.linalg.svd(rest.reshape(widths[at] * rows[at] * columns[at], -1), False)
        kept = widths[at + 1]
        cores.append(left[:, :kept].reshape(widths[at], rows[at], columns[at], kept).permute(1, 3, 0, 2))
        rest = values[:kept, None] * right[:kept]
    cores.append(rest.reshape(widths[-2], rows[-1], columns[-1], 1).permute(1, 3, 0, 2))
    return cores


def trained(cores: Sequence[Tensor]) -> Tensor:
    """The matrix that a train of cores makes."""
    made = cores[0].permute(0, 3, 2, 1)[:, :, 0]  # (rows, columns, bond behind): the bond before the first is one
    for core in cores[1:]:
        made = torch.einsum("acb,rdbs->arcsd", made, core).flatten(2, 3).flatten(0, 1)
    return made[:, :, 0]
