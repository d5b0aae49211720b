"""Following: the labels of every axis of every tensor of a recorded run, from the weights to the outputs.

Each operation has a rule, which says what its axes are made of and which of them go together. An operation without one
pins all that it reads: what is behind it may depend on how wide it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from shoal.coupling.labels import Axes, Axis, Labels
from shoal.coupling.recording import Operation, Recording, Value


@dataclass(frozen=True)
class Fact:
    """A number that stood in a forward: how many of these labels there are. ``path``: the module that it stood in;
    ``attribute``: how modules of torch call it, where they have it."""

    path: str
    value: int
    labels: Axis
    attribute: str = ""

    @property
    def place(self) -> tuple[str, str, int]:
        """(path, attribute, value)."""
        return self.path, self.attribute, self.value


@dataclass(frozen=True)
class Choice:
    """Where an axis is several in one, one of them was let shrink: ``labels``, the ``taken``-th of ``options``."""

    key: tuple[int, int]  # the operation and the axis
    taken: int
    options: int
    labels: Axis


class Follow:
    """Labels of the axes of a run. ``taken``: by choice, which of its options; the first where it is not said."""

    def __init__(self, recording: Recording, taken: Mapping[tuple[int, int], int]) -> None:
        self.recording, self.taken = recording, taken
        self.labels = Labels()
        self.axes: dict[int, Axes] = {}
        self.facts: list[Fact] = []
        self.choices: list[Choice] = []
        self.step = 0
        self.path = ""
        for number in recording.weights:
            self.axes[number] = tuple(self.labels.fresh(size) for size in recording.shapes[number])
        for number in recording.inputs:
            self.axes[number] = self.fixed(number, "it is an axis of the input")

    def run(self, rules: Mapping[str, Rule]) -> Follow:
        """Every operation by its rule; what the module gives out stays."""
        for step, op in enumerate(self.recording.operations):
            self.step, self.path = step, op.path
            rule = rules.get(op.name) or rules.get(op.name.removesuffix("_"))
            if rule is None:
                rule = together if op.pointwise else unknown if op.values() else made_here
            if not op.made:
                continue
            given = rule(self, op)
            fits = all(_sizes(axes) == self.shape(number) for number, axes in zip(op.made, given, strict=False))
            if not fits:  # it was called in a way that its rule does not cover, such as with a mask for an index
                given = unknown(self, op)
            self.axes |= dict(zip(op.made, given, strict=False))
            for number in op.made[len(given) :]:
                self.axes[number] = self.fixed(number, f"it comes from {op.name} beside its result")
        for number in self.recording.outputs:
            for axis in self.of(number):
                self.labels.pin(axis, "it is an axis of the output")
        return self

    @property
    def here(self) -> str:
        """Where the operation is, for messages."""
        return f"in {self.path}" if self.path else "in the module's own forward"

    def shape(self, number: int) -> tuple[int, ...]:
        """The shape of a tensor."""
        return self.recording.shapes[number]

    def of(self, value: Value | int) -> Axes:
        """The labels of a tensor; one that nobody made is a constant of the code."""
        number = value.number if isinstance(value, Value) else value
        if number not in self.axes:
            self.axes[number] = self.fixed(number, "it meets a tensor that the module does not register")
        return self.axes[number]

    def fixed(self, number: int, why: str) -> Axes:
        """Fresh labels for a tensor, all of which stay."""
        return tuple(self.labels.fixed(size, why) for size in self.shape(number))

    def note(self, value: int, labels: Axis, attribute: str = "") -> None:
        """A number that the forward was told, or read from an attribute, or from a shape."""
        self.facts.append(Fact(self.path, value, labels, attribute))

    def joined(self, given: Sequence[Axes], shape: tuple[int, ...]) -> Axes:
        """The axes of an elementwise result: those that are as wide as it go together, single ones are broadcast."""
        out: list[Axis] = []
        for place in range(-len(shape), 0):
            found = [axes[place] for axes in given if len(axes) >= -place and len(axes[place]) == shape[place]]
            first = next((axis for axis in found if self.labels.is_pinned(axis)), found[0])
            for other in found:
                if other is not first:
                    self.labels.unite(first, other)
            out.append(first)
        return tuple(out)

    def choose(self, place: int, options: Sequence[int], factors: Mapping[int, Axis]) -> int:
        """Which of some factors of an axis is let shrink; all others stay as long as it is that one."""
        key = (self.step, place)
        taken = min(self.taken.get(key, 0), len(options) - 1)
        self.choices.append(Choice(key, taken, len(options), factors[options[taken]]))
        return options[taken]


def _sizes(axes: Axes) -> tuple[int, ...]:
    return tuple(len(axis) for axis in axes)


Rule: TypeAlias = Callable[[Follow, Operation], list[Axes]]


def together(follow: Follow, op: Operation) -> list[Axes]:
    """Elementwise: what lies at one place goes together."""
    given = [follow.of(number) for number in op.values()]
    return [follow.joined(given, follow.shape(number)) for number in op.made]


def unknown(follow: Follow, op: Operation) -> list[Axes]:
    """Nothing is known of it: all that it reads stays, and what it makes too."""
    why = f"the operation {op.name} {follow.here} is not known"
    for number in op.values():
        for axis in follow.of(number):
            follow.labels.pin(axis, why)
    return [follow.fixed(number, why) for number in op.made]


def made_here(follow: Follow, op: Operation) -> list[Axes]:
    """A constant, zeros or a range: as wide as whatever it meets."""
    made = []
    for number in op.made:
        axes = tuple(follow.labels.fresh(size) for size in follow.shape(number))
        for axis in axes:
            follow.note(len(axis), axis)
        made.append(axes)
    return made


def alike(names: str, rule: Rule) -> dict[str, Rule]:
    """One rule for several operations."""
    return dict.fromkeys(names.split(), rule)


def axis_of(place: Any, dims: int) -> int:
    """A dimension counted from the front."""
    return int(place) % max(dims, 1)


def listed(dims: Any) -> list[int]:
    """Dimensions, where one may stand for itself."""
    return list(dims) if isinstance(dims, list | tuple) else [dims]


def repeated(axis: Axis, before: int, behind: int) -> Axis:
    """Labels of an axis beside others that are taken whole: each ``behind`` times, all that ``before`` times."""
    return np.tile(np.repeat(axis, behind), before)
