"""Resuming: runs of any nn.Module that begin in the middle, with something changed there.

A module is cut into cells: spans, and the largest parts around them that hold none. One run keeps what every cell gave;
a later run of the same batch answers for the cells before the first change from what was kept, and computes from there:
on average half of a run. What stands between cells (sums, reshapes) is always computed. A changed run can be kept as
well (``branch``): what is changed beside begins from there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from shoal.core.cells import around, cells
from shoal.core.errors import BadModel
from shoal.core.example import arguments, evaluating, failed, tensors
from shoal.core.spans import Change, Forward, Left, Step, Visit

Seen: TypeAlias = Callable[[Visit, Any, Any], None]


@dataclass
class Tape:
    """One batch, what every visited cell gave on it, in order, and what the whole module gave.

    ``changes`` were in force then, and are in every run that is resumed from it.
    """

    example: Any
    changes: Mapping[Visit, Change] = field(default_factory=dict)
    output: Any = None
    visits: dict[Visit, int] = field(default_factory=dict)
    given: list[Any] = field(default_factory=list)
    versions: list[list[int]] = field(default_factory=list)
    marked: dict[int, list[Tensor]] = field(default_factory=dict)  # what a cell that writes to its input left of it

    def keep(self, visit: Visit, given: Any, marked: list[Tensor] | None) -> None:
        """What the next cell gave, and what it left of its input where it wrote to it."""
        if marked is not None:
            self.marked[len(self.given)] = marked
        self.visits[visit] = len(self.given)
        self.given.append(given)
        self.versions.append(_versions(given))

    def until(self, position: int, changes: Mapping[Visit, Change]) -> Tape:
        """What came before a position, for a run with these changes beside."""
        return Tape(
            self.example,
            {**self.changes, **changes},
            None,
            {visit: at for visit, at in self.visits.items() if at < position},
            self.given[:position],
            self.versions[:position],
            {at: left for at, left in self.marked.items() if at < position},
        )

    @property
    def nbytes(self) -> int:
        """Bytes of all that is kept."""
        return sum(tensor.nbytes for kept in (*self.given, *self.marked.values()) for tensor in tensors(kept))


class Resumable:
    """A module that can be run from the middle: ``with Resumable(module, paths) as runs``.

    ``paths`` are the modules that will be changed; none may lie within another. In the ``with`` the module is in eval
    mode and its cells' forward is replaced; afterwards, whatever happens, it is as it was. A module that stands in the
    tree under several paths goes by the first.
    """

    def __init__(self, module: nn.Module, paths: Collection[str]) -> None:
        self.module = module
        self.cells = cells(module, paths)
        self._written: set[int] = set()  # positions whose output is written to later on: they are kept as copies
        self._count: dict[str, int] = {}
        self._tape = Tape(None)  # what is before the first change is answered from it
        self._from = 0
        self._new: Tape | None = None  # what is being recorded
        self._changes: Mapping[Visit, Change] = {}
        self._seen: Seen | None = None
        self._forwards: dict[str, Forward] = {}

    def __enter__(self) -> Resumable:
        self._opened = self._open()
        self._opened.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._opened.__exit__(*error)

    @contextmanager
    def _open(self) -> Iterator[None]:
        fast = torch.backends.mha.get_fastpath_enabled()
        inner = any(isinstance(part, nn.TransformerEncoderLayer) for part in around(self.module, self.cells))
        torch.backends.mha.set_fastpath_enabled(fast and not inner)  # its fused kernel would go past the cells in it
        patched: list[tuple[nn.Module, Forward | None]] = []
        with evaluating(self.module), torch.no_grad():
            try:
                for path in self.cells:
                    part = self.module.get_submodule(path)
                    patched.append((part, part.__dict__.get("forward")))
                    self._forwards[path] = part.forward
                    part.__dict__["forward"] = self._replaced(path, part.forward)
                yield
            finally:
                for part, own in patched:
                    if own is None:
                        del part.__dict__["forward"]
                    else:
                        part.__dict__["forward"] = own
                torch.backends.mha.set_fastpath_enabled(fast)

    def _replaced(self, path: str, forward: Forward) -> Forward:
        def run(*args: Any, **kwargs: Any) -> Any:
            visit = Visit(path, self._count.get(path, 0))
            self._count[path] = visit.number + 1
            position = self._tape.visits.get(visit, -1)
            if 0 <= position < self._from:
                return self._replayed(position, args, kwargs)
            if self._new is None:
                return self._computed(visit, position, forward, args, kwargs)
            before = _versions((args, kwargs))
            given = None if self._seen is None else _copied((args, kwargs))  # before anything is written to it
            out = self._computed(visit, position, forward, args, kwargs)
            marked = _copied(tensors((args, kwargs))) if _versions((args, kwargs)) != before else None
            if self._seen is not None:
                self._seen(visit, given, _copied(out))
            kept = _copied(out) if len(self._new.given) in self._written else out
            self._new.keep(visit, kept, marked)
            return out

        return run

    def _computed(
        self, visit: Visit, position: int, forward: Forward, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        change = self._changes.get(visit)
        if change is None:
            return forward(*args, **kwargs)
        return change(Step(visit.path, args, kwargs, self._tape.given[position], self._forwards))

    def _replayed(self, position: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        for tensor, left in zip(tensors((args, kwargs)), self._tape.marked.get(position, ()), strict=False):
            tensor.copy_(left)
        kept = self._tape.given[position]
        return _copied(kept) if position in self._written else kept

    def record(self, example: Any, seen: Seen | None = None) -> Tape:
        """Run the module on a batch and keep what every cell gave. Raises BadModel if it does not run.

        ``seen(visit, (args, kwargs), output)`` is shown copies of what goes into each cell, and of what comes out.
        """
        self._seen = seen
        try:
            tape = self._recorded(Tape(example), {})
            if self._harmed(tape):  # found out on the first batch; from then on those are kept as copies
                tape = self._recorded(Tape(example), {})
        finally:
            self._seen = None
        return tape

    def resume(self, tape: Tape, changes: Mapping[Visit, Change]) -> Any:
        """What the module gives on the tape's batch with some visits changed; with none, what it gave.

        Raises BadModel where a visit is none of the tape's, or where the module does not run with the change.
        """
        out = self._run(tape, changes)
        if self._harmed(tape):
            self._mend(tape)
            out = self._run(tape, changes)
        return out

    def branch(self, tape: Tape, changes: Mapping[Visit, Change]) -> Tape:
        """The same, kept: a tape of the changed run. It shares with the first what comes before the changes.

        Raises BadModel as `resume` does, and where a change leaves the run in the middle.
        """
        new = self._recorded(tape, changes)
        if self._harmed(new):
            self._harmed(tape)
            self._mend(tape)
            new = self._recorded(tape, changes)
        return new

    def _recorded(self, tape: Tape, changes: Mapping[Visit, Change]) -> Tape:
        """A new tape: of a run that goes on from this one, which is empty where there was none before."""
        self._new = new = tape.until(_start(tape, changes), changes)
        try:
            new.output = self._run(tape, changes)
        finally:
            self._new = None
        if len(new.given) < len(tape.given):
            raise BadModel(f"{next(iter(changes)).path}: its change leaves the run; nothing comes behind it to be kept")
        return new

    def _harmed(self, tape: Tape) -> bool:
        """Whether something that it keeps was written to, which then is only kept as a copy."""
        kept = enumerate(zip(tape.given, tape.versions, strict=True))
        written = {position for position, (given, before) in kept if _versions(given) != before}
        self._written |= written
        return bool(written)

    def _mend(self, tape: Tape) -> None:
        """Run it again, in place: a change gave on what was kept, and a later cell wrote to it."""
        fresh = self.record(tape.example)
        if tape.changes:
            fresh = self.branch(fresh, tape.changes)
        tape.given, tape.versions, tape.marked, tape.output = fresh.given, fresh.versions, fresh.marked, fresh.output

    def _run(self, tape: Tape, changes: Mapping[Visit, Change]) -> Any:
        self._from = _start(tape, changes)
        self._tape, self._changes, self._count = tape, {**tape.changes, **changes}, {}
        args, kwargs = arguments(tape.example)
        try:
            return self.module(*args, **kwargs)
        except Left as left:
            return left.answer
        except Exception as error:  # whatever a stranger's forward raises, the user must read it
            raise failed(self.module, error) from error


def _start(tape: Tape, changes: Mapping[Visit, Change]) -> int:
    """The first position that is changed; behind the last where none is."""
    unknown = [visit for visit in changes if visit not in tape.visits]
    if unknown:
        raise BadModel(f"{unknown[0].path}, visit {unknown[0].number}: no run comes there; choose a span's visit")
    return min((tape.visits[visit] for visit in changes), default=len(tape.given))


def _copied(tree: Any) -> Any:
    return tree_map_only(Tensor, torch.clone, tree)


def _versions(tree: Any) -> list[int]:
    """How often each tensor was written to."""
    return [tensor._version for tensor in tensors(tree)]
