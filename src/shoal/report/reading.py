"""Reading: what a report says: its headline, its figures before and after, and what its verdicts mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shoal.core.errors import BadArtifact, BadSetting
from shoal.report.format import amount, count, evidence, milliseconds, size

Report = Mapping[str, Any]

NEEDED = {
    "compression": ("model", "metric", "before", "after", "ratio", "floor", "keep"),
    "training": ("spec", "metric", "test"),
}
TONES = {"pass": "good", "better": "good", "equivalent": "good", "fail": "bad", "worse": "bad"}  # others are open

GLOSSARY = {
    "pass": "The quality floor holds: the test part shows, at 95%, that no more was lost than the floor allows.",
    "fail": "The test part shows, at 95%, that more was lost than the floor allows.",
    "inconclusive": "Neither could be shown with so few test examples. More of them would decide it.",
    "not promised": "No floor was asked for: the difference is told, and held against nothing.",
    "better": "The difference lies above zero with its whole interval.",
    "equivalent": "The whole interval of the difference is smaller than the margin that matters.",
    "worse": "The difference lies below zero with its whole interval.",
    "unclear": "The interval holds both gains and losses that matter. More test examples would decide it.",
    "interval": "In brackets: the range that holds the true number, at 95%. Latency: by bootstrap of timings taken in "
    "turns on this machine. Quality: from the scores of the test examples; differences are paired by example. The two "
    "ends of a floor's difference are one-sided bounds, each at 95%.",
    "control": "A rival that had the same chances: the same final shape trained from scratch, or random edits of the "
    "same budget. A compression that is no better than they are has shown nothing.",
    "memory": "Bytes of activations alive at once, at most, while it answers; weights are not in it.",
    "plan": "A set of edits that was carried out and measured. Harms of single edits do not add up, so several were "
    "made; the likeliest had the same short healing, and the best of them was healed.",
    "depth": "Layers with weights on the longest way from input to output: what must be computed one after another.",
    "MACs": "Multiply-adds for one batch of the example, counted as they are executed.",
}


@dataclass(frozen=True)
class Figure:
    """One measure before and after; `share` is after as a part of before."""

    name: str
    before: str
    after: str
    share: float | None
    note: str = ""

    @property
    def change(self) -> str:
        """``0.41x``."""
        return "" if self.share is None else f"{self.share:.2f}x"


def kind_of(report: Report) -> str:
    """The kind of a report. Raises BadSetting where it is unknown, BadArtifact where what it needs is missing."""
    kind = report.get("kind")
    if not isinstance(kind, str) or kind not in NEEDED:
        raise BadSetting(f"report of kind {kind!r}: not known; known: {', '.join(sorted(NEEDED))}")
    missing = [key for key in NEEDED[kind] if report.get(key) is None]
    if missing:
        raise BadArtifact(f"report of kind {kind}: has no {', '.join(missing)}; make the report again")
    return kind


def present(report: Report) -> dict[str, Any]:
    """The parts that are there: null says the same as leaving it out."""
    return {key: value for key, value in report.items() if value is not None}


def headline(report: Report) -> str:
    """What came of it, in one sentence with its numbers."""
    if kind_of(report) == "training":
        found = evidence(quality_of(report["test"]))
        return f"{report['metric']['name']} {found} on the test part"
    before, after = report["before"], report["after"]
    depth = (
        f"Depth {before['depth']} became {after['depth']}"
        if before["depth"] != after["depth"]
        else f"Depth stayed at {before['depth']}"
    )
    unit = report["metric"]["unit"]
    values = [amount(each["quality"]["value"], each["quality"].get("unit", unit)) for each in (before, after)]
    promise = "nothing promised"
    if report["keep"] != "none":
        promise = f"floor {report['keep']}: {report['floor']['word']}"
    return (
        f"{depth}: {evidence(report['ratio'])} the latency, {report['metric']['name']} {values[0]} → {values[1]}, "
        f"{promise}"
    )


def figures(report: Report) -> list[Figure]:
    """Latency, also of what is exact alone, parameters, multiply-adds, bytes, depth and memory, before and after."""
    before, after = report["before"], report["after"]
    ratio = report["ratio"]
    old, new = before["latency_ms"], after["latency_ms"]
    spread = ", ".join(f"{milliseconds(each['p10'])} to {milliseconds(each['p90'])}" for each in (old, new))
    note = f"median of {new['n']} runs; p10 to p90: {spread}; ratio {evidence(ratio)}"
    made = [Figure("latency", milliseconds(old["median"]), milliseconds(new["median"]), ratio["value"], note)]
    exact = report.get("folded")
    if exact and exact.get("ratio"):
        share = exact["ratio"]
        note = f"the original folded, its channels last where that is faster; ratio {evidence(share)}"
        times = milliseconds(old["median"]), milliseconds(share["value"] * old["median"])
        made.append(Figure("latency, exact edits alone", *times, share["value"], note))
    for key, name, form in (
        ("params", "parameters", count),
        ("macs", "MACs", count),
        ("bytes", "bytes", size),
        ("depth", "depth", count),
        ("memory", "memory", size),
    ):
        if before.get(key) is not None and after.get(key) is not None:
            share = after[key] / before[key] if before[key] else None
            made.append(Figure(name, form(before[key]), form(after[key]), share))
    return made


def quality_of(found: Mapping[str, Any]) -> Mapping[str, Any]:
    """The quality as Evidence, of a result or as it is."""
    inner = found.get("quality", found)
    assert isinstance(inner, Mapping)
    return inner


def tone(word: str) -> str:
    """good, bad or open: the colour of a verdict."""
    return TONES.get(word, "open")


def gain(edit: Report) -> str:
    """What an edit was estimated to save, with its unit."""
    for key, value in edit.items():
        if key.startswith("gain_") and value is not None:
            name = key.removeprefix("gain_")
            return (
                milliseconds(value)
                if name == "ms"
                else f"{size(value) if name in ('bytes', 'memory') else count(value)} {name}"
            )
    return ""


def history(rows: Sequence[Report], key: str) -> list[tuple[float, float]]:
    """(epoch, value) of the rows that have the value."""
    return [(row["epoch"], row[key]) for row in rows if row.get(key) is not None]
