"""Grouped residual: layers in groups; groups run one after another, the layers of a group side by side.

    x <- x + sum_{i in group} f_i(x)        groups of 1: the residual net;  one group: the shallow net

The dial between deep and shallow. A group of g layers is the first-order truncation of the g-layer residual stack.
``grouped(attention, mlp)`` is the transformer whose attention and MLP read the same.

Shapes   x: (batch, *places, dim) throughout
Exact when the layers of a group do not read each other: a group of two-matrix layers is one wide layer (edit ``merge``)
Papers   make-deep-networks-shallow-again, on-residual-network-depth, investigating-the-role-of-feed-forward
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from shoal.core.base import Branch, Wiring
from shoal.core.errors import BadSetting
from shoal.core.part import Value


class Grouped(Wiring):
    """Settings: `size`, layers in a group (the last may be smaller), or every group's size; 0 is one group of all."""

    tiny = {"size": 2}

    def __init__(self, dim: int, depth: int, *, size: int | tuple[int, ...] = 2) -> None:
        super().__init__(dim, depth)
        if isinstance(size, tuple):
            if sum(size) != depth or min(size, default=0) < 1:
                raise BadSetting(f"wiring grouped: sizes {list(size)} must be at least 1 and add up to depth {depth}")
            self.members = list(size)
        else:
            if size < 0:
                raise BadSetting(f"wiring grouped: size={size} is none; give 0 for one group of all, or at least 1")
            size = size or depth
            self.members = [min(size, depth - start) for start in range(0, depth, size)]

    def groups(self) -> list[int]:
        return self.members

    def reads(self) -> list[set[int]]:
        rows: list[set[int]] = []
        for members in self.members:
            rows += [set(range(len(rows) + 1))] * members
        return [*rows, set(range(self.depth + 1))]

    def without(self, index: int) -> dict[str, Value]:
        left = list(self.members)
        at = next(group for group in range(len(left)) if index < sum(left[: group + 1]))
        left[at] -= 1
        return {"size": tuple(members for members in left if members)}

    def forward(self, x: Tensor, layers: Sequence[Branch]) -> Tensor:
        start = 0
        for members in self.members:
            y = x
            for layer in layers[start : start + members]:
                y = y + layer(x)
            x, start = y, start + members
        return x
