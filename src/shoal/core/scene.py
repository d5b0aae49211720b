"""Scene: a module, the batches it is looked at on, and what is asked of it; what measures and interventions work on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from shoal.core.errors import BadModel
from shoal.core.example import tensors
from shoal.core.resuming import Resumable, Tape
from shoal.core.spans import Anatomy, Span, Visit

if TYPE_CHECKING:
    from shoal.core.base import Task


class Batch(NamedTuple):
    """An example as the module takes it, and the targets of its rows where there are any.

    ``whole``: its rows read each other, as the nodes of a graph do; it is never cut.
    """

    example: Any
    target: Tensor | None = None
    whole: bool = False

    @property
    def rows(self) -> int:
        """How many examples it holds: the first size of its first tensor."""
        return int(tensors(self.example)[0].shape[0])


class Flow(NamedTuple):
    """What went into a span and what came out, its main tensors; (rows, ...)."""

    given: Tensor
    made: Tensor


@dataclass(frozen=True, eq=False)
class Scene:
    """A module in front of data.

    ``task`` is None where nothing is known but the inputs: then the module's own answers are what is asked for.
    """

    module: nn.Module
    anatomy: Anatomy
    batches: tuple[Batch, ...]
    task: Task | None = None
    seed: int = 0

    @cached_property
    def spans(self) -> tuple[Span, ...]:
        """The visited spans, in the order in which they run."""
        return self.anatomy.visits

    def runs(self) -> Resumable:
        """Runs of the module that may begin at any span."""
        return Resumable(self.module, {span.path for span in self.spans})

    def flows(self, runs: Resumable, batch: Batch) -> tuple[Tape, Mapping[Visit, Flow]]:
        """One run of a batch, with what flowed through every span."""
        found: dict[Visit, Flow] = {}
        wanted = {span.at for span in self.spans}

        def seen(visit: Visit, given: Any, out: Any) -> None:
            if visit in wanted:
                found[visit] = Flow(tensors(given)[0], tensors(out)[0])

        return runs.record(batch.example, seen), found

    def every_flow(self) -> Iterator[tuple[Batch, Tape, Mapping[Visit, Flow]]]:
        """Batch by batch: the run and what flowed; only one batch is held at a time."""
        with self.runs() as runs:
            for batch in self.batches:
                yield batch, *self.flows(runs, batch)

    def head(self, rows: int) -> Scene:
        """The same in front of the first rows alone; more where a batch is whole."""
        kept: list[Batch] = []
        left = rows
        for batch in self.batches:
            if left <= 0:
                break
            kept.append(batch if batch.rows <= left else cut(batch, left))
            left -= batch.rows
        return Scene(self.module, self.anatomy, tuple(kept), self.task, self.seed)


def cut(batch: Batch, rows: int, start: int = 0) -> Batch:
    """So many rows of a batch: of every tensor whose first size is the batch's. A whole one stays as it is."""
    if batch.whole:
        return batch
    every, piece = batch.rows, slice(start, start + rows)
    example = tree_map_only(Tensor, lambda t: t[piece] if t.dim() and t.shape[0] == every else t, batch.example)
    return Batch(example, None if batch.target is None else batch.target[piece])


def answer(output: Any) -> Tensor:
    """The tensor that a module answers with: the logits where it names some, else the first. Raises BadModel."""
    if isinstance(output, Mapping):
        for name in ("logits", "last_hidden_state"):
            if isinstance(output.get(name), Tensor):
                named: Tensor = output[name]
                return named
    found = [tensor for tensor in tensors(output) if tensor.is_floating_point()]
    if not found:
        raise BadModel(f"output of type {type(output).__name__}: there is no tensor of numbers in it")
    return found[0]


def rows_of(flow: Tensor, axis: int) -> Tensor:
    """(rows, channels) of a tensor whose channels are at ``axis``: every place is a row."""
    return flow.movedim(axis, -1).reshape(-1, flow.shape[axis])


def pooled(flow: Tensor, axis: int) -> Tensor:
    """(batch, channels): the mean over all places."""
    last = flow.movedim(axis, -1)
    return last if last.dim() == 2 else last.flatten(1, -2).mean(dim=1)
