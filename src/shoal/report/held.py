"""Held: how well predicted harms came true where several spans were left out together, as ranks against ranks."""

from __future__ import annotations

from dataclasses import dataclass

from shoal.report.analysed import place_of
from shoal.report.format import evidence
from shoal.report.reading import Report


@dataclass(frozen=True)
class Dot:
    """A set of spans: what is left out; its rank by what was predicted and by what came, in percent; and its numbers.

    y is from the top: a set for which the prediction held stands on the line that rises to the right.
    """

    name: str
    pair: bool
    x: float
    y: float
    predicted: float
    realised: float
    told: str


def dots(report: Report) -> tuple[Dot, ...]:
    """The pairs of neighbours, and what was left out on the curve, from two spans on; none where there are too few."""
    steps = [one for one in report["curve"][2:] if "realised" in one]
    pairs = [*report["held"].get("pairs", ())]
    sets = [(" and ".join(place_of(at) for at in one["skipped"]), True, one) for one in pairs]
    sets += [(f"{n} spans, last {place_of(one['without'])}", False, one) for n, one in enumerate(steps, start=2)]
    if len(sets) < 2:
        return ()
    across = _ranks([one["predicted"] for _, _, one in sets])
    up = _ranks([one["realised"]["value"] for _, _, one in sets])
    return tuple(
        Dot(name, pair, x, 100 - y, one["predicted"], one["realised"]["value"], evidence(one["realised"]))
        for (name, pair, one), x, y in zip(sets, across, up, strict=True)
    )


def _ranks(values: list[float]) -> list[float]:
    """From 0 for the least to 100 for the most; equal ones share the middle of their places."""
    order = sorted(values)
    return [100 * (order.index(v) + (order.count(v) - 1) / 2) / (len(values) - 1) for v in values]


def said(report: Report) -> str:
    """The same in a sentence; nothing where too few sets were left out."""
    found = report.get("held") or {}
    if found.get("spearman") is None:
        return ""
    return (
        f"Predicted and realised growth of the loss: Spearman {found['spearman']:.2f} over {found['sets']} sets of 2 "
        f"to {found['largest']} spans. Predicted is the sum of what each did alone."
    )
