"""Analysis page: how a network uses its depth, as one HTML file that asks nothing of the network.

The network drawn as a column of layers, the quality against the depth left out, maps of what changes do, and every
number in tables; a few lines of script in it sort them. Every value is escaped; the form is analysis.html.jinja.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from shoal.report import held
from shoal.report.analysed import TERMS, WORDS, changed, checked, depth_of, gain, headline, place, place_of, score_name
from shoal.report.band import Band, Point, band
from shoal.report.format import bare_ms, count, evidence
from shoal.report.maps import LEVELS, heat, shade, square
from shoal.report.page import environment
from shoal.report.reading import Report, present

OPTIONAL: Report = {
    "model": "",
    "data": "",
    "measures": {},
    "maps": {},
    "held": {},
    "unfinished": [],
    "seconds": None,
    "floor": None,
    "environment": {},
}


@dataclass(frozen=True)
class Cell:
    """A cell of a table: what is read, and the number that it is sorted by, where it is one."""

    text: str
    number: float | None = None


@dataclass(frozen=True)
class Row:
    """A span in the column: its name, kind, word and reason, and its share of the time in percent."""

    name: str
    kind: str
    word: str
    why: str
    share: float


def analysis_page(report: Report) -> str:
    """The HTML. ``model``, ``data``, ``environment`` and ``maps`` may be added to what Analysis.to_json gives.

    Raises BadSetting for a report of another kind, BadArtifact where what it needs is missing.
    """
    report = {**OPTIONAL, **present(checked(report))}
    said = Counter(span["verdict"] for span in report["spans"])
    maps = [square(name, table) for name, table in report["maps"].items()]
    facts: dict[str, Any] = {
        "report": report,
        "headline": headline(report),
        "depth": depth_of(report),
        "gain": gain(report),
        "score": score_name(report),
        "words": {word: (said[word], meaning) for word, meaning in WORDS.items()},
        "terms": TERMS,
        "column": _column(report),
        "curve": _curve(report),
        "steps": _steps(report),
        "held": held.said(report),
        "dots": held.dots(report),
        "heat": heat(report),
        "shades": [shade(step / LEVELS) for step in range(LEVELS + 1)],
        "squares": [one for one in maps if one is not None],
        "spans": _spans(report),
        "measures": {name: _measure(table) for name, table in report["measures"].items()},
    }
    return environment().get_template("analysis.html.jinja").render(facts)


def _column(report: Report) -> list[Row]:
    whole = report["ms"] or 1.0
    return [
        Row(place(span["path"], span["visit"]), span["kind"], span["verdict"], span["why"], 100 * span["ms"] / whole)
        for span in report["spans"]
    ]


def _curve(report: Report) -> Band | None:
    """The quality against the number of spans left out."""
    points = []
    for number, step in enumerate(report["curve"]):
        gone = "nothing left out" if step["without"] is None else f"{number} left out, last {place_of(step['without'])}"
        text = f"{gone}: {score_name(report)} {evidence(step['quality'])}, n = {step['quality']['n']:,}, {step['word']}"
        points.append(Point(number, step["quality"], step["word"], text))
    return band(points, report["floor"])


def _steps(report: Report) -> list[dict[str, Any]]:
    """The rows of the table under the curve."""
    return [
        {
            **step,
            "name": "" if step["without"] is None else place_of(step["without"]),
            "time": f"{bare_ms(step['ms'])} ({step['ms'] / report['ms']:.2f}x)",
        }
        for step in report["curve"]
    ]


def _spans(report: Report) -> list[tuple[str, list[Cell]]]:
    """The verdict of every span, and its cells beside."""
    found = changed(report)
    rows = []
    for number, span in enumerate(report["spans"]):
        name = place(span["path"], span["visit"])
        skipped = found["skip", name]
        cells = [
            Cell(str(number), number),
            Cell(name),
            Cell(span["kind"]),
            Cell(evidence(skipped["loss"]), skipped["loss"]["value"]),
            Cell(evidence(skipped["quality"]), skipped["quality"]["value"]),
            Cell(evidence(skipped["distance"]), skipped["distance"]["value"]),
            Cell(bare_ms(span["ms"]), span["ms"]),
            Cell(count(span["params"]), span["params"]),
            Cell(count(span["macs"]), span["macs"]),
            Cell(span["inner"]),
        ]
        rows.append((span["verdict"], cells))
    return rows


def _measure(table: Report) -> dict[str, Any]:
    """A measure's table: the place first, then its numbers."""
    rows = [
        [Cell(str(number), number), Cell(place(row[0], row[1])), *(Cell(f"{value:.4g}", value) for value in row[2:])]
        for number, row in enumerate(table["rows"])
    ]
    return {"columns": ["#", "span", *table["columns"][2:]], "rows": rows}
