"""Analysed: what the report of an analysis says: its headline, the words of its verdicts, and how places are named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shoal.core.errors import BadArtifact, BadSetting
from shoal.report.format import amount, evidence, milliseconds
from shoal.report.reading import Report

NEEDED = ("keep", "metric", "quality", "ms", "rows", "effective_depth", "curve", "spans", "effects", "left")

WORDS = {
    "needed": "Skipped, it is not shown that the quality stays above the floor, and none of the others fits.",
    "mergeable": "Side by side with the next span, the quality stays above the floor; both are needed.",
    "loopable": "The span before it, run once more in its place, gives the same: one of the two is enough, looped.",
    "duplicate": "Another span before it, run in its place, gives the same.",
    "linear": "What it adds is linear in what it reads, all places and channels together.",
    "skippable": "Skipped, the quality stays above the floor.",
    "dead": "Skipped, it changes no answer at all.",
}

TERMS = {
    "span": "A part that takes a tensor and gives one of its shape, so that it can be left out. Stream: the stream "
    "itself goes through it. Branch: it is added to a stream. A part that is gone through again has a visit for each.",
    "harm": "How much the loss grows where the span is skipped, and all else stays as it is.",
    "distance": "How far the answers go: KL divergence in nats where classes are told apart, else the square of the "
    "difference over that of the own answer.",
    "effective depth": "The fewest spans that were shown to keep the quality above the floor, found by leaving out one "
    "after another what harms least. In brackets: from the fewest for which no loss below the floor was shown, to it.",
    "predicted": "How much the loss should grow where several spans go: the sum of what each did alone, on all rows. "
    "It is held against what came: of neighbours on the first rows, of the curve on as many as its table says.",
    "interval": "In brackets: the range that holds the true number, at 95%, over examples; differences are paired by "
    "example. The two ends of a floor's difference are one-sided bounds, each at 95%.",
    "floor": "What may be lost. pass: shown to be kept; fail: shown to be lost; inconclusive: more rows would tell.",
}


def checked(report: Report) -> Report:
    """The report. Raises BadSetting for one of another kind, BadArtifact where what it needs is missing."""
    if report.get("kind") != "analysis":
        raise BadSetting(f"report of kind {report.get('kind')!r}: is no analysis; give what Analysis.to_json gives")
    missing = [key for key in NEEDED if report.get(key) is None]
    if missing:
        raise BadArtifact(f"report of kind analysis: has no {', '.join(missing)}; make the analysis again")
    return report


def headline(report: Report) -> str:
    """What came of it, in one sentence with its numbers."""
    best, whole = report["effective_depth"], report["quality"]
    depth = f"Effective depth {depth_of(report)}"
    if best["left"] == best["of"]:
        return f"{depth}: {score_name(report)} {evidence(whole)}; no span can be left out at {report['keep']}"
    kept = [amount(each["value"], each.get("unit", "")) for each in (whole, best["quality"])]
    share = best["ms"] / report["ms"]
    return (
        f"{depth}: {score_name(report)} {kept[0]} → {kept[1]}, {share:.2f}x the latency, floor {report['keep']}: pass"
    )


def depth_of(report: Report) -> str:
    """``5 of 9 spans [4, 5]``."""
    best = report["effective_depth"]
    return f"{best['left']} of {best['of']} spans [{best['low']}, {best['left']}]"


def gain(report: Report) -> str:
    """What a compression to the effective depth would gain, by the times that were measured."""
    best = report["effective_depth"]
    now, then = report["ms"], best["ms"]
    if best["left"] == best["of"]:
        return f"{milliseconds(now)} now; nothing can be left out"
    gone = f"without {best['of'] - best['left']} of the spans"
    return f"{milliseconds(now)} now, {milliseconds(then)} {gone} ({then / now:.2f}x), by the measured times of each"


def score_name(report: Report) -> str:
    """What the quality is: the metric where it is a share, else the mean score of an example."""
    metric = report["metric"]
    return str(metric["name"]) if metric["unit"] == "%" else "score (minus the loss)"


def place(path: str, visit: int) -> str:
    """``layers.0``, and ``layers.0, visit 1`` where a run comes there again."""
    return path if visit == 0 else f"{path}, visit {visit}"


def place_of(at: Sequence[Any]) -> str:
    """The same of a pair from JSON."""
    return place(str(at[0]), int(at[1]))


def changed(report: Report) -> dict[tuple[str, str], Mapping[str, Any]]:
    """Every effect by (intervention, the place where it begins)."""
    return {(one["intervention"], place_of(one["places"][0])): one for one in report["effects"]}
