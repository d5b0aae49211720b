"""Weighing: what a proposal would cost in quality and bring in speed, measured on the module as it stands.

harm    how far the answers to calibration rows go when the edits are done and nothing is healed
saves   what the edits save, by metric
gain    what is saved of what is missing, a whole goal at most, added up over the goals

Harm is no growth of the loss: on rows that the module knows by heart that stays near zero with any one edit, and is
large with all of them. The square of a distance adds up better, has less noise, and asks for no targets.

What only puts other parts at its places is tried as an intervention is: runs begin there, in the middle, and skipping
all spans takes about half of the runs. Of an edited copy only the parts that differ are kept. A net that reads edges is
tried as a whole, with its graph before it; compressors are shown its rows without.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from shoal.anatomy import anatomy
from shoal.core.base import Compressor, Proposal, Task
from shoal.core.errors import BadModel, Refused
from shoal.core.inputs import Inputs, answer_to, count, pieces, taken
from shoal.core.scene import Batch, Scene
from shoal.core.spans import Span
from shoal.core.spec import wiring_of
from shoal.coupling import coupled
from shoal.data import Split
from shoal.edits.drop import Drop
from shoal.intervening import Changes, Judge, Told, Trial, losses, size_of_batch, split
from shoal.interventions.skip import Skip
from shoal.net import Net
from shoal.recipe import done
from shoal.shrinking.cells import Cells
from shoal.shrinking.saving import Saves, Saving
from shoal.shrinking.scale import Scale
from shoal.training.evaluate import predict
from shoal.training.graphs import read_of_graphs

log = logging.getLogger("shoal")
MEMORY = 256 << 20  # bytes that a run may keep
MANY = 48  # proposals: where there are more, each is weighed on fewer rows
FEWEST = 64  # rows
TINY = 1e-12
PIECE = 128  # rows that compressors are shown at a time


@dataclass(frozen=True)
class Weighed:
    """A proposal with its measured harm (see :class:`Apart`), gain (see above) and what it saves, by metric."""

    proposal: Proposal
    compressor: str
    harm: float
    gain: float
    saves: Mapping[str, float]

    @property
    def price(self) -> float:
        """Harm for each unit of gain; what helps costs nothing."""
        return max(self.harm, 0.0) / self.gain


class _Tried(NamedTuple):
    """A proposal and how it is tried: as changes of a run, or as a whole module that was made already."""

    name: str
    proposal: Proposal
    changes: Changes | None
    far: float  # its harm, where there are no changes


class Apart(Judge):
    """How far answers are from the module's own: |y - own|^2 a row, over the mean |own - mean of own|^2 of all rows. A
    mean of 0 is the same answers, 1 as bad as the same answer to everything."""

    def __init__(self, own: Tensor) -> None:
        super().__init__(None)
        spread = own.double() - own.double().mean(dim=0)
        self.spread = max(float(spread.flatten(1).square().sum(dim=1).mean()), TINY)

    def __call__(self, found: Tensor, own: Tensor, target: Tensor | None) -> Told:
        far = (found.double() - own.double()).flatten(1).square().sum(dim=1).cpu().numpy() / self.spread
        return Told(far, -far, far)


class Weigher:
    """Weighs proposals on calibration rows (x, y) of a task. ``nodes``: the same rows, where they are of a graph."""

    def __init__(
        self,
        rows: tuple[Inputs, Tensor],
        task: Task,
        scale: Scale,
        seed: int = 0,
        nodes: Split | None = None,
    ) -> None:
        self.x, self.y = rows
        self.nodes = nodes
        self.task, self.scale, self.seed = task, scale, seed
        self.refused: dict[str, str] = {}  # place -> why a proposal for it could not be done
        self._like: dict[tuple[Any, ...], float] = {}  # like proposals save alike; they are measured once

    def loss(self, module: nn.Module, rows: int | None = None) -> float:
        """The task's mean loss on the calibration rows, in eval mode."""
        outputs = self._outputs(module, rows)
        return float(losses(self.task, outputs, self.y[: len(outputs)]).mean())

    @cached_property
    def judge(self) -> Apart:
        """Judges by what the original answers."""
        return Apart(self._outputs(self.scale.original))

    def far(self, module: nn.Module, than: nn.Module, rows: int | None = None) -> float:
        """How far the answers of a module are from those of another; see :class:`Apart`."""
        return float(self.judge(self._outputs(module, rows), self._outputs(than, rows), None).loss.mean())

    def _outputs(self, module: nn.Module, rows: int | None = None) -> Tensor:
        module.eval()
        if self.nodes is not None:
            return predict(module, self.nodes)[0][:rows]
        with torch.inference_mode():
            return torch.cat([answer_to(module, part) for part in pieces(taken(self.x, slice(rows)), 256)]).float()

    def proposals(self, module: nn.Module, compressors: Mapping[str, Compressor]) -> list[tuple[str, Proposal]]:
        """What every compressor proposes for the module as it is."""
        scene = self._scene(module, count(self.x))
        return [(name, one) for name, compressor in compressors.items() for one in compressor.propose(scene)]

    def _scene(self, module: nn.Module, rows: int) -> Scene:
        found = anatomy(module, self.scale.example)
        batches = tuple(split((Batch(taken(self.x, slice(rows)), self.y[:rows]),), PIECE))
        return Scene(module, found, batches, self.task, self.seed)

    def work(self, proposals: int) -> float:
        """Multiply-adds of weighing so many, if each ran the whole module."""
        return proposals * self._rows_for(proposals) * self.scale.before["macs"]

    def weigh(
        self,
        module: nn.Module,
        proposals: Sequence[tuple[str, Proposal]],
        now: Mapping[str, float],
        over: Mapping[str, float],
    ) -> list[Weighed]:
        """Harm and gain of each, the cheapest first; what would gain nothing is left out.

        ``now`` is what the module measures, ``over`` what of it is still above the goals.
        """
        rows = self._rows_for(len(proposals))
        scene = self._scene(module, rows)
        spans = {span.path for span in scene.anatomy.spans}
        touched = sorted({path for _, one in proposals for path in one.paths if path in spans})
        saving = Saving(self.scale, module, touched, now, over, self._like)
        cells = Cells(scene)
        tried: list[tuple[_Tried, Saves]] = []
        for name, one in proposals:
            try:
                tried.append(self._tried(scene, cells, saving, name, one))
            except (Refused, BadModel) as why:
                self._refuse(name, one, str(why))
        saving.time()
        gaining: list[tuple[_Tried, Mapping[str, float]]] = []
        for each, told in tried:
            try:
                saved = told()
            except BadModel as why:
                self._refuse(each.name, each.proposal, str(why))
                continue
            if _gain(saved, over) > 0:
                gaining.append((each, saved))
        weighed: list[Weighed] = []
        for (each, saves), harm in zip(gaining, self._harms(scene, [each for each, _ in gaining]), strict=True):
            if not math.isfinite(harm):
                self._refuse(each.name, each.proposal, "the answers are not finite with it")
                continue
            weighed.append(Weighed(each.proposal, each.name, harm, _gain(saves, over), saves))
        return sorted(weighed, key=lambda w: (w.price, -w.gain, w.proposal.paths))

    def _refuse(self, name: str, one: Proposal, why: str) -> None:
        place = ", ".join(one.paths) or "the whole"
        log.info("%s, %s: left out: %s", name, place, why)
        self.refused[f"{name} at {place}"] = why

    def _rows_for(self, proposals: int) -> int:
        """The rows that so many proposals are weighed on."""
        return max(FEWEST, count(self.x) * MANY // max(proposals, MANY))

    def _tried(self, scene: Scene, cells: Cells, saving: Saving, name: str, one: Proposal) -> tuple[_Tried, Saves]:
        """How to try a proposal, and what it saves."""
        whole = self._whole(scene)
        spans = () if whole else _dropped(scene, one)
        if spans and not {"depth", "memory"} & saving.over.keys():
            return _Tried(name, one, Skip().changes(spans), 0.0), saving.of_drop(spans[0].path)
        shrunk = done(scene.module, one).eval()
        saves = saving.of(shrunk, name, one)  # before it is run in parts: what does not run is refused there
        changes = Skip().changes(spans) if spans else None if whole else cells.changes(shrunk)
        far = 0.0 if changes is not None else self.far(shrunk, scene.module, _rows(scene))
        return _Tried(name, one, changes, far), saves

    def _whole(self, scene: Scene) -> bool:
        """Whether the module's rows read each other, so that a run of some of them says nothing."""
        return self.nodes is not None and bool(read_of_graphs(scene.module))

    def _harms(self, scene: Scene, tried: Sequence[_Tried]) -> Iterator[float]:
        """How far the answers go with each."""
        changes = [one.changes for one in tried if one.changes is not None]
        told: list[Told] = []
        if changes:
            parts = tuple(split(scene.batches, size_of_batch(scene, MEMORY)))
            trial = Trial(Scene(scene.module, scene.anatomy, parts, scene.task, scene.seed), self.judge)
            _, told = trial.told(changes)
        found = iter(told)
        return (one.far if one.changes is None else float(next(found).loss.mean()) for one in tried)


def _rows(scene: Scene) -> int:
    return sum(batch.rows for batch in scene.batches)


def why_wide(module: nn.Module, makers: Mapping[str, Compressor], example: Any) -> Mapping[str, str]:
    """Why each width of a module of other people stays as it is, by weight, where narrower ones were asked for."""
    return coupled(module, example).left if "channels" in makers and not isinstance(module, Net) else {}


def _gain(saves: Mapping[str, float], over: Mapping[str, float]) -> float:
    return sum(min(saves[metric] / missing, 1.0) for metric, missing in over.items())


def _dropped(scene: Scene, one: Proposal) -> tuple[Span, ...]:
    """The span that a proposal drops and does nothing else, where a run that skips it is the same; else none.

    In a Net that is so where the wiring adds its layers to one stream: others may scale by their depth.
    """
    edit = one.edits[0] if len(one.edits) == 1 else None
    if not isinstance(edit, Drop) or edit.layers or one.weights:
        return ()
    if isinstance(scene.module, Net):
        stage = scene.module.spec.stages[int(one.paths[0].split(".")[1])]
        if wiring_of(stage.wiring, stage.dim, stage.depth).groups() is None:
            return ()
    visited = {span.at for span in scene.spans}
    return tuple(span for span in scene.anatomy.spans if span.path == edit.path and span.at in visited)
