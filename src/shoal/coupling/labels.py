"""Labels: a number for every index of every axis, and which of them must go together or not at all.

Labels are only collected while tensors are followed; what they come to is solved at the end, all at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Axis: TypeAlias = NDArray[np.int64]  # the labels along one axis
Axes: TypeAlias = tuple[Axis, ...]


@dataclass(frozen=True)
class Groups:
    """What labels came to. ``of``: label -> its group; ``why``: group -> why it must stay.

    ``soft``: groups that stay only because of how an axis was read, where it could be read otherwise.
    """

    of: NDArray[np.int64]
    why: dict[int, str]
    soft: frozenset[int]


class Labels:
    """Collects: ``unite`` what goes together, ``pin`` what stays."""

    def __init__(self) -> None:
        self.count = 0
        self._pairs: list[tuple[Axis, Axis]] = []
        self._pins: list[tuple[Axis, str, bool]] = []
        self._pinned = np.zeros(1024, dtype=np.int8)  # 1: softly, 2: for good

    def fresh(self, size: int) -> Axis:
        """New labels of which nothing is known."""
        made = np.arange(self.count, self.count + size, dtype=np.int64)
        self.count += size
        while self.count > len(self._pinned):
            self._pinned = np.concatenate([self._pinned, np.zeros_like(self._pinned)])
        return made

    def fixed(self, size: int, why: str, soft: bool = False) -> Axis:
        """New labels that stay."""
        made = self.fresh(size)
        self.pin(made, why, soft)
        return made

    def pin(self, labels: Axis, why: str, soft: bool = False) -> None:
        """These stay, and what is united with them."""
        self._pins.append((labels, why, soft))
        self._pinned[labels] = np.maximum(self._pinned[labels], 1 if soft else 2)

    def is_pinned(self, labels: Axis) -> bool:
        """Whether all of them were pinned themselves."""
        return bool(self._pinned[labels].all())

    def is_soft(self, labels: Axis) -> bool:
        """Whether any of them was pinned itself, and only softly."""
        return bool((self._pinned[labels] == 1).any())

    def unite(self, first: Axis, second: Axis) -> None:
        """These go together, index by index; arrays of one shape, or of shapes that broadcast."""
        one, other = np.broadcast_arrays(first, second)
        if one is not other:
            self._pairs.append((one.ravel(), other.ravel()))

    def solve(self) -> Groups:
        """The groups."""
        first, second = (_joined([pair[side] for pair in self._pairs]) for side in (0, 1))
        graph = coo_array((np.ones(len(first), dtype=bool), (first, second)), shape=(self.count, self.count))
        of = connected_components(graph, directed=False)[1].astype(np.int64)
        why: dict[int, str] = {}
        soft: set[int] = set()
        for labels, reason, yields in sorted(self._pins, key=lambda pin: pin[2]):
            for group in np.unique(of[labels]).tolist():
                if group not in why:
                    why[group] = reason
                    if yields:
                        soft.add(group)
        return Groups(of, why, frozenset(soft))


def _joined(arrays: Sequence[Axis]) -> Axis:
    return np.concatenate([np.empty(0, dtype=np.int64), *arrays])
