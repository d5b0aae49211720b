"""Maps: numbers as shades of one hue, light where there is little: changes at places, and spans against spans.

One hue, and steps of lightness that are told apart without seeing colours; the darkest still lets dark text be read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import floor, log10
from typing import Any

from shoal.report.analysed import changed, place
from shoal.report.format import evidence
from shoal.report.reading import Report

LEVELS = 5  # shades above white, half a power of ten apart
PALE, DEEP = (255, 255, 255), (104, 168, 214)
PRINTED = 14  # spans of a square whose numbers are printed in it


@dataclass(frozen=True)
class Cell:
    """A change at a place; level 0: no harm was shown."""

    text: str
    range: str
    level: int
    title: str


@dataclass(frozen=True)
class Heat:
    """A row a span, a cell a change; None where it was not done there. ``key``: from which number on a shade is."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell | None, ...]], ...]
    key: tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class Shade:
    """A cell of a square: where it is, its colour, its number."""

    row: int
    column: int
    colour: str
    text: str


@dataclass(frozen=True)
class Square:
    """Spans against spans."""

    name: str
    labels: tuple[str, ...]
    cells: tuple[Shade, ...]
    size: int  # of a cell, in pixels
    low: str
    high: str

    @property
    def printed(self) -> bool:
        """Whether there is room for numbers."""
        return len(self.labels) <= PRINTED


def shade(share: float) -> str:
    """The colour of a number between 0 and 1."""
    mixed = (round(a + (b - a) * share) for a, b in zip(PALE, DEEP, strict=True))
    return "#" + "".join(f"{each:02x}" for each in mixed)


def level(found: Mapping[str, Any], largest: float) -> int:
    """The step of a growth whose interval lies above 0, by its share of the largest; else 0."""
    if found["low"] <= 0 or largest <= 0:
        return 0
    return max(1, LEVELS - floor(2 * log10(largest / found["value"]) + 1e-9))


def heat(report: Report) -> Heat:
    """How much the loss grows, by span and intervention; a change of several spans stands at the first of them."""
    found = changed(report)
    columns = tuple(dict.fromkeys(name for name, _ in found))
    largest = max((one["loss"]["value"] for one in found.values()), default=0.0)
    rows = []
    for span in report["spans"]:
        name = place(span["path"], span["visit"])
        cells = tuple(_cell(column, name, found.get((column, name)), largest) for column in columns)
        rows.append((name, cells))
    steps = [(0, "none shown"), (1, "some")]
    steps += [(step, f"from {largest * 10 ** (-(LEVELS - step + 1) / 2):.2g}") for step in range(2, LEVELS + 1)]
    return Heat(columns, tuple(rows), tuple(steps) if largest > 0 else ((0, "none shown"),))


def _cell(intervention: str, name: str, effect: Mapping[str, Any] | None, largest: float) -> Cell | None:
    if effect is None:
        return None
    loss, quality = effect["loss"], effect["quality"]
    title = f"{intervention} at {name}: loss {evidence(loss)}, quality {evidence(quality)}, n = {loss['n']:,}"
    around = f"[{loss['low']:.2g}, {loss['high']:.2g}]"  # in short; the title has it whole
    return Cell(f"{loss['value']:+.2g}", around, level(loss, largest), title)


def square(name: str, table: Mapping[str, Any]) -> Square | None:
    """A measure's map, spans against spans: ``labels`` and rows of ``values``; None where there are fewer than two."""
    labels, values = table["labels"], table["values"]
    if len(labels) < 2:
        return None
    low, high = min(map(min, values)), max(map(max, values))
    across = (high - low) or 1.0
    cells = tuple(
        Shade(i, j, shade((value - low) / across), f"{value:.2f}")
        for i, line in enumerate(values)
        for j, value in enumerate(line)
    )
    size = 42 if len(labels) <= PRINTED else 22 if len(labels) <= 40 else 12
    return Square(name, tuple(map(str, labels)), cells, size, f"{low:.3g}", f"{high:.3g}")
