"""Planning: several plans that meet the goals, each carried out and measured, and nothing healed yet.

in rounds     a share of the way, weighed again, until the goals are met or nothing is left: slow, and sees what harms
              become together; where weighing takes long, only if no other way leads there
at once       all of the way by what was weighed on the original, in several ways of comparing harms, with layers that
              go, inner widths or both; if less or more is saved than foreseen, asked for so much more or less. Least
              together: of several answers, whose harms were shaken by chance, the one that harms least as a whole
another       the first of those ways with all answers so far forbidden

Harms do not add up, and what is spoilt least before healing is not what heals best: so there is more than one.

Longer than the house's 250 lines: every way of making a plan stands beside the others.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from torch import nn

from shoal.anatomy import anatomy
from shoal.core.base import Compressor, Edit
from shoal.core.errors import BadModel, Refused
from shoal.recipe import done
from shoal.shrinking.program import Way, choose
from shoal.shrinking.tracks import Track, order_of, tracked
from shoal.shrinking.weighing import Weighed, Weigher

log = logging.getLogger("shoal")
SHARE = 0.35  # of the whole way to the goals is gone in a round: harms do not add up, so the rest is weighed again
TOGETHER = 2.0  # times the sum of what each costs alone is what proposals may cost when they are taken together
SLACK = 0.02  # of what answers differ among each other, which they may cost beyond that
MOST = 1e9  # of a harm: answers that are not finite can hardly be healed
TRIES = 3  # at once: so often is more or less asked for than was foreseen
LOOSE = 0.08  # of what has to be saved, and of what may be left, may be saved too much
SLOW = 1e12  # multiply-adds of weighing, from which on the rounds come last; counted, since a clock tells each time
PATIENT = 6.0  # seconds that the original is timed as it will be in the end, beside itself as it is
# another number, and what is resumed must find the same
ROUNDS = Way("in rounds")
SHAKEN = 0.7  # standard deviation of the logarithm of the factors by which harms are shaken
SUM = Way("sum of harms")
WAYS = (
    SUM,  # first, without other answers: by then it is known how far off what is foreseen is
    Way("least together", draws=8),
    Way("few large harms", power=0.5),
    Way("many small harms", power=2.0),
    Way("spread over stages", spread=3.0),
    Way("layers only", kind="depth"),
    Way("widths only", kind="width"),
)
Say = Callable[[str], None]
Settle = Callable[[nn.Module], None]  # brings statistics up to date, in place


@dataclass(frozen=True, eq=False)
class Taken:
    """A proposal that was taken, with the harm and gain it was weighed at, and in which round."""

    weighed: Weighed
    round: int


@dataclass
class Plan:
    """The module so far, what was done to it, and where the spans of the original went."""

    module: nn.Module
    steps: list[Taken]
    tracks: list[Track]

    @property
    def edits(self) -> tuple[Edit, ...]:
        """All edits, in the order they were done."""
        return tuple(edit for step in self.steps for edit in step.weighed.proposal.edits)

    def taking(self, chosen: Sequence[Weighed], number: int) -> Plan:
        """The plan with proposals done that touch nothing in common, the last place first: a Net numbers its layers
        anew. What cannot be done beside the others (the last layer of a stage) is left."""
        module, tracks, steps = self.module, self.tracks, list(self.steps)
        for one in sorted(chosen, key=lambda w: order_of((w.proposal.paths or ("",))[0]), reverse=True):
            try:
                module = done(module, one.proposal)
            except (Refused, BadModel) as why:
                log.info("%s: left: %s", ", ".join(one.proposal.paths), why)
                continue
            tracks = tracked(tracks, one.proposal, module)
            steps.append(Taken(one, number))
        return Plan(module, steps, tracks)


@dataclass(frozen=True, eq=False)
class Candidate:
    """A plan that was carried out: the growth of the loss that was foreseen (the sum of harms) and that came, what it
    measures, and what of that is above the goals."""

    way: str
    plan: Plan
    foreseen: float
    harm: float
    values: Mapping[str, float]
    over: Mapping[str, float]

    @property
    def kind(self) -> str:
        """depth, width or both: what its edits take."""
        fewer = {Way("", kind="depth").takes(step.weighed) for step in self.plan.steps}
        return "both" if len(fewer) > 1 else "depth" if fewer == {True} else "width"


@dataclass
class Planner:
    """Makes plans for a module until ``stop``; what is found stays in ``candidates`` whenever it ends.

    ``settle`` brings the statistics of norms up to date; ``options`` are those of the original, where they are known.
    """

    original: nn.Module
    weigher: Weigher
    makers: Mapping[str, Compressor]
    settle: Settle
    stop: float
    say: Say
    options: list[Weighed] = field(default_factory=list)
    candidates: list[Candidate] = field(default_factory=list)
    interrupted: bool = False

    def __post_init__(self) -> None:
        spans = anatomy(self.original, self.weigher.scale.example).spans
        self.start = Plan(self.original, [], [Track(span.path, (span.path,)) for span in spans])
        self.base = self.weigher.loss(self.original)
        self.now: Mapping[str, float] = {}  # what the original measures, and what of that is above the goals
        self.over: Mapping[str, float] = {}
        self._off: dict[str, float] = {}  # how much is foreseen to be saved for what then is, of plans made at once
        self._half: Plan | None = None  # what was taken so far, should somebody interrupt

    def weigh(self) -> None:
        """Weigh what is proposed for the original."""
        if self.now:
            return
        scale = self.weigher.scale
        # what is done in the end counts now; longer, since all that is foreseen is a share of it
        self.now = scale.measure(scale.ended(self.original), seconds=PATIENT)
        self.over = scale.excess(self.now)
        if self.over and not self.options:
            proposals = self.weigher.proposals(self.original, self.makers)
            self.options = self.weigher.weigh(self.original, proposals, self.now, self.over)

    def keep_unedited(self) -> None:
        """The only candidate is the original as it will be in the end: that is enough."""
        self._keep("what is exact alone", self.start, self.now)

    def search(self) -> None:
        """Fill ``candidates``. Ctrl-C ends it, with what was taken so far; raised where that is nothing."""
        try:
            self.weigh()
            slow = self.weigher.work(len(self.options)) > SLOW
            if not slow:
                self._rounds(ROUNDS)
            for way in WAYS:
                self._at_once(way, ())
            self._at_once(SUM, [[step.weighed for step in one.plan.steps] for one in self.candidates])
            if slow and not self.candidates:
                self._rounds(ROUNDS)
        except KeyboardInterrupt:
            if self._half is not None and self._half.steps:
                self._measured(ROUNDS.name, self._half)
            if not self.candidates:
                raise
            self.say("interrupted: going on with what was taken so far")
            self.interrupted = True

    def _late(self) -> bool:
        return time.perf_counter() >= self.stop

    def _rounds(self, way: Way) -> None:
        """Rounds of weighing and taking, until the goals are met, nothing is left to propose, or the time is up."""
        scale, plan, now, number = self.weigher.scale, self.start, self.now, 0
        while (over := scale.excess(now)) and not self._late():
            weighed = self.options
            if plan.steps:
                proposals = self.weigher.proposals(plan.module, self.makers)
                weighed = self.weigher.weigh(plan.module, proposals, now, over)
            part = {metric: min(missing, SHARE * self.over.get(metric, missing)) for metric, missing in over.items()}
            chosen, enough = choose(weighed, part, way)
            if not enough:
                chosen = chosen[
                    : (len(chosen) + 1) // 2
                ]  # far from the goal, not all at once: the rest is weighed again
            taken = together(plan, chosen, number + 1, self.weigher) if chosen else plan
            if len(taken.steps) == len(plan.steps):
                break
            plan, number = self.settled(taken), number + 1
            self._half = plan
            now = scale.measure(scale.ended(plan.module))
            took = sum(step.round == number for step in plan.steps)
            loss = self.weigher.loss(plan.module)
            self.say(f"round {number}: took {took} of {len(weighed)} weighed; {told(now)}, valid loss {loss:.4f}")
        self._half = None
        if plan.steps:
            self._keep(way.name, plan, now)

    def _at_once(self, way: Way, cuts: Sequence[Sequence[Weighed]]) -> None:
        """All the way by what was weighed on the original. What is saved in the end is less or more than was foreseen:
        so much more or less is then asked for, of the ways that follow too."""
        scale, met, seen = self.weigher.scale, None, list[list[Weighed]]()
        for _ in range(TRIES):
            wanted = {metric: missing * self._off.get(metric, 1.0) for metric, missing in self.over.items()}
            chosen, enough = choose(self.options, wanted, way, cuts)
            if self._late() or not enough or not chosen or chosen in seen:
                break
            seen.append(chosen)
            answers = [one for one in (chosen, *self._shaken(way, wanted)) if not self._known(one)]
            plan = self._least(answers) if answers else self.start
            if not plan.steps:
                break
            now = scale.measure(scale.ended(plan.module))
            over = scale.excess(now)
            if not over:
                met = (plan, now)
            saved = {metric: self.now[metric] - now[metric] for metric in wanted}
            if not over.keys() <= wanted.keys() or min(saved.values()) <= 0:
                break  # another goal, which was met before, is not met any more: rounds see that
            if not over and any(self._close(saved[metric], metric) for metric in self.over):
                break
            for metric in over or wanted:
                foreseen = sum(step.weighed.saves[metric] for step in plan.steps)
                self._off[metric] = 1.01 * foreseen / saved[metric]
        if met is not None:
            self._keep(f"{way.name}, another" if cuts else way.name, *met)

    def _close(self, saved: float, metric: str) -> bool:
        """Whether little more is saved than has to be: little of that, and little of what is left."""
        missing = self.over[metric]
        return saved - missing <= LOOSE * min(missing, self.now[metric] - missing)

    def _shaken(self, way: Way, wanted: Mapping[str, float]) -> list[list[Weighed]]:
        """Other answers, each the best one had the harms been a little different."""
        random, found = np.random.default_rng(0), list[list[Weighed]]()
        for _ in range(way.draws):
            factors = np.exp(SHAKEN * random.standard_normal(len(self.options)))
            other = [replace(one, harm=one.harm * factor) for one, factor in zip(self.options, factors, strict=True)]
            number = {id(one): i for i, one in enumerate(other)}
            found.append([self.options[number[id(one)]] for one in choose(other, wanted, way).options])
        return found

    def _least(self, answers: Sequence[Sequence[Weighed]]) -> Plan:
        """Of answers that are carried out, the one whose loss is least with statistics brought up to date."""
        different = list({frozenset(map(id, chosen)): chosen for chosen in answers}.values())
        best, least = different[0], math.inf
        for chosen in different if len(different) > 1 else ():  # one module at a time: they may be large
            plan = self.start.taking(chosen, 1)
            self.settle(plan.module)
            loss = self.weigher.loss(plan.module)
            if plan.steps and loss < least:
                best, least = chosen, loss
        return self.settled(self.start.taking(best, 1))

    def _known(self, chosen: Sequence[Weighed]) -> bool:
        """Whether the same proposals were carried out already."""
        edits = {one.proposal.edits for one in chosen}
        return any({step.weighed.proposal.edits for step in one.plan.steps} == edits for one in self.candidates)

    def settled(self, plan: Plan) -> Plan:
        """The plan with its norms' statistics brought up to date, where that lowers the loss."""
        before = {name: value.clone() for name, value in plan.module.named_buffers()}
        loss = self.weigher.loss(plan.module)
        self.settle(plan.module)
        if not self.weigher.loss(plan.module) <= loss:
            for name, value in plan.module.named_buffers():
                value.copy_(before[name])
        return plan

    def _measured(self, way: str, plan: Plan) -> None:
        scale = self.weigher.scale
        self._keep(way, plan, scale.measure(scale.ended(plan.module)))

    def _keep(self, way: str, plan: Plan, now: Mapping[str, float]) -> None:
        harm = self.weigher.loss(plan.module) - self.base
        harm = min(harm, MOST) if math.isfinite(harm) else MOST
        foreseen = sum(max(step.weighed.harm, 0.0) for step in plan.steps)
        self.candidates.append(Candidate(way, plan, foreseen, harm, now, self.weigher.scale.excess(now)))
        self.say(f"plan {len(self.candidates)}, {way}: {len(plan.steps)} edits; {told(now)}, loss {harm:+.4f}")


def together(plan: Plan, chosen: Sequence[Weighed], number: int, weigher: Weigher) -> Plan:
    """The plan with the proposals done; with the cheaper half of them, and so on, where together they cost far more
    than one by one: all layers of a stage may be spared singly and not at once."""
    while True:
        taken = plan.taking(chosen, number)
        allowed = TOGETHER * sum(one.harm for one in chosen) + SLACK
        if len(chosen) == 1 or weigher.far(taken.module, plan.module) <= allowed:
            return taken
        chosen = chosen[: len(chosen) // 2]


def shortlist(candidates: Sequence[Candidate], most: int) -> list[Candidate]:
    """The candidates to heal for a while: of those nearest to the goals the best of each kind, then those with the most
    weights left, among equals the best.

    The best is spoilt least, which says little of how it will heal: in three searches of ResNet-56
    (bench/compress.py) plans healed nearly in the order of the weights that they had left, and in two of them against
    that of their harms.
    """
    if not candidates:
        return []
    left = [one for one in candidates if not one.over] or [nearest(candidates)]
    left.sort(key=lambda one: one.harm)
    kinds = list(dict.fromkeys(one.kind for one in left))
    first = [next(one for one in left if one.kind == kind) for kind in kinds]
    rest = [one for one in left if not any(one is other for other in first)]
    return [*first, *sorted(rest, key=lambda one: -one.values["params"])][:most]


def nearest(candidates: Sequence[Candidate]) -> Candidate:
    """The one that is least above the goals, in shares of what it measures; the earliest among equals."""
    return min(candidates, key=lambda one: sum(amount / one.values[metric] for metric, amount in one.over.items()))


def told(values: Mapping[str, float]) -> str:
    """What a module measures, in a few words."""
    words = [f"{values['latency']:.2f} ms"] if "latency" in values else []
    return ", ".join([*words, f"{values['params'] / 1e3:.1f}k weights", f"depth {values['depth']:.0f}"])
