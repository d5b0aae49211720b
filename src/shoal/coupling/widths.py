"""Widths: the words in which coupling is told to those who narrow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoal.core.errors import Refused


@dataclass(frozen=True, eq=False)
class Held:
    """An axis of a weight, and the unit that each index belongs to; -1: to none."""

    weight: str
    axis: int
    units: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Count:
    """An attribute that says how many of something there are, and the unit that each of them belongs to."""

    path: str
    attribute: str
    units: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Width:
    """Units that look alike. ``path``: the module whose weight makes them; ``weight``: its name, ``axis``: of it."""

    path: str
    weight: str
    axis: int
    units: int
    held: tuple[Held, ...]
    counts: tuple[Count, ...] = ()

    @property
    def paths(self) -> tuple[str, ...]:
        """The modules whose weights hold it, in the order in which they run."""
        return tuple(dict.fromkeys(one.weight.rpartition(".")[0] for one in self.held))

    def cut(self, keep: Sequence[int]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """(slices, settings) that leave those units alone. Raises Refused where ``keep`` names none, all or others."""
        return cut_together([self], [keep])


@dataclass(frozen=True)
class Coupling:
    """``widths`` in the order in which they are made; ``left``: "weight:axis" -> one line why it stays."""

    widths: tuple[Width, ...]
    left: Mapping[str, str]


def cut_together(widths: Sequence[Width], keeps: Sequence[Sequence[int]]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """(slices, settings) that leave of each width those units alone, as one edit. Raises Refused as Width.cut does, and
    where one attribute would have to say two numbers."""
    slices: dict[tuple[str, int], NDArray[np.int64]] = {}
    counts: dict[tuple[str, str], NDArray[np.int64]] = {}
    for width, keep in zip(widths, keeps, strict=True):
        if not keep or list(keep) != sorted(set(keep)) or keep[0] < 0 or keep[-1] >= width.units:
            raise Refused(f"{width.weight}: keep must name some of the units 0 to {width.units - 1}, once and in order")
        if len(keep) == width.units:
            raise Refused(f"{width.weight}: keep names all {width.units} units; leave some out")
        for held in width.held:
            key = (held.weight, held.axis)
            slices[key] = slices.get(key, _whole(held.units)) * _stays(held.units, keep)
        for one in width.counts:
            place = (one.path, one.attribute)
            before, here = counts.get(place, _whole(one.units)), _stays(one.units, keep)
            if before.shape != here.shape or not (before | (one.units < 0)).all():
                raise Refused(f"{width.weight}: {one.path}.{one.attribute} counts another width too; cut one alone")
            counts[place] = before * here
    cuts = [(*key, len(stays), tuple(np.flatnonzero(stays).tolist())) for key, stays in slices.items()]
    return tuple(cuts), tuple((*place, int(stays.sum())) for place, stays in counts.items())


def _whole(units: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.ones_like(units)


def _stays(units: NDArray[np.int64], keep: Sequence[int]) -> NDArray[np.int64]:
    return ((units < 0) | np.isin(units, list(keep))).astype(np.int64)
