"""Views: axes split and joined, followed by the factors of both shapes.

(2, 12) -> (2, 3, 4) splits 12 into 3 x 4, and (2, 3, 4) -> (6, 4) joins 2 x 3. Of several factors in one axis one may
shrink, and takes its rows of the others with it: heads, not what they are made of; channels, not the places that are
flattened with them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from shoal.coupling.following import Follow, repeated
from shoal.coupling.labels import Axes, Axis
from shoal.coupling.recording import Operation


def factors(before: Sequence[int], after: Sequence[int]) -> tuple[list[int], list[list[int]], list[list[int]]] | None:
    """Sizes of which the axes of both shapes are products, and for each axis which of them; None where there are none.

    (2, 12), (2, 3, 4) -> [2, 3, 4], [[0], [1, 2]], [[0], [1], [2]]
    """
    edges = [[math.prod(shape[i:]) for i in range(len(shape) + 1)] for shape in (before, after)]
    every = sorted({*edges[0], *edges[1]}, reverse=True)
    if any(more % less for more, less in pairwise(every)):
        return None
    sizes = [more // less for more, less in pairwise(every)]
    within = [[list(range(every.index(of[i]), every.index(of[i + 1]))) for i in range(len(of) - 1)] for of in edges]
    return sizes, within[0], within[1]


def view(follow: Follow, op: Operation) -> list[Axes]:
    """Split what is a product before and join what is one behind."""
    axes, before, after = follow.of(op.given["self"]), follow.shape(op.values()[0]), follow.shape(op.made[0])
    found = factors(before, after) if 0 not in before else None
    if found is None:
        why = f"it is regrouped from {list(before)} to {list(after)} {follow.here}"
        for axis in axes:
            follow.labels.pin(axis, why)
        return [follow.fixed(op.made[0], why)]
    sizes, ins, outs = found
    parts: dict[int, Axis] = {}
    for place, (axis, held) in enumerate(zip(axes, ins, strict=True)):
        parts |= {held[0]: axis} if len(held) == 1 else _split(follow, place, axis, {i: sizes[i] for i in held})
    made = tuple(_join(follow, len(axes) + place, {i: parts[i] for i in held}) for place, held in enumerate(outs))
    for labels in [*parts.values(), *made]:
        follow.note(len(labels), labels)
    return [made]


def _split(follow: Follow, place: int, axis: Axis, sizes: dict[int, int]) -> dict[int, Axis]:
    """The factors of one axis, of which one may shrink."""
    if not sizes:
        return {}
    grid = axis.reshape(list(sizes.values()))
    differ = [i for n, i in enumerate(sizes) if (grid != grid.take([0], axis=n)).any()]
    if follow.labels.is_pinned(axis) or not differ:
        why, soft = f"it is part of an axis that stays whole {follow.here}", follow.labels.is_soft(axis)
        return {i: follow.labels.fixed(size, why, soft) for i, size in sizes.items()}
    heads = {i: np.moveaxis(grid, n, 0).reshape(size, -1) for n, (i, size) in enumerate(sizes.items())}
    opened = follow.choose(place, differ, {i: heads[i][:, 0] for i in differ})
    follow.labels.unite(heads[opened], heads[opened][:, :1])
    return {i: heads[i][:, 0] if i == opened else _closed(follow, size, i in differ) for i, size in sizes.items()}


def _closed(follow: Follow, size: int, soft: bool) -> Axis:
    return follow.labels.fixed(size, f"it is one of several axes in one {follow.here}, and another may shrink", soft)


def _join(follow: Follow, place: int, parts: dict[int, Axis]) -> Axis:
    """One axis of several, of which one may shrink."""
    if len(parts) == 1:
        return next(iter(parts.values()))
    sizes = {i: len(axis) for i, axis in parts.items()}
    free = [i for i, axis in parts.items() if not follow.labels.is_pinned(axis)]
    if not free:
        why, soft = f"it is made of axes that stay {follow.here}", any(map(follow.labels.is_soft, parts.values()))
        return follow.labels.fixed(math.prod(sizes.values()), why, soft) if parts else follow.labels.fresh(1)
    opened = free[0] if len(free) == 1 else follow.choose(place, free, parts)
    for i in free:
        if i != opened:
            follow.labels.pin(parts[i], f"it is joined with another axis {follow.here}, which may shrink", soft=True)
    keys = list(parts)
    at = keys.index(opened)
    return repeated(parts[opened], math.prod(sizes[i] for i in keys[:at]), math.prod(sizes[i] for i in keys[at + 1 :]))
