"""Ranking: plans after the same short healing, for rankings flip: what is spoilt least need not heal best.

Rung by rung the better half goes on to a healing twice as long, until one is left: successive halving.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from scipy.stats import spearmanr
from torch import nn

from shoal.evidence import Evidence
from shoal.shrinking.healing import copied
from shoal.shrinking.planning import Candidate, Plan, Say
from shoal.shrinking.stages import Stages
from shoal.training.state import tensors_of
from shoal.training.train import Run

FIRST = 0.025  # of the whole healing is the first rung
# (name of the stage, plan, share of the whole healing, and of that what its network has had already)
Heal: TypeAlias = Callable[[str, Plan, float, float], Run]


@dataclass(frozen=True, eq=False)
class Placed:
    """A candidate after short healings: its quality on the valid part behind the first, which all had, and behind its
    last, its loss there, and the share of the whole healing that it had in all."""

    candidate: Candidate
    early: Evidence
    quality: Evidence
    loss: float
    share: float
    net: nn.Module
    run: Run | None = None  # the last; None where it was read from a stage

    @property
    def order(self) -> tuple[float, float]:
        """The best first."""
        return (-self.quality.value, self.loss)


class Ranking:
    """Candidates, the best first in ``placed``; ``interrupted`` by Ctrl-C, those that had none are not in it."""

    def __init__(self, heal: Heal, stages: Stages, say: Say) -> None:
        self.heal, self.stages, self.say = heal, stages, say
        self.placed: list[Placed] = []
        self.interrupted = False

    def rank(self, candidates: Sequence[Candidate]) -> None:
        """Fill ``placed``."""
        found: dict[int, Placed] = {}
        left, share, rung = list(range(len(candidates))), FIRST, 1
        while len(left) > 1 and not self.interrupted:
            for number in left:
                one, before = candidates[number], found.get(number)
                found[number] = self._healed(f"short-{rung}-{number}", one, before, share)
                self.say(f"short healing {rung}, {one.way}: {found[number].quality} on the valid part")
                if self.interrupted:
                    break
            left = sorted((number for number in left if number in found), key=lambda i: found[i].order)
            left, share, rung = left[: (len(left) + 1) // 2], 2 * share, rung + 1
        best = [found[number] for number in left if number in found]
        rest = [one for one in found.values() if not any(one is other for other in best)]
        self.placed = [*best, *sorted(rest, key=lambda one: one.order)]

    def _healed(self, name: str, one: Candidate, before: Placed | None, share: float) -> Placed:
        net, had = (one.plan.module, 0.0) if before is None else (before.net, before.share)
        saved, run = self.stages.get(name), None
        if saved is not None:
            net = copied(net, saved.under("net"))
            quality, loss = Evidence.from_json(saved.facts["quality"]), float(saved.facts["loss"])
        else:
            run = self.heal(f"{name}-training", replace(one.plan, module=net), share, had)
            net, quality, loss = run.net, run.valid.quality, run.valid.loss
            self.interrupted = run.stopped == "interrupt"
            if not self.interrupted:
                weights = {f"net/{key}": value for key, value in tensors_of(net).items()}
                self.stages.put(name, {"quality": quality.to_json(), "loss": loss}, weights)
        return Placed(one, before.early if before else quality, quality, loss, had + share, net, run)


def cost_of(candidates: int) -> float:
    """How much more than a whole healing it takes to rank so many: each rung is twice as long, for half of them, and
    what the best had is of its own healing."""
    total, share = 0.0, FIRST
    while candidates > 1:
        total, candidates, share = total + share * (candidates - 1), (candidates + 1) // 2, 2 * share
    return total


def agreement(foreseen: Sequence[float], came: Sequence[float]) -> float | None:
    """How well an order was foreseen: Spearman's correlation; None below three, or where all are alike."""
    if len(foreseen) < 3 or len(set(foreseen)) < 2 or len(set(came)) < 2:
        return None
    found = float(spearmanr(foreseen, came).statistic)
    return found if math.isfinite(found) else None
