"""Scale: modules measured against the goals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from shoal.costing import Cost, cost, latency
from shoal.evidence import Evidence
from shoal.goals import Goal

AIM = 0.97  # of a latency's limit


class Scale:
    """Measures modules against the goals; ``latency`` is in milliseconds at the example's batch.

    ``before``: what the original measured, where that is known already.
    """

    def __init__(
        self,
        goals: Sequence[Goal],
        original: nn.Module,
        example: Any,
        runtime: str,
        before: Mapping[str, float] | None = None,
    ) -> None:
        self.goals, self.original, self.example, self.runtime = goals, original, example, runtime
        self.before = dict(before) if before else self.counts(original)
        if not before and any(goal.metric == "latency" for goal in goals):
            self.before["latency"] = latency(original, example, runtime=runtime, seconds=1.0).median

    def measure(self, module: nn.Module) -> dict[str, float]:
        """Every metric of a module; latency as :meth:`milliseconds` of the ratio to the original in the same run."""
        found = self.counts(module)
        if "latency" in self.before:
            ratio = latency(module, self.example, self.original, runtime=self.runtime, seconds=1.5).ratio
            assert ratio is not None
            found["latency"] = self.milliseconds(ratio)
        return found

    def milliseconds(self, ratio: Evidence) -> float:
        """A latency as goals see it: the upper end of the ratio's interval, times what the original took."""
        return ratio.high * self.before["latency"]

    def excess(self, now: Mapping[str, float]) -> dict[str, float]:
        """What is still above each goal's limit, in the metric's unit; only where something is.

        Latency is asked to be a little lower than its limit, so that the last, longer measurement finds the same.
        """
        aims = {goal.metric: goal.limit(self.before[goal.metric]) for goal in self.goals}
        if "latency" in aims:
            aims["latency"] *= AIM
        over = {metric: now[metric] - aim for metric, aim in aims.items()}
        return {metric: amount for metric, amount in over.items() if amount > 0}

    def counts(self, module: nn.Module) -> dict[str, float]:
        """The metrics that are counted, not timed."""
        return counts_of(cost(module, self.example, training=False))


def counts_of(found: Cost) -> dict[str, float]:
    """What goals ask of a cost, by metric."""
    numbers = {"params": found.params, "macs": found.macs, "bytes": found.bytes, "depth": found.depth}
    return {name: float(number) for name, number in {**numbers, "memory": found.activation_bytes.inference}.items()}
