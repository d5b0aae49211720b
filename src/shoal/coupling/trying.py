"""Trying: which attributes a width takes with it, and whether the module then computes what it should.

What a module's code knows of its width by number is looked for among its attributes; the smallest set with which the
narrow module computes the right thing is the one. Many widths are tried at once, and in halves where that fails.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from shoal.core.errors import Refused
from shoal.coupling.judging import Judge
from shoal.coupling.settling import Run
from shoal.coupling.widths import Count, Width, cut_together

MOST = 5  # attributes that are tried in all their sets


class Trials:
    """Of the widths of one run. ``worked``: sets of names of attributes that other widths took."""

    def __init__(self, run: Run, judge: Judge) -> None:
        self.run, self.judge = run, judge
        self.worked: list[frozenset[str]] = [frozenset()]

    def sift(self, widths: Sequence[Width]) -> list[Width | str]:
        """Each with the attributes that it takes, or why it cannot shrink."""
        if len(widths) < 2:
            return [self._alone(width) for width in widths]
        pairs = [(width, self._guesses(width)) for width in widths]
        several = ([_with(width, _named(more, names)) for width, more in pairs] for names in self.worked[::-1])
        found, _ = self._first(several)
        half = len(widths) // 2
        return [*found] if found else self.sift(widths[:half]) + self.sift(widths[half:])

    def _alone(self, width: Width) -> Width | str:
        guesses = self._guesses(width)
        found, why = self._first([_with(width, more)] for more in self._sets(guesses))
        if not found:
            return why
        names = frozenset(one.attribute for one in found[0].counts[len(width.counts) :])
        if names not in self.worked:
            self.worked.append(names)
        return found[0]

    def _first(self, several: Iterable[Sequence[Width]]) -> tuple[Sequence[Width], str]:
        """The first of several forms of some widths that computes the right thing, or why the very first does not."""
        wanted, first = None, ""
        for widths in several:
            try:
                cuts = [cut_together(widths, keeps) for keeps in _parts(widths)]
            except Refused as error:  # one attribute for two widths
                first = first or str(error)
                continue
            wanted = wanted or [self.judge.wanted(slices) for slices, _ in cuts]
            each = (self.judge.why_not(*one, out) for one, out in zip(cuts, wanted, strict=True))
            why = next(filter(None, each), "")
            if not why:
                return widths, ""
            first = first or why
        return [], first

    def _guesses(self, width: Width) -> list[Count]:
        """Attributes of the modules in whose forwards a count of the units stood, and which have that value."""
        unit = {
            int(group): int(number)
            for one in width.held
            for group, number in zip(self.run.axes[one.weight, one.axis], one.units, strict=True)
            if number >= 0
        }
        known = {(one.path, one.attribute) for one in width.counts}
        found: dict[tuple[str, str], Count] = {}
        for told, units in self.run.counted(unit):
            for attribute, value in vars(self.run.module.get_submodule(told.path)).items():
                key = (told.path, attribute)
                if type(value) is int and value == told.value and key not in known and not attribute.startswith("_"):
                    found.setdefault(key, Count(*key, units))
        return list(found.values())

    def _sets(self, guesses: Sequence[Count]) -> Iterator[list[Count]]:
        """Ever more of the guesses: by names that worked before, all of one name at once, and each for itself."""
        names: dict[str, list[Count]] = {}
        for one in guesses:
            names.setdefault(one.attribute, []).append(one)
        for before in self.worked[::-1]:
            if before <= names.keys():
                yield _named(guesses, before)
        named = list(names.values())
        single = [[one] for one in guesses] if len(guesses) > len(names) else []
        for groups in (named[:MOST], single[:MOST]):
            for size in range(1, len(groups) + 1):
                for chosen in combinations(groups, size):
                    yield [one for group in chosen for one in group]


def _named(guesses: Sequence[Count], names: frozenset[str]) -> list[Count]:
    return [one for one in guesses if one.attribute in names]


def _with(width: Width, more: Sequence[Count]) -> Width:
    return replace(width, counts=(*width.counts, *more))


def _parts(widths: Sequence[Width]) -> list[list[tuple[int, ...]]]:
    """What stays of each width, twice: some of its units and the others, in no pattern that a wrong cut could share,
    and not as many of all."""
    some: list[tuple[int, ...]] = []
    rest: list[tuple[int, ...]] = []
    for index, width in enumerate(widths):
        drawn = np.random.default_rng(width.units + index).permutation(width.units)
        first = max(width.units // (2 + index % 2), 1)
        some.append(tuple(sorted(drawn[:first].tolist())))
        rest.append(tuple(sorted(drawn[first:].tolist())))
    return [some, rest]
