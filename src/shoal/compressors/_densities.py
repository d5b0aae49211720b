"""Densities: how many weights each matrix keeps where the net as a whole keeps a share.

    uniform    the same share of every one
    er         a share in proportion to (inputs + outputs) / (inputs * outputs)
    erk        ... to (inputs + outputs + sum of the kernel's sizes) / (inputs * outputs * kernel)

What would be more than all of a matrix is all of it, and the others share the rest. So many weights stay, to the unit.

Papers   the-unreasonable-effectiveness-of-random-pruning
"""

from __future__ import annotations

from collections.abc import Sequence
from math import floor, prod

Shape = Sequence[int]  # outputs, inputs a group, *kernel


def weighted(shapes: Sequence[Shape], rule: str) -> list[float]:
    """What the density of each matrix is in proportion to."""
    if rule == "uniform":
        return [1.0] * len(shapes)
    axes = 2 if rule == "er" else None  # er looks at inputs and outputs alone
    return [sum(shape[:axes]) / prod(shape[:axes]) for shape in shapes]


def kept(sizes: Sequence[int], weights: Sequence[float], density: float) -> list[int]:
    """How many weights of each matrix stay: densities in proportion to ``weights``, none above one, at least one weight
    each, and in all the share ``density`` of them, rounded."""
    total = max(round(density * sum(sizes)), len(sizes))
    full: set[int] = set()
    while True:
        rest = [at for at in range(len(sizes)) if at not in full]
        left = total - sum(sizes[at] for at in full)
        scale = left / max(sum(weights[at] * sizes[at] for at in rest), 1e-300)
        over = {at for at in rest if scale * weights[at] > 1}
        if not over:
            break
        full |= over
    exact = [sizes[at] if at in full else max(scale * weights[at] * sizes[at], 1.0) for at in range(len(sizes))]
    return _rounded(exact, sizes, total)


def _rounded(exact: Sequence[float], sizes: Sequence[int], total: int) -> list[int]:
    """Whole numbers between 1 and the sizes with that sum, each near to what it should be."""
    counts = [floor(number) for number in exact]
    while sum(counts) != total:
        step = 1 if sum(counts) < total else -1
        free = [at for at, count in enumerate(counts) if 1 <= count + step <= sizes[at]]
        counts[max(free, key=lambda at: step * (exact[at] - counts[at]))] += step
    return counts
