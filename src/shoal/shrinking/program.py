"""Program: which options to take together, as a small integer program.

    minimise    sum over options of  harm^power x  +  penalty * how full the fullest stage is
    subject to  sum of what is saved >= what is missing, for every goal;    at every place at most one option

x is 0 or 1. Harms do not add up, so no one objective is right: a power below 1 prefers few large harms, above 1 many
small ones, and the penalty spreads what goes over the stages. Where the goals cannot be met, what comes nearest.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp

from shoal.shrinking.tracks import meet
from shoal.shrinking.weighing import Weighed

Array = NDArray[np.float64]
EACH = 1e-4  # of the largest harm, for every option: among equals the fewest are taken
SECONDS = 20.0  # that one program may take


@dataclass(frozen=True)
class Way:
    """How options are compared. ``kind``: depth takes only such as leave fewer spans, width only such as leave as many;
    ``spread``: the penalty, in harms of the largest option; ``draws``: how many other answers are carried out beside
    the best one, to be compared by what they do together."""

    name: str
    power: float = 1.0
    kind: str = "any"
    spread: float = 0.0
    draws: int = 0

    def takes(self, one: Weighed) -> bool:
        """Whether an option is of its kind."""
        fewer = not one.proposal.stay and len(one.proposal.paths) > (one.proposal.into is not None)
        return self.kind == "any" or fewer == (self.kind == "depth")


class Choice(NamedTuple):
    """The options to take, the cheapest first, and whether they are foreseen to be enough."""

    options: list[Weighed]
    enough: bool


def choose(
    options: Sequence[Weighed],
    missing: Mapping[str, float],
    way: Way,
    cuts: Sequence[Collection[Weighed]] = (),
) -> Choice:
    """The best options by a way of comparing; none of ``cuts`` is taken whole."""
    able = [one for one in options if way.takes(one)]
    if not able or not missing:
        return Choice([], not missing)
    found = _solved(able, missing, way, cuts, enough=True)
    enough = found is not None
    if found is None:
        found = _solved(able, missing, way, cuts, enough=False)
    chosen = [] if found is None else [one for one, x in zip(able, found, strict=True) if x > 0.5]
    return Choice(sorted(chosen, key=lambda one: (one.price, -one.gain, one.proposal.paths)), enough)


def _solved(
    options: Sequence[Weighed],
    missing: Mapping[str, float],
    way: Way,
    cuts: Sequence[Collection[Weighed]],
    *,
    enough: bool,
) -> Array | None:
    """The program's x; without ``enough`` the one that saves most of what is missing. None where there is none.

    Variables: an option each, then the fullest stage's share, then for each goal the part of it that is met.
    """
    n, goals = len(options), list(missing)
    size = n + 1 + len(goals)
    harms = np.array([max(one.harm, 0.0) for one in options]) ** way.power
    unit = float(harms.max()) or 1.0
    cost = np.zeros(size)
    cost[:n] = harms / unit + EACH
    cost[n] = way.spread
    if not enough:
        cost[: n + 1] *= 1e-3 / (cost[: n + 1].sum() or 1.0)  # what is saved comes first
        cost[n + 1 :] = -1.0
    rows: list[Array] = []
    low: list[float] = []
    high: list[float] = []

    def limit(row: Array, least: float, most: float) -> None:
        rows.append(row)
        low.append(least)
        high.append(most)

    for members in _rivals(options):
        limit(_row(size, members), -np.inf, 1.0)
    for members in _stages(options).values():
        row = _row(size, members, 1.0 / len(_rivals([options[i] for i in members])))
        row[n] = -1.0
        limit(row, -np.inf, 0.0)
    for number, metric in enumerate(goals):
        row = np.zeros(size)
        row[:n] = [one.saves[metric] / missing[metric] for one in options]
        row[n + 1 + number] = -1.0
        limit(row, 0.0, np.inf)
    for cut in cuts:
        members = [i for i, one in enumerate(options) if any(one is other for other in cut)]
        if len(members) == len(cut):
            limit(_row(size, members), -np.inf, len(members) - 1.0)
    least = np.zeros(size)
    if enough:
        least[n + 1 :] = 1.0
    most = np.concatenate((np.ones(n), [np.inf], np.ones(len(goals))))
    whole = np.concatenate((np.ones(n), np.zeros(1 + len(goals))))
    found = milp(
        cost,
        integrality=whole,
        bounds=Bounds(least, most),
        constraints=LinearConstraint(np.array(rows), np.array(low), np.array(high)),
        options={"time_limit": SECONDS},
    )
    return None if found.x is None else np.asarray(found.x)[:n]


def _row(size: int, members: Sequence[int], value: float = 1.0) -> Array:
    row = np.zeros(size)
    row[list(members)] = value
    return row


def _rivals(options: Sequence[Weighed]) -> list[list[int]]:
    """The options that touch the same place, for every place that one of them names; an option alone too."""
    places = sorted({path for one in options for path in _places(one)})
    found = {tuple(i for i, one in enumerate(options) if any(_in(place, p) for p in _places(one))) for place in places}
    return [list(members) for members in sorted(found)]


def _in(place: str, other: str) -> bool:
    """Whether a place is another one, or lies in it."""
    return len(other) <= len(place) and meet(place, other)


def _places(one: Weighed) -> tuple[str, ...]:
    """What an option touches; one that names no path touches everything."""
    return one.proposal.paths or ("",)


def _stages(options: Sequence[Weighed]) -> dict[str, list[int]]:
    """The options by the part that holds the first of their places."""
    found: dict[str, list[int]] = {}
    for number, one in enumerate(options):
        found.setdefault(_places(one)[0].rpartition(".")[0], []).append(number)
    return found
