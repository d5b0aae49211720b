"""Trained: a training with all that its run folder holds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from shoal import __version__
from shoal.core.base import Task
from shoal.costing import Cost, cost
from shoal.data import Dataset
from shoal.kinds import TASKS
from shoal.net import Net
from shoal.recipe import Recipe
from shoal.training import Baseline, Run

MARGIN = 0.01  # a point of accuracy, or a hundredth of the target's variance: less does not matter


class Order(NamedTuple):
    """What was asked for."""

    source: str
    target: str | None = None
    task: str | None = None
    spec: str | None = None
    settings: Any = None
    epochs: float | None = None
    seed: int = 0
    within: float | None = None
    baselines: bool = True


@dataclass(frozen=True)
class Trained:
    """A training with what it is saved with: the Savable of a run folder."""

    order: Order
    run: Run
    dataset: Dataset
    others: tuple[Baseline, ...]

    @property
    def module(self) -> Net:
        """The net."""
        assert isinstance(self.run.net, Net)
        return self.run.net

    @property
    def recipe(self) -> Recipe:
        """The net's spec, and no edits."""
        return Recipe(self.module.spec)

    @property
    def example(self) -> Tensor:
        """One row."""
        return self.dataset.example(1)

    @cached_property
    def cost(self) -> Cost:
        """What one row costs."""
        return cost(self.module, self.example)

    @property
    def data(self) -> dict[str, Any]:
        """What must be known of the data to use the net: JSON."""
        scale = self.dataset.target_scale
        return {
            "source": self.order.source,
            "target": self.order.target,
            "name": self.dataset.name,
            "fingerprint": self.dataset.fingerprint,
            "signature": self.dataset.signature.to_json(),
            "encoder": self.dataset.encoder.to_json(),
            "classes": list(self.dataset.classes) if self.dataset.classes else None,
            "target_scale": [list(part) for part in scale] if scale else None,
        }

    @property
    def report(self) -> dict[str, Any]:
        """Everything but the weights: JSON."""
        judge: Task = TASKS.make(self.dataset.signature.task)
        sizes = {name: len(getattr(self.dataset, name)) for name in ("train", "valid", "test")}
        told = {"task": str(self.dataset.signature.task), "notes": list(self.dataset.notes), "sizes": sizes}
        return {
            "kind": "training",
            "spec": str(self.module.spec),
            "data": {"name": self.dataset.name, "fingerprint": self.dataset.fingerprint, **told},
            "metric": {"name": type(judge).metric, "unit": type(judge).unit},
            "test": self.run.test.to_json(),
            "valid": self.run.valid.to_json(),
            "params": self.cost.params,
            "macs": self.cost.macs,
            "depth": self.cost.depth,
            "bytes": self.cost.bytes,
            "baselines": [self._beside(other) for other in self.others],
            "settings": self.run.recipe.to_json(),
            "history": [dict(row) for row in self.run.history],
            "best": self.run.best,
            "stopped": self.run.stopped,
            "environment": {
                "seed": self.run.seed,
                "seconds": self.run.seconds,
                "threads": torch.get_num_threads(),
                "torch": torch.__version__,
                "shoal": __version__,
            },
        }

    def _beside(self, other: Baseline) -> dict[str, Any]:
        verdict = other.against(self.run.test.scores, MARGIN)
        told = {"word": verdict.word, "difference": verdict.difference.to_json(), "margin": MARGIN}
        return {"name": other.name, "quality": other.quality.to_json(), **told, "note": other.note}
