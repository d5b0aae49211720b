"""Scale: modules measured against the goals, each as it answers: a net that reads edges with all of its graph.

What a module becomes in the end counts from the start: what folds is folded, and convolutions lie with their channels
last where they take less time so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from torch import nn

from shoal.core.base import Edit
from shoal.core.channels import channels_first
from shoal.core.example import copy_of
from shoal.core.inputs import count
from shoal.costing import Cost, Prepared, alone, cost, latency, prepared
from shoal.data import Split
from shoal.edits.channels_last import ChannelsLast
from shoal.evidence import Evidence
from shoal.goals import Goal
from shoal.net import Net
from shoal.recipe import replayed
from shoal.shrinking.folding import flat, folds
from shoal.training.graphs import standing
from shoal.training.layout import lay_out

AIM = 0.99  # of a latency's limit
WORTH = 0.95  # of its time: a layout that leaves more is not worth an edit


class Scale:
    """Measures modules against the goals; ``latency`` is in milliseconds at the example's batch.

    ``before``: what the original measured, where that is known already, and then ``lays_out``: whether channels come
    last in the end; ``rows``: the split that the example is of, where it is of a graph.
    """

    def __init__(
        self,
        goals: Sequence[Goal],
        original: nn.Module,
        example: Any,
        runtime: str,
        before: Mapping[str, float] | None = None,
        rows: Split | None = None,
        lays_out: bool | None = None,
    ) -> None:
        self.goals, self.original, self.example, self.runtime, self.rows = goals, original, example, runtime, rows
        self.before = dict(before) if before else self.counts(original)
        if not before and any(goal.metric == "latency" for goal in goals):
            own = self._beside
            one = alone(own, 1.0) if isinstance(own, Prepared) else latency(*own, runtime=runtime, seconds=1.0)
            self.before["latency"] = one.median
        self.lays_out = self._quicker() if lays_out is None else lays_out

    def _quicker(self) -> bool:
        """Whether the original, folded, takes less time in eager mode with its channels last; other runtimes have
        layouts of their own."""
        if self.runtime != "eager" or "latency" not in self.before:
            return False
        folded = flat(self.original, self.example)
        if not self._layout(folded):
            return False
        laid = copy_of(folded)
        if not lay_out(laid, self.example):
            return False  # it does not run so, as its log says
        ratio = latency(*self.standing(laid), self.standing(folded), runtime=self.runtime, seconds=1.5).ratio
        return ratio is not None and ratio.high < WORTH

    def seals(self, module: nn.Module) -> tuple[Edit, ...]:
        """What is done in the end: exact edits, which no healing may come behind."""
        found = folds(module, self.example)
        return (*found, *self._layout(replayed(module, found))) if self.lays_out else found

    def ended(self, module: nn.Module) -> nn.Module:
        """A module as it will be in the end, in eval mode."""
        return replayed(module, self.seals(module)).eval()

    def laid(self, module: nn.Module) -> nn.Module:
        """A module that is not folded, as its convolutions will lie."""
        return replayed(module, found) if self.lays_out and (found := self._layout(module)) else module

    @staticmethod
    def _layout(module: nn.Module) -> tuple[Edit, ...]:
        paths = () if isinstance(module, Net) else channels_first(module)
        return (ChannelsLast(paths=paths),) if paths else ()

    def standing(self, module: nn.Module) -> tuple[nn.Module, Any]:
        """What is timed and counted of a module, and on what."""
        return (module, self.example) if self.rows is None else standing(module, self.rows, count(self.example))

    def measure(self, module: nn.Module, seconds: float = 1.5) -> dict[str, float]:
        """Every metric of a module; latency as :meth:`milliseconds` of the ratio to the original in the same run, each
        timed for so long."""
        found = self.counts(module)
        if "latency" in self.before:
            ratio = latency(*self.standing(module), self._beside, runtime=self.runtime, seconds=seconds).ratio
            assert ratio is not None
            found["latency"] = self.milliseconds(ratio)
        return found

    @cached_property
    def _beside(self) -> tuple[nn.Module, Any] | Prepared:
        """The original as it is timed beside others: copied anew each time in eager mode, else built once."""
        own = self.standing(self.original)
        return own if self.runtime == "eager" else prepared(*own, runtime=self.runtime)

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
        return counts_of(self.cost(module))

    def cost(self, module: nn.Module, *, training: bool = False) -> Cost:
        """What a module costs as it stands; of a net that reads edges the depth is that of its rows without them."""
        found = cost(*self.standing(module), training=training)
        return found if self.rows is None else replace(found, depth=cost(module, self.example, training=False).depth)


def counts_of(found: Cost) -> dict[str, float]:
    """What goals ask of a cost, by metric."""
    numbers = {"params": found.params, "macs": found.macs, "bytes": found.bytes, "depth": found.depth}
    return {name: float(number) for name, number in {**numbers, "memory": found.activation_bytes.inference}.items()}
