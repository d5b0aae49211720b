"""Charts: where marks stand, in percent of their width and height; the template draws them as SVG and boxes.

Percent and not pixels, so that text keeps its size on a phone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import Any

from shoal.report.format import amount, evidence


@dataclass(frozen=True)
class Whisker:
    """A number with its interval on a common scale; `role` is before, after or control."""

    name: str
    text: str
    role: str
    dot: float
    low: float
    high: float
    note: str = ""


@dataclass(frozen=True)
class Tick:
    """A mark on an axis."""

    at: float
    text: str


@dataclass(frozen=True)
class Whiskers:
    """Rows on one scale."""

    rows: tuple[Whisker, ...]
    ticks: tuple[Tick, ...]


@dataclass(frozen=True)
class Line:
    """One curve over epochs: points in percent (y from the top), the ticks of both axes, and its last value."""

    title: str
    points: tuple[tuple[float, float], ...]
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]
    last: str

    @property
    def path(self) -> str:
        """The points as SVG writes them."""
        return " ".join(f"{x:.2f},{y:.2f}" for x, y in self.points)


@dataclass(frozen=True)
class Dot:
    """A network by two of its measures; `role` is before, after or control."""

    name: str
    text: str
    role: str
    x: float
    y: float


@dataclass(frozen=True)
class Front:
    """Networks between two axes, in percent (y from the top), and the ticks of both."""

    title: str
    dots: tuple[Dot, ...]
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]


def whiskers(rows: Sequence[tuple[str, str, Mapping[str, Any], str]]) -> Whiskers:
    """Rows of (name, role, Evidence as JSON, note) on a common scale that holds every interval."""
    unit = rows[0][2].get("unit", "")
    ends = [row[2][key] for row in rows for key in ("value", "low", "high")]
    steps = round_steps(min(ends), max(ends))
    low, high = steps[0], steps[-1]

    def at(value: float) -> float:
        return round(100 * (value - low) / (high - low), 2)

    made = tuple(
        Whisker(name, evidence(e), role, at(e["value"]), at(e["low"]), at(e["high"]), note)
        for name, role, e, note in rows
    )
    return Whiskers(made, tuple(Tick(at(step), amount(step, unit)) for step in steps))


def line(title: str, values: Sequence[tuple[float, float]], unit: str) -> Line | None:
    """A curve through (epoch, value); None where there are fewer than two points."""
    if len(values) < 2:
        return None
    steps = round_steps(min(y for _, y in values), max(y for _, y in values))
    first, last = values[0][0], values[-1][0]
    epochs = range(round(first), round(last) + 1, max(1, ceil((last - first) / 5)))

    def x(epoch: float) -> float:
        return 100 * (epoch - first) / ((last - first) or 1)

    def y(value: float) -> float:
        return 100 - 100 * (value - steps[0]) / (steps[-1] - steps[0])

    return Line(
        title,
        tuple((x(epoch), y(value)) for epoch, value in values),
        tuple(Tick(x(epoch), f"{epoch:g}") for epoch in epochs),
        tuple(Tick(y(step), amount(step, unit)) for step in steps),
        amount(values[-1][1], unit),
    )


def front(
    title: str,
    rows: Sequence[tuple[str, str, float, float]],
    shown: Callable[[float], str],
    unit: str,
) -> Front | None:
    """Networks as (name, role, x, y), x as `shown` and y in a unit; None where there are fewer than two."""
    if len(rows) < 2:
        return None
    xs, ys = [x for _, _, x, _ in rows], [y for _, _, _, y in rows]
    across, up = (round_steps(min(values), max(values)) for values in (xs, ys))

    def at(value: float, steps: Sequence[float]) -> float:
        return round(100 * (value - steps[0]) / (steps[-1] - steps[0]), 2)

    dots = tuple(
        Dot(name, f"{name}: {shown(x)}, {amount(y, unit)}", role, at(x, across), round(100 - at(y, up), 2))
        for name, role, x, y in rows
    )
    return Front(
        title,
        dots,
        tuple(Tick(at(step, across), shown(step)) for step in across),
        tuple(Tick(round(100 - at(step, up), 2), amount(step, unit)) for step in up),
    )


def round_steps(low: float, high: float) -> list[float]:
    """Three to six round numbers around low and high."""
    span = (high - low) or abs(high) or 1.0
    rough = span / 4
    power = 10.0 ** floor(log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
    return [step * index for index in range(first, max(last, first + 1) + 1)]
