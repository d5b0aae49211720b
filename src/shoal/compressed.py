"""Compression: what a compression found, with all its evidence; ``report`` is the same as JSON."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn

from shoal import __version__
from shoal.core.base import Task
from shoal.core.inputs import count
from shoal.core.part import Part
from shoal.costing import Cost, Latency, cost, per_span_ms
from shoal.data import Dataset
from shoal.evidence import Evidence, Floor, Keep, Verdict
from shoal.goals import Goal
from shoal.kinds import TASKS
from shoal.net import Net
from shoal.recipe import Recipe
from shoal.shrinking.planning import Taken
from shoal.shrinking.tracks import Track
from shoal.training.evaluate import Result
from shoal.training.graphs import standing
from shoal.training.train import Run


@dataclass(frozen=True, eq=False)
class Measured:
    """A contestant on the test part and on this machine; ``latency.ratio`` is against the original."""

    result: Result
    cost: Cost
    latency: Latency

    def to_json(self) -> dict[str, Any]:
        """Quality, milliseconds, of the original's where they were measured side by side, and counts."""
        time = {name: getattr(self.latency, name) for name in ("median", "p10", "p90", "n")}
        counts = {name: getattr(self.cost, name) for name in ("params", "macs", "bytes", "depth")}
        counts["memory"] = self.cost.activation_bytes.inference
        ratio = {} if self.latency.ratio is None else {"ratio": self.latency.ratio.to_json()}
        return {"quality": self.result.quality.to_json(), "latency_ms": time, **counts, **ratio}


@dataclass(frozen=True, eq=False)
class Control:
    """A control's result on the test part, and how the compressed network compares with it."""

    name: str
    result: Result
    verdict: Verdict  # of the compressed network against this control

    def to_json(self) -> dict[str, Any]:
        """Name, quality, difference and word."""
        return {
            "name": self.name,
            "quality": self.result.quality.to_json(),
            "difference": self.verdict.difference.to_json(),
            "word": self.verdict.word,
        }


@dataclass(frozen=True, eq=False)
class Seen:
    """A network that was seen on the way: ``stage`` is original, planned (nothing healed), short (healed for a while)
    or final; ``values`` by metric; ``foreseen`` the harms of its edits added up, ``harm`` the growth of the loss on
    calibration rows that came, before healing; ``quality`` on the valid part, where it was healed."""

    name: str
    stage: str
    values: Mapping[str, float]
    edits: int
    met: bool
    foreseen: float | None = None
    harm: float | None = None
    quality: Evidence | None = None

    def to_json(self) -> dict[str, Any]:
        """Its fields."""
        quality = self.quality.to_json() if self.quality else None
        return {**asdict(self), "values": dict(self.values), "quality": quality}


@dataclass(frozen=True, eq=False)
class Compression:
    """The compressed module (folded, in eval mode) and how it came to be.

    module, recipe, example     what is saved: the module, its base and edits, a batch of prepared inputs
    original                    the module that was given, untouched
    met                         for each goal whether the final measurement met it
    keep, floor                 pass, fail or inconclusive, on the test part; None: nothing was promised
    front                       every network that was seen on the way, with what it measures and how good it is
    agreement                   Spearman's correlation of the harm foreseen with what came: `harm` before healing,
                                `healed` of the harm before with the quality behind a short healing; None: too few
    notes                       what was said before training: what cannot be reached, or not be shown
    interrupted                 whether Ctrl-C ended it early
    spans, tracks               the spans of the original, and which of them went into each span of the module
    """

    module: nn.Module
    recipe: Recipe
    example: Any
    original: nn.Module
    dataset: Dataset
    task: Part
    goals: tuple[Goal, ...]
    limits: tuple[float, ...]
    values: tuple[float, ...]
    keep: Keep | None
    floor: Floor
    before: Measured
    after: Measured
    folded: Measured | None
    edits: tuple[Part, ...]
    steps: tuple[Taken, ...]
    spans: tuple[str, ...]
    tracks: tuple[Track, ...]
    controls: tuple[Control, ...]
    healing: Run
    left: Mapping[str, str]
    front: tuple[Seen, ...]
    agreement: Mapping[str, float | None]
    notes: tuple[str, ...]
    interrupted: bool
    environment: Mapping[str, Any]

    @property
    def met(self) -> tuple[bool, ...]:
        """For each goal, whether the final measurement met it."""
        return tuple(value <= limit for value, limit in zip(self.values, self.limits, strict=True))

    @property
    def goals_met(self) -> bool:
        """Whether every goal was met."""
        return all(self.met)

    @property
    def ratio(self) -> Evidence:
        """Latency of the compressed module as a multiple of the original's, measured side by side."""
        assert self.after.latency.ratio is not None
        return self.after.latency.ratio

    @property
    def data(self) -> dict[str, Any]:
        """What must be known of the data to use the module: JSON."""
        return {
            "name": self.dataset.name,
            "fingerprint": self.dataset.fingerprint,
            "signature": self.dataset.signature.to_json(),
            "encoder": self.dataset.encoder.to_json(),
            "classes": list(self.dataset.classes) if self.dataset.classes else None,
            "target_scale": [list(part) for part in self.dataset.target_scale] if self.dataset.target_scale else None,
        }

    def _standing(self, module: nn.Module) -> tuple[nn.Module, Any]:
        """The module and what it is run on: a net that reads edges with all of its graph."""
        if self.dataset.train.graph is None:
            return module, self.example
        return standing(module, self.dataset.train, count(self.example))

    @cached_property
    def report(self) -> dict[str, Any]:
        """Everything but the weights, as JSON."""
        judge: Task = TASKS.make(self.task)
        sizes = {name: len(getattr(self.dataset, name)) for name in ("train", "valid", "test")}
        goals = zip(self.goals, self.limits, self.values, self.met, strict=True)
        rows = [dict(row) for row in self.healing.history]
        return {
            "kind": "compression",
            "model": type(self.original).__name__,
            "spec_before": str(self.original.spec) if isinstance(self.original, Net) else None,
            "spec_after": str(self.module.spec) if isinstance(self.module, Net) else None,
            "data": {
                "name": self.dataset.name,
                "fingerprint": self.dataset.fingerprint,
                "task": str(self.task),
                "notes": list(self.dataset.notes),
                "sizes": sizes,
            },
            "metric": {"name": type(judge).metric, "unit": type(judge).unit},
            "goals": [
                {"text": str(goal), "metric": goal.metric, "bound": limit, "measured": value, "met": met}
                for goal, limit, value, met in goals
            ],
            "keep": "none" if self.keep is None else str(self.keep),
            "floor": {"word": self.floor.word, "difference": self.floor.difference.to_json()},
            "before": self.before.to_json(),
            "folded": self.folded.to_json() if self.folded else None,
            "after": self.after.to_json(),
            "ratio": self.ratio.to_json(),
            "layers": layer_rows(self._standing(self.original), self._standing(self.module), self.spans, self.tracks),
            "edits": [_step_row(step) for step in self.steps],
            "controls": [control.to_json() for control in self.controls],
            "healing": [{key: row.get(key) for key in ("epoch", "loss", "quality", "seconds")} for row in rows],
            "front": [one.to_json() for one in self.front],
            "agreement": dict(self.agreement),
            "remarks": list(self.notes),
            "interrupted": self.interrupted,
            "refused": [{"place": place, "why": why} for place, why in self.left.items()],
            "environment": {
                **self.environment,
                "threads": self.after.latency.threads,
                "torch": torch.__version__,
                "shoal": __version__,
                "processor": platform.processor() or platform.machine(),
            },
        }


def _step_row(step: Taken) -> dict[str, Any]:
    proposal = step.weighed.proposal
    verb = f"{step.weighed.compressor} {', '.join(proposal.paths) or 'the whole'}"
    gain = {"gain_ms" if name == "latency" else f"gain_{name}": saved for name, saved in step.weighed.saves.items()}
    return {"text": verb, "harm": step.weighed.harm, **gain, "round": step.round}


def layer_rows(
    original: tuple[nn.Module, Any], final: tuple[nn.Module, Any], spans: Sequence[str], tracks: Sequence[Track]
) -> list[dict[str, Any]]:
    """A row for each span of the original: its cost, what became of it, and the cost of what stands there now. Of both
    the module and what it is run on."""
    home = {origin: track for track in tracks for origin in track.origins}
    before, after = _span_costs(*original, spans), _span_costs(*final, [t.path for t in tracks])
    rows: list[dict[str, Any]] = []
    for path in spans:
        track = home.get(path)
        first = track is not None and track.origins[0] == path
        fate = "dropped" if track is None else "kept" if len(track.origins) == 1 else f"merged into {track.path}"
        row = {"path": path, "type": type(original[0].get_submodule(path)).__name__, **before[path], "fate": fate}
        now = {"path": track.path, **after[track.path]} if track is not None and first else None
        rows.append({**row, "after": now})
    return rows


def _span_costs(module: nn.Module, example: Any, paths: Sequence[str]) -> dict[str, dict[str, Any]]:
    layers = cost(module, example, training=False).calls
    times = per_span_ms(module, example, list(paths), seconds=1.0) if paths else {}
    return {
        path: {
            "params": sum(p.numel() for p in module.get_submodule(path).parameters()),
            "macs": sum(layer.macs for layer in layers if layer.path == path or layer.path.startswith(path + ".")),
            "ms": times[path],
        }
        for path in paths
    }
