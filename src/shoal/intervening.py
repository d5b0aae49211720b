"""Intervening: what every intervention does at every place, example by example.

Batch by batch, the module is run once and then again from each place on, with the change there. What is kept are three
numbers an example: its loss, its score, and how far its answer went. Memory is that of one batch.

Longer than the house's 250 lines: what is placed, run, judged and stopped early is one loop, read together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import vmap
from torch.nn import functional as F

from shoal.core.base import Intervention, Task
from shoal.core.resuming import Resumable, Tape
from shoal.core.scene import Batch, Flow, Scene, answer, cut
from shoal.core.spans import Change, Span, Visit
from shoal.evidence import Evidence, Floor, Keep, floor, mean
from shoal.tasks.fidelity import Fidelity

CACHED = 12 << 20  # bytes that are kept of a batch: beyond the caches, rows get dearer
SHARED = 32  # rows that threads can share well, even beyond the caches
LARGEST = 512  # rows of a batch
LEARNED = 256  # rows on which interventions learn
LOOK = 128  # rows after which it is first asked whether more of them are of use; then after twice as many, and so on
SURE = 0.999  # one-sided, of a loss that is clear before all rows are seen

Array = NDArray[np.float64]
Changes = Mapping[Visit, Change]


@dataclass(frozen=True)
class Told:
    """What some answers are worth, a number an example: loss, score, and how far they are from the module's own.

    The distance is KL(own | other) in nats where classes are told apart (the mean over places), else the square of the
    difference over that of the own answer.
    """

    loss: Array
    score: Array
    distance: Array

    def first(self, rows: int) -> Told:
        """Of the first rows alone."""
        return Told(self.loss[:rows], self.score[:rows], self.distance[:rows])


Lost: TypeAlias = Callable[[Told, Told], bool]  # whether it is clear, from the rows so far, that more are of no use


@dataclass(frozen=True)
class Effect:
    """What an intervention did at a place: growth of the loss, change of the quality, distance of the answers."""

    intervention: str
    spans: tuple[Span, ...]
    loss: Evidence
    quality: Evidence
    distance: Evidence


class Judge:
    """Judges answers by the task, or by the module's own answers where there is none."""

    def __init__(self, task: Task | None) -> None:
        self.task = task

    def __call__(self, found: Tensor, own: Tensor, target: Tensor | None) -> Told:
        """Answers to a batch: `own` are those of the module as it is."""
        task = self._task(own)
        wanted = own if self.task is None or target is None else target
        return Told(_rows(losses(task, found, wanted)), _rows(task.scores(found, wanted)), self._distance(found, own))

    def unit(self) -> str:
        """What a change of the quality is told in: points of a share."""
        return "pt" if self.task is None or self.task.unit == "%" else ""

    def _task(self, own: Tensor) -> Task:
        return Fidelity(outputs=own.shape[-1]) if self.task is None else self.task

    def _distance(self, found: Tensor, own: Tensor) -> Array:
        if self.task is not None and self.task.unit == "%":
            a, b = (F.log_softmax(each.double(), dim=-1) for each in (own, found))
            apart = (a.exp() * (a - b)).sum(dim=-1)
            return _rows(apart.flatten(1).mean(dim=1) if apart.dim() > 1 else apart)
        a, b = (each.double().flatten(1) for each in (own, found))
        return _rows((a - b).square().sum(dim=1) / a.square().sum(dim=1).clamp_min(1e-12))


def losses(task: Task, output: Tensor, target: Tensor) -> Tensor:
    """(rows,) the loss of each example by itself."""
    found: Tensor = vmap(lambda y, t: task.loss(y.unsqueeze(0), t.unsqueeze(0)))(output.double(), _wide(target))
    return found


def _wide(target: Tensor) -> Tensor:
    return target.double() if target.is_floating_point() else target


def _rows(values: Tensor) -> Array:
    found: Array = values.detach().cpu().double().numpy()
    return found


class Trial:
    """Runs of a scene with changes, judged by its task unless somebody else judges."""

    def __init__(self, scene: Scene, judge: Judge | None = None) -> None:
        self.scene, self.judge = scene, judge or Judge(scene.task)
        self._runs: Resumable | None = None
        self._held: dict[int, tuple[Tape, Tensor]] = {}  # and what the module as it is answers there
        self._free = 0
        self._changed: Changes = {}

    @contextmanager
    def holding(self, memory: int) -> Iterator[None]:
        """Inside, the module is run as it is once for all that is tried, as far as `memory` bytes hold what it gave."""
        with self.scene.runs() as runs:
            self._runs, self._free = runs, memory
            try:
                yield
            finally:
                self._runs, self._held, self._changed = None, {}, {}

    def go_on(self, changes: Changes) -> Told:
        """Inside ``holding``: from now on these changes stay, and others are tried beside them. What it then answers.

        Each costs the rest of a run; what is tried afterwards, the rest behind its own place alone.
        """
        assert self._runs is not None, "go_on is for the inside of holding"
        self._changed = {**self._changed, **changes}
        for number, (tape, own) in list(self._held.items()):
            self._held[number] = self._runs.branch(tape, changes), own
        found = []
        for number, batch in enumerate(self.scene.batches):
            tape, own = self._at(self._runs, number, batch)
            found.append(self.judge(answer(tape.output), own, batch.target))
        return _joined(found)

    def told(self, wanted: Sequence[Changes], lost: Lost | None = None) -> tuple[Told, list[Told]]:
        """What the module answers as it is, and with each of the changes, over all rows.

        A change that is ``lost`` on the way is told of the rows till then.
        """
        base: list[Told] = []
        found: list[list[Told]] = [[] for _ in wanted]
        left = list(range(len(wanted)))
        looks = _Looks()
        with self.scene.runs() if self._runs is None else nullcontext(self._runs) as runs:
            for number, batch in enumerate(self.scene.batches):
                tape, own = self._at(runs, number, batch)
                base.append(self.judge(own, own, batch.target))
                for index in left:
                    found[index].append(self.judge(answer(runs.resume(tape, wanted[index])), own, batch.target))
                if lost is not None and looks.due(batch.rows):
                    so_far = _joined(base)
                    left = [index for index in left if not lost(so_far, _joined(found[index]))]
        return _joined(base), [_joined(kept) for kept in found]

    def nested(self, steps: Sequence[Changes], lost: Lost | None = None) -> tuple[Told, list[Told]]:
        """What the module answers as it is, and behind each step; the changes of those before stay.

        A step costs the rest of a run behind its own place. Those at the end that are ``lost`` on the way are told of
        the rows till then.
        """
        base: list[Told] = []
        found: list[list[Told]] = [[] for _ in steps]
        left = len(steps)
        looks = _Looks()
        with self.scene.runs() as runs:
            for batch in self.scene.batches:
                tape = runs.record(batch.example)
                own = answer(tape.output)
                base.append(self.judge(own, own, batch.target))
                for kept, changes in zip(found[:left], steps, strict=False):
                    tape = runs.branch(tape, changes)
                    kept.append(self.judge(answer(tape.output), own, batch.target))
                if lost is not None and looks.due(batch.rows):
                    so_far = _joined(base)
                    while left and lost(so_far, _joined(found[left - 1])):
                        left -= 1
        return _joined(base), [_joined(kept) for kept in found]

    def _at(self, runs: Resumable, number: int, batch: Batch) -> tuple[Tape, Tensor]:
        """The tape of a batch, with what has changed for good, and the module's own answers."""
        if number in self._held:
            return self._held[number]
        tape = runs.record(batch.example)
        own = answer(tape.output)
        if self._changed:
            tape = runs.branch(tape, self._changed)
        if self._runs is not None and tape.nbytes + own.nbytes <= self._free:
            self._held[number] = tape, own
            self._free -= tape.nbytes + own.nbytes
        return tape, own


class _Looks:
    """When it is looked whether more rows are of use: after so many, twice as many, and so on."""

    def __init__(self) -> None:
        self._rows, self._next = 0, LOOK

    def due(self, rows: int) -> bool:
        """After so many rows more."""
        self._rows += rows
        if self._rows < self._next:
            return False
        self._next = 2 * self._rows
        return True


def kept(keep: Keep, before: Told, after: Told, level: float = 0.95) -> Floor:
    """The floor under the quality: by scores where points are kept, by losses where a share of them is.

    Where ``after`` is told of the first rows alone, so is ``before``.
    """
    before = before.first(len(after.loss))
    if keep.points is not None:
        return floor(before.score, after.score, keep, level)
    return floor(-before.loss, -after.loss, keep, level)


def out_of_reach(keep: Keep) -> Lost:
    """Whether the floor is left behind for certain; looked at several times, so with more certainty than once."""
    return lambda before, after: kept(keep, before, after, SURE).word == "fail"


def _joined(parts: Sequence[Told]) -> Told:
    return Told(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("loss", "score", "distance")))


def placed(
    scene: Scene, interventions: Mapping[str, Intervention], memory: int
) -> list[tuple[str, tuple[Span, ...], Changes]]:
    """Every intervention at every place where it makes sense; those that learn have learned on this scene's rows."""
    teach(scene, interventions, memory)
    return [
        (name, spans, one.changes(spans)) for name, one in interventions.items() for spans in one.places(scene.anatomy)
    ]


def teach(scene: Scene, interventions: Mapping[str, Intervention], memory: int) -> None:
    """Let those that learn learn, on the scene's first rows: as many as `memory` holds what flows on, and one batch."""
    pupils = [one for one in interventions.values() if one.learns]
    if not pupils:
        return
    answers: list[Tensor] = []
    flows: list[Mapping[Visit, Flow]] = []
    rows = held = 0
    with scene.runs() as runs:
        for batch in scene.head(LEARNED).batches:
            tape, found = scene.flows(runs, batch)
            answers.append(answer(tape.output))
            flows.append(found)
            held += sum(flow.nbytes for pair in found.values() for flow in pair)
            rows += batch.rows
            if held + held // rows * batch.rows > memory:
                break
    wanted = torch.cat(answers)
    for one in pupils:
        for spans in one.places(scene.anatomy):
            given = torch.cat([found[spans[0].at].given for found in flows])
            made = torch.cat([found[spans[-1].at].made for found in flows])
            one.learn(spans, given, made, wanted)


def effect(name: str, spans: tuple[Span, ...], base: Told, found: Told, unit: str) -> Effect:
    """The difference that an intervention made, with intervals over examples."""
    return Effect(
        name,
        spans,
        mean(found.loss - base.loss),
        mean(found.score - base.score, unit=unit),
        mean(found.distance),
    )


def size_of_batch(scene: Scene, memory: int) -> int:
    """How many rows a batch may have so that what a run keeps fits into `memory` bytes; at least one.

    One row and two are run, to see what a row adds to what is kept.
    """
    with scene.runs() as runs:
        one, two = (runs.record(scene.head(rows).batches[0].example).nbytes for rows in (1, 2))
    each = max(two - one, 1)
    fits, cached = ((most - (one - each)) // each for most in (memory, min(memory, CACHED)))
    return max(1, min(max(cached, SHARED), fits, LARGEST))


def split(batches: Sequence[Batch], rows: int) -> Iterator[Batch]:
    """The batches in pieces of so many rows; whole ones as they are."""
    for batch in batches:
        for start in range(0, 1 if batch.whole else batch.rows, rows):
            yield cut(batch, rows, start)
