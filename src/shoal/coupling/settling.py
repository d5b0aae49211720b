"""Settling: a recorded run followed until every choice of what may shrink is as good as it gets.

Where an axis is several in one, the first of them is let shrink; the run is followed again with the next where that one
turned out to stay, to be a single unit, or to be like no other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import nn

from shoal.coupling.following import Choice, Follow
from shoal.coupling.labels import Groups
from shoal.coupling.recording import Recording
from shoal.coupling.rules import RULES

Key: TypeAlias = tuple[str, int]  # a weight and one of its axes
Of: TypeAlias = NDArray[np.int64]  # the group of every index


class Told(NamedTuple):
    """A number in a forward, and the groups of what it counts."""

    path: str
    attribute: str
    value: int
    of: Of


@dataclass(frozen=True, eq=False)
class Run:
    """A followed run; of every axis of every weight the groups of its indices; the numbers that count each group."""

    module: nn.Module
    recording: Recording
    groups: Groups
    axes: dict[Key, Of]
    told: dict[int, list[Told]]

    def counted(self, unit: Mapping[int, int]) -> Iterator[tuple[Told, Of]]:
        """The numbers that count some of these groups, and the unit of each that they count; -1: of none."""
        once = {id(told): told for group in unit for told in self.told.get(group, [])}
        for told in once.values():
            yield told, numbered(told.of, unit)


def numbered(of: Of, unit: Mapping[int, int]) -> Of:
    """Units for groups; -1 for all that are none."""
    return np.array([unit.get(group, -1) for group in of.tolist()], dtype=np.int64)


def settled(module: nn.Module, recording: Recording) -> Run:
    """Followed until no choice is left that another would be better than."""
    taken: dict[tuple[int, int], int] = {}
    while True:
        follow = Follow(recording, taken)
        _tie(module, follow)
        groups = follow.run(RULES).labels.solve()
        weights = recording.weights.items()
        axes = {(name, i): groups.of[axis] for number, name in weights for i, axis in enumerate(follow.of(number))}
        stuck = _stuck(groups, axes, [one for one in follow.choices if one.taken + 1 < one.options])
        if not stuck:
            return Run(module, recording, groups, axes, _told(follow, groups))
        taken |= {one.key: one.taken + 1 for one in stuck}


def alike(axes: Mapping[Key, Of], groups: Groups) -> dict[tuple[Key, ...], list[int]]:
    """The groups that can shrink, by the axes that they lie on."""
    lies: dict[int, list[Key]] = {}
    for key, of in axes.items():
        for group in np.unique(of).tolist():
            if group not in groups.why:
                lies.setdefault(group, []).append(key)
    found: dict[tuple[Key, ...], list[int]] = {}
    for group, keys in lies.items():
        found.setdefault(tuple(keys), []).append(group)
    return found


def _stuck(groups: Groups, axes: Mapping[Key, Of], choices: list[Choice]) -> list[Choice]:
    """Choices to be taken otherwise: all that can never be good; else the first that another one spoils; else the first
    of which there is only one unit of a kind."""
    stays = [one for one in choices if _is_stuck(groups, one, soft=False)]
    if stays:
        return stays
    spoilt = [one for one in choices if _is_stuck(groups, one, soft=True)]
    if spoilt:
        return spoilt[:1]
    kinds = alike(axes, groups).values()
    every, units = ({group for kind in kinds if len(kind) > few for group in kind} for few in (0, 1))
    lone = [set(groups.of[one.labels].tolist()) for one in choices]
    return [one for one, of in zip(choices, lone, strict=True) if of & every and not of & units][:1]


def _is_stuck(groups: Groups, choice: Choice, soft: bool) -> bool:
    """Whether what was let shrink stays; ``soft``: if only because of another choice."""
    found = set(groups.of[choice.labels].tolist())
    stays = [group for group in found if group in groups.why]
    return len(found) < 2 or (len(stays) == len(found) and (soft or not groups.soft.issuperset(stays)))


def _told(follow: Follow, groups: Groups) -> dict[int, list[Told]]:
    """The facts that count groups that can shrink, each once."""
    once: dict[tuple[Any, ...], Told] = {}
    for fact in follow.facts:
        of = groups.of[fact.labels]
        once.setdefault((*fact.place, of.tobytes()), Told(*fact.place, of))
    found: dict[int, list[Told]] = {}
    for told in once.values():
        for group in np.unique(told.of).tolist():
            if group not in groups.why:
                found.setdefault(group, []).append(told)
    return found


def _tie(module: nn.Module, follow: Follow) -> None:
    """The layers and directions of one recurrent module of torch are all as wide as its ``hidden_size`` says."""
    numbers = {name: number for number, name in follow.recording.weights.items()}
    for path, part in module.named_modules():
        if isinstance(part, nn.RNNBase):
            names = [f"{path}.{name}".removeprefix(".") for name, _ in part.named_parameters(recurse=False)]
            hidden = [follow.of(numbers[name])[1] for name in names if "weight_hh" in name and name in numbers]
            for other in hidden[1:]:
                follow.labels.unite(hidden[0], other)
