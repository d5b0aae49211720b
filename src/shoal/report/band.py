"""Band: a curve with its interval as a band, a mark a point whose form says what was found there; in percent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from shoal.report.charts import Tick, round_steps
from shoal.report.format import amount


@dataclass(frozen=True)
class Point:
    """A number with its interval at a place of the axis; `word` is pass, fail or inconclusive."""

    at: int
    found: Mapping[str, Any]
    word: str
    text: str


@dataclass(frozen=True)
class Mark:
    """Where a point stands, y from the top."""

    x: float
    y: float
    low: float
    high: float
    word: str
    text: str


@dataclass(frozen=True)
class Band:
    """Marks in order, the ticks of both axes, and the height of a line across, if there is one."""

    marks: tuple[Mark, ...]
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]
    line: float | None

    @property
    def path(self) -> str:
        """The curve as SVG writes it."""
        return " ".join(f"{mark.x:.2f},{mark.y:.2f}" for mark in self.marks)

    @property
    def outline(self) -> str:
        """The band: along the upper ends, and back along the lower."""
        there = [f"{mark.x:.2f},{mark.high:.2f}" for mark in self.marks]
        back = [f"{mark.x:.2f},{mark.low:.2f}" for mark in reversed(self.marks)]
        return " ".join([*there, *back])


def band(points: Sequence[Point], line: float | None) -> Band | None:
    """The curve through the points; None where there are fewer than two."""
    if len(points) < 2:
        return None
    unit, last = points[0].found.get("unit", ""), points[-1].at
    ends = [point.found[key] for point in points for key in ("low", "high")]
    top = min(1.0, max(ends)) if unit == "%" else max(ends)  # an interval of a share may reach beyond all of it
    scale = round_steps(min([*ends, *([line] if line is not None else [])]), top)

    def y(value: float) -> float:
        return max(0.0, 100 - 100 * (value - scale[0]) / (scale[-1] - scale[0]))

    marks = (
        Mark(100 * p.at / last, y(p.found["value"]), y(p.found["low"]), y(p.found["high"]), p.word, p.text)
        for p in points
    )
    return Band(
        tuple(marks),
        tuple(Tick(100 * at / last, str(at)) for at in range(0, last + 1, max(1, ceil(last / 12)))),
        tuple(Tick(y(step), amount(step, unit)) for step in scale),
        None if line is None else y(line),
    )
