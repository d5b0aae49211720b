"""Verdicts: one word for every visited span, and why; the first of these that is true.

dead        skipped, it changes no answer at all
loopable    it is a later visit of a module, or the span before it, run in its place, gives the same: one of the two is
            enough, looped
duplicate   another span before it, run in its place, gives the same
skippable   skipped, the quality stays above the floor
linear      what it adds is linear in what it reads, all places and channels together
mergeable   side by side with the one behind it, the quality stays above the floor; both are needed
needed      none of these, or the rows are too few to show one; the reason then says how many would do
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from torch import Tensor

from shoal.core.resuming import Resumable, Tape
from shoal.core.scene import Scene
from shoal.core.spans import Left, Span, Step, Visit
from shoal.evidence import Floor, Keep
from shoal.intervening import Told, kept

WORDS = ("dead", "loopable", "duplicate", "skippable", "linear", "mergeable", "needed")
NOTHING = 1e-11  # a distance of answers that is rounding alone
SAME = 1e-4  # of what a span gives: another that differs by less is the same
STRAIGHT = 1e-3  # of the squares of what a span adds: one that is off a linear map by less is one
FEW = 64  # rows on which spans are looked into


@dataclass(frozen=True)
class SpanVerdict:
    """A span, its word, and the reason in a line."""

    span: Span
    word: str
    why: str


@dataclass(frozen=True)
class Nature:
    """What a span is by itself: ``twin``, the first span that gives the same as it on what it reads; ``bent``, how far
    it is from a linear map, as a share of the squares of what it adds; ``adds``, whether it adds anything."""

    twin: Visit | None
    bent: float
    adds: bool


def natures(scene: Scene) -> dict[Visit, Nature]:
    """The nature of every span, on the first rows; it alone is run again. Visits of one module are twins."""
    few = scene.head(FEW)
    found: dict[Visit, Nature] = {}
    with few.runs() as runs:
        tape = runs.record(few.batches[0].example)
        for number, span in enumerate(scene.spans):
            alike = [other for other in scene.spans[:number] if _alike(span, other)]
            found[span.at] = _nature(runs, tape, span, alike)
    return found


def _alike(span: Span, other: Span) -> bool:
    """Whether one could stand in for the other."""
    return (span.shape, span.params, span.branch, span.axis) == (other.shape, other.params, other.branch, other.axis)


def _nature(runs: Resumable, tape: Tape, span: Span, alike: Sequence[Span]) -> Nature:
    found: list[Nature] = []

    def look(step: Step) -> Any:
        def added(x: Tensor, path: str) -> Tensor:
            y = step.run(x.clone(), path)  # it may write to what it reads
            return (y if span.branch or not span.skip else y - x).double()

        x = step.main.clone()
        own = added(x, span.path)
        twin = _twin(span, alike, own, lambda path: added(x, path))
        found.append(Nature(twin, _bent(x, own, span, added), bool(own.any())))
        raise Left(step.out)

    runs.resume(tape, {span.at: look})
    return found[0]


def _twin(span: Span, alike: Sequence[Span], own: Tensor, lent: Callable[[str], Tensor]) -> Visit | None:
    size = own.square().sum().clamp_min(1e-30)
    for other in alike:
        if other.path == span.path or (lent(other.path) - own).square().sum() < SAME**2 * size:
            return other.at
    return None


def _bent(x: Tensor, own: Tensor, span: Span, added: Callable[[Tensor, str], Tensor]) -> float:
    """How far what it adds half-way between two rows is from the mean of what it adds to both; 0 for a linear map.

    The square of that, over the spread of what it adds; 1 where there is but one row.
    """
    if len(x) < 2:
        return 1.0
    other = x.roll(1, dims=0)
    off = added((x + other) / 2, span.path) - (own + added(other, span.path)) / 2
    spread = (own - own.mean(dim=0)).square().sum()
    return float(off.square().sum() / spread) if spread > 0 else 0.0


def alone(
    scene: Scene, keep: Keep, base: Told, skipped: Mapping[Visit, Told], nature: Mapping[Visit, Nature]
) -> dict[Visit, SpanVerdict]:
    """A verdict a span, whatever may be merged. ``skipped`` is what the module answers without it, by visit."""
    found: dict[Visit, SpanVerdict] = {}
    for number, span in enumerate(scene.spans):
        found[span.at] = _alone(span, scene.spans[:number], keep, base, skipped[span.at], nature)
    return found


def may_merge(said: Mapping[Visit, SpanVerdict], spans: Sequence[Span]) -> bool:
    """Whether it would matter that two spans can be side by side: beside one that can go, all can be."""
    first, second = spans
    return said[first.at].word == "needed" and said[second.at].word not in ("dead", "skippable")


def merged(
    said: Mapping[Visit, SpanVerdict], keep: Keep, base: Told, beside: Mapping[Visit, Told]
) -> tuple[SpanVerdict, ...]:
    """The verdicts, where some are mergeable. ``beside`` is what the module answers where a span is side by side with
    its next, for those that may be."""
    tests = {at: kept(keep, base, together) for at, together in beside.items()}
    return tuple(
        SpanVerdict(one.span, "mergeable", f"side by side with the next: {tests[at]}")
        if at in tests and tests[at].word == "pass"
        else one
        for at, one in said.items()
    )


def _alone(
    span: Span, before: Sequence[Span], keep: Keep, base: Told, skipped: Told, nature: Mapping[Visit, Nature]
) -> SpanVerdict:
    twin, bent = nature[span.at].twin, nature[span.at].bent
    if twin is not None and twin.path == span.path and nature[span.at].adds:  # each may go, but not all of them
        return SpanVerdict(span, "loopable", f"it is visit {span.visit} of a module that is looped already")
    if skipped.distance.max() <= NOTHING:
        return SpanVerdict(span, "dead", "skipped, it changes no answer")
    if twin is not None:
        last = before[-1].at
        if twin in (last, nature[last].twin):
            return SpanVerdict(span, "loopable", f"it does what {last.path} before it does")
        return SpanVerdict(span, "duplicate", f"it does what {twin.path} does")
    without = kept(keep, base, skipped)
    if without.word != "pass" and bent <= STRAIGHT:
        return SpanVerdict(span, "linear", f"half-way between two rows it is {bent:.1e} of the squares off the mean")
    if without.word == "inconclusive":
        return SpanVerdict(span, "needed", f"not certain; skipped: {without}{_more(without, keep)}")
    return SpanVerdict(span, "skippable" if without.word == "pass" else "needed", f"skipped: {without}")


def _more(test: Floor, keep: Keep) -> str:
    """How many rows would tell: an interval gets narrower with their root. Nothing where it lies on the floor."""
    found, points = test.difference, keep.points
    room = found.value + points if points is not None else (keep.relative or 0.0) - found.value
    up, down = found.high - found.value, found.value - found.low
    half = down if (room > 0) == (points is not None) else up
    if room == 0:
        return ""
    return f"; about {ceil(found.n * max(1.0, (half / room) ** 2)):,} rows would tell"
