"""Weighing: what a proposal would cost in quality and bring in speed, measured on the module as it stands.

harm    growth of the loss on calibration rows when the edits are done and nothing is healed
gain    what the edits save of the metric that is furthest from its goal: milliseconds of the spans themselves for
        latency (a whole model's time is too noisy for one layer), counted exactly for everything else
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from shoal.anatomy import anatomy
from shoal.core.base import Compressor, Proposal, Task
from shoal.core.scene import Batch, Scene
from shoal.costing import cost, latency, per_span_ms
from shoal.evidence import Evidence
from shoal.goals import Goal
from shoal.net import Net
from shoal.recipe import done

AIM = 0.97  # of a latency's limit


@dataclass(frozen=True)
class Weighed:
    """A proposal with its measured harm (growth of the loss), gain (see above) and what it saves, by metric."""

    proposal: Proposal
    compressor: str
    harm: float
    gain: float
    saves: Mapping[str, float]

    @property
    def price(self) -> float:
        """Harm for each unit of gain; what helps costs nothing."""
        return max(self.harm, 0.0) / self.gain


class Scale:
    """Measures modules against the goals; ``latency`` is in milliseconds at the example's batch."""

    def __init__(self, goals: Sequence[Goal], original: nn.Module, example: Any, runtime: str) -> None:
        self.goals, self.original, self.example, self.runtime = goals, original, example, runtime
        self.before = self.counts(original)
        if any(goal.metric == "latency" for goal in goals):
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
        found = cost(module, self.example, training=False)
        return {"params": found.params, "macs": found.macs, "bytes": found.bytes, "depth": found.depth}


class Weigher:
    """Weighs proposals on calibration rows (x, y) of a task."""

    def __init__(self, rows: tuple[Tensor, Tensor], task: Task, scale: Scale) -> None:
        self.x, self.y = rows
        self.task, self.scale = task, scale
        self._saved: dict[tuple[Any, ...], float] = {}  # like proposals save alike; their time is measured once

    def loss(self, module: nn.Module) -> float:
        """The task's loss on the calibration rows, in eval mode."""
        return float(self.task.loss(self._outputs(module), self.y))

    @cached_property
    def silence(self) -> float:
        """The loss of answers that are all zero: what there is to lose."""
        return float(self.task.loss(torch.zeros_like(self._outputs(self.scale.original)), self.y))

    def _outputs(self, module: nn.Module) -> Tensor:
        module.eval()
        with torch.inference_mode():
            return torch.cat([module(part) for part in self.x.split(256)]).float()

    def proposals(self, module: nn.Module, compressors: Mapping[str, Compressor]) -> list[tuple[str, Proposal]]:
        """What every compressor proposes for the module as it is."""
        found = anatomy(module, self.scale.example)
        scene = Scene(module, found, (Batch(self.x, self.y),), self.task)
        return [(name, one) for name, compressor in compressors.items() for one in compressor.propose(scene)]

    def weigh(
        self,
        module: nn.Module,
        proposals: Iterable[tuple[str, Proposal]],
        now: Mapping[str, float],
        over: Mapping[str, float],
    ) -> list[Weighed]:
        """Harm and gain of each, the cheapest first; what would gain nothing is left out.

        ``now`` is what the module measures, ``over`` what of it is still above the goals.
        """
        found = list(proposals)
        base = self.loss(module)
        spans = sorted({path for _, one in found for path in one.paths})
        shares = self._shares(module, spans, 0.8) if spans and "latency" in over else {}
        weighed: list[Weighed] = []
        for name, one in found:
            shrunk = done(module, one)
            saves = {metric: now[metric] - value for metric, value in self._counted(shrunk, over).items()}
            if "latency" in over:
                saves["latency"] = now["latency"] * self._share(module, shrunk, name, one, shares)
            gain = sum(min(saves[metric] / missing, 1.0) for metric, missing in over.items())
            if gain > 0:
                weighed.append(Weighed(one, name, self.loss(shrunk) - base, gain, saves))
        return sorted(weighed, key=lambda w: (w.price, -w.gain, w.proposal.paths))

    def _counted(self, shrunk: nn.Module, over: Mapping[str, float]) -> dict[str, float]:
        wanted = [metric for metric in over if metric != "latency"]
        counts = self.scale.counts(shrunk) if wanted else {}
        return {metric: counts[metric] for metric in wanted}

    def _shares(self, module: nn.Module, paths: Sequence[str], seconds: float) -> dict[str, float]:
        """The share of a run of the module that each span takes; the run is timed without hooks, which slow it down."""
        times = per_span_ms(module, self.scale.example, list(paths), seconds=seconds)
        whole = latency(module, self.scale.example, seconds=seconds / 2).median
        return {path: times[path] / whole for path in paths}

    def _share(
        self, module: nn.Module, shrunk: nn.Module, name: str, one: Proposal, shares: Mapping[str, float]
    ) -> float:
        """The share of a run that a proposal saves: that of the spans it takes, less that of the one it puts there."""
        went = sum(shares[path] for path in one.paths)
        if one.into is None:
            return went
        sizes = tuple(tuple(tuple(p.shape) for p in module.get_submodule(path).parameters()) for path in one.paths)
        key = (name, one.into.rpartition(".")[0], sizes)
        if key not in self._saved:
            came = self._shares(shrunk, [one.into], 0.2)[one.into]
            self._saved[key] = (1 - went) * came / (1 - came) / went  # in units of what went
        return went * (1 - self._saved[key])


def compatible(chosen: Sequence[Weighed], new: Weighed) -> bool:
    """Whether a proposal touches nothing that the chosen ones touch."""
    taken = {path for one in chosen for path in one.proposal.paths}
    return not any(
        path == other or path.startswith(other + ".") or other.startswith(path + ".")
        for path in new.proposal.paths
        for other in taken
    )


def order_of(path: str) -> tuple[tuple[int, str], ...]:
    """Sorts paths as a person counts: layers.2 before layers.10."""
    return tuple((int(word), "") if word.isdigit() else (-1, word) for word in path.split("."))


@dataclass(frozen=True)
class Track:
    """A span of the module as it is now, and the spans of the original that went into it."""

    path: str
    origins: tuple[str, ...]


def tracked(tracks: Sequence[Track], proposal: Proposal, module: nn.Module) -> list[Track]:
    """The tracks after a proposal was done; ``module`` is the module after it (a Net numbers its layers anew)."""
    gone = [track for track in tracks if track.path in proposal.paths]
    kept: list[Track] = []
    for track in tracks:
        if track.path == proposal.into:
            kept.append(Track(track.path, tuple(origin for one in gone for origin in one.origins)))
        elif track not in gone:
            kept.append(track)
    if not isinstance(module, Net):
        return kept
    renumbered: list[Track] = []
    seen: dict[str, int] = {}
    for track in kept:
        stage = track.path.rpartition(".")[0]
        renumbered.append(Track(f"{stage}.{seen.get(stage, 0)}", track.origins))
        seen[stage] = seen.get(stage, 0) + 1
    return renumbered
