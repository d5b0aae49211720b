"""Training as a verb does it: data opened, net trained, scored beside simpler models, saved with its report."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from shoal import __version__
from shoal.artifact import save
from shoal.commands._folders import forget
from shoal.commands._talk import Talk, stdout_kept
from shoal.core.base import Task
from shoal.core.spec import Spec
from shoal.costing import Cost, cost
from shoal.data import Dataset, open_data
from shoal.kinds import TASKS
from shoal.net import Net
from shoal.recipe import Recipe
from shoal.report import page, tables
from shoal.training import Baseline, Run, Step, TrainingRecipe, baselines, default_recipe, train

MARGIN = 0.01  # a point of accuracy, or a hundredth of the target's variance: less does not matter
INTERRUPTED = 130
WORDS = {
    "better": "better than",
    "worse": "worse than",
    "equivalent": "as good as",
    "unclear": "neither clearly better nor worse than",
}


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


def trained(talk: Talk, order: Order, checkpoint: Path | None = None, resume: bool = False) -> Trained:
    """Open the data and train. What is wrong with spec, recipe or data is raised before anything is said."""
    spec = None if order.spec is None else Spec.parse(order.spec)
    given = None if order.settings is None else TrainingRecipe.from_json(order.settings)
    with stdout_kept():
        data = open_data(order.source, target=order.target, task=order.task)
    recipe = given
    if order.epochs is not None:
        recipe = replace(given or default_recipe(data), epochs=order.epochs)
    with talk.progress(f"training on {data.name}") as tick:

        def progress(step: Step) -> None:
            share = step.index / step.total if step.total else 0.0
            if order.within is not None:
                share = max(share, min(1.0, step.seconds / order.within))
            tick(share, f"epoch {step.epoch + 1}, loss {step.loss:.3f}")

        run = train(
            spec,
            data,
            recipe,
            seed=order.seed,
            within=order.within,
            progress=progress,
            checkpoint=checkpoint,
            resume=resume,
        )
    table = not data.signature.places and data.signature.vocabulary is None
    others = baselines(data, seed=order.seed) if table and order.baselines else []
    return Trained(order, run, data, tuple(others))


def tell(talk: Talk, found: Trained, report: dict[str, Any]) -> None:
    """What was found in the data, how good the net is beside the others, what it costs."""
    run, data = found.run, found.dataset
    talk.say(f"data {data.name}")
    for note in data.notes:
        talk.say(f"- {note}")
    talk.say(f"{len(run.history) - 1} epochs in {run.seconds:.0f} s; the weights of epoch {run.best} are kept\n")
    for table in tables(report):
        talk.show(table)
    for row in report["baselines"]:
        talk.say(f"the net is {WORDS.get(row['word'], row['word'])} {row['name']}")


def save_trained(talk: Talk, found: Trained, folder: Path, *, overwrite: bool) -> int:
    """Say what came of it, save the run folder and say where; the exit code, another where it was interrupted."""
    report = found.report
    tell(talk, found, report)
    with stdout_kept():
        save(found, folder, overwrite=overwrite, pages={"report.html": page(report)})
    talk.done({"folder": str(folder), "report": report})
    if found.run.stopped == "interrupt":
        talk.say(f"\ninterrupted: the best so far is in {folder}; --resume goes on")
        return INTERRUPTED
    forget(folder)
    talk.say(f"\nsaved   {folder} (open {folder / 'report.html'}; shoal show {folder})")
    return 0
