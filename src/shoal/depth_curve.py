"""Depth curve: spans left out one after another, each time the one that harms least beside those that went before.

Chosen on the first rows, among the few that did least harm alone; judged on all of them, until it is clear that the
floor is left behind. On the way it is seen whether harms add up, as they are predicted to.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shoal.core.spans import Change, Span, Visit
from shoal.evidence import Evidence, Floor, Keep, mean, proportion
from shoal.intervening import Array, Told, Trial, kept, out_of_reach
from shoal.interventions.skip import Skip
from shoal.predicting import Prediction, summed

WIDTH = 3  # spans that are tried at each step: those that did least harm before
FAILED = 3  # so often in a row below the floor, and what comes after goes in the order of harms alone, on those rows
PAIRS = 16  # neighbours that are left out together, to see whether harms add up


@dataclass(frozen=True)
class Depth:
    """A module with some spans left out: which, what is left, and what became of the quality."""

    skipped: tuple[Visit, ...]
    left: int
    floor: Floor
    quality: Evidence
    ms: float  # by the times of the spans left out, of the whole module
    harm: Prediction

    def to_json(self) -> dict[str, Any]:
        """Its numbers; of what is left out, that which went last."""
        return {
            "left": self.left,
            "without": list(self.skipped[-1]) if self.skipped else None,
            "word": self.floor.word,
            "difference": self.floor.difference.to_json(),
            "quality": self.quality.to_json(),
            "ms": self.ms,
            "predicted": self.harm.predicted,
            "realised": self.harm.realised.to_json(),
        }


@dataclass(frozen=True)
class Alone:
    """What is known of every visited span by itself: how much the loss grows without it, and its milliseconds."""

    harm: Mapping[Visit, float]
    ms: Mapping[Visit, float]


def depth_curve(
    trial: Trial, few: Trial, base: Told, keep: Keep, alone: Alone, whole: float, memory: int, until: float | None
) -> tuple[tuple[Depth, ...], tuple[Prediction, ...]]:
    """The curve, which begins with nothing left out, and the pairs that were left out together.

    ``few`` is in front of the first rows alone; ``base`` is what the module answers as it is, on all of them; ``whole``
    are its milliseconds.
    """
    spans = {span.at: span for span in trial.scene.spans}
    with few.holding(memory):
        own = few.told([])[0]
        pairs = _pairs(few, own, tuple(spans.values()), alone, until)
        order, chosen, judged = _search(few, own, spans, keep, alone, until)
    steps = [_skip(spans[at]) for at in order[:judged]]
    told = trial.nested(steps, out_of_reach(keep))[1] if steps else []
    found = [(base, base), *((base, one) for one in told), *((own, one) for one in chosen[judged:])]
    unit = "%" if trial.judge.unit() == "pt" else ""
    curve = []
    for count, (before, after) in enumerate(found):
        gone = tuple(order[:count])
        ms = whole - sum(alone.ms[at] for at in gone)
        floor, quality = kept(keep, before, after), mean_quality(after.score, unit)
        curve.append(Depth(gone, len(spans) - count, floor, quality, ms, _prediction(alone, gone, before, after)))
    return tuple(curve), pairs


def _search(
    few: Trial, own: Told, spans: Mapping[Visit, Span], keep: Keep, alone: Alone, until: float | None
) -> tuple[list[Visit], list[Told], int]:
    """In which order spans go, what the module answers after each, and how many of them are worth all rows."""
    left = sorted(spans, key=lambda at: alone.harm[at])
    order: list[Visit] = []
    found: list[Told] = []
    judged = failed = 0
    while left and not _late(until):
        best = 0
        if failed < FAILED:
            tries = few.told([_skip(spans[at]) for at in left[:WIDTH]])[1]
            best = min(range(len(tries)), key=lambda i: float(tries[i].loss.mean()))
        order.append(left.pop(best))
        found.append(few.go_on(_skip(spans[order[-1]])))
        if failed < FAILED:
            judged = len(order)
            failed = failed + 1 if kept(keep, own, found[-1]).word == "fail" else 0
    return order, found, judged


def _pairs(few: Trial, own: Told, spans: Sequence[Span], alone: Alone, until: float | None) -> tuple[Prediction, ...]:
    """Neighbours left out together, spread over the depth."""
    if _late(until) or len(spans) < 2:
        return ()
    starts = np.unique(np.linspace(0, len(spans) - 2, min(PAIRS, len(spans) - 1)).round().astype(int)).tolist()
    tried = [spans[start : start + 2] for start in starts]
    told = few.told([Skip(run=2).changes(tuple(pair)) for pair in tried])[1]
    return tuple(
        _prediction(alone, tuple(span.at for span in pair), own, one) for pair, one in zip(tried, told, strict=True)
    )


def _prediction(alone: Alone, gone: tuple[Visit, ...], before: Told, after: Told) -> Prediction:
    return Prediction(gone, summed(alone.harm, gone), mean(after.loss - before.first(len(after.loss)).loss))


def _skip(span: Span) -> Mapping[Visit, Change]:
    return Skip().changes((span,))


def _late(until: float | None) -> bool:
    return until is not None and time.perf_counter() > until


def mean_quality(scores: Array, unit: str) -> Evidence:
    """The mean score; a share of ones where that is what the scores are."""
    return proportion(scores) if unit == "%" and np.isin(scores, (0, 1)).all() else mean(scores, unit=unit)
