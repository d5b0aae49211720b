"""Resuming: runs of any nn.Module that begin in the middle, with something changed there.

A module is cut into cells: spans, and the largest parts around them that hold none. One run keeps what every cell gave;
a later run of the same batch answers for the cells before the first change from what was kept, and computes from there:
on average half of a run. What stands between cells (sums, reshapes) is always computed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from shoal.core.errors import BadModel
from shoal.core.example import arguments, evaluating, failed, tensors
from shoal.core.spans import Change, Forward, Left, Step, Visit

Seen: TypeAlias = Callable[[Visit, Any, Any], None]


@dataclass
class Tape:
    """One batch, what every visited cell gave on it, in order, and what the whole module gave."""

    example: Any
    output: Any = None
    visits: dict[Visit, int] = field(default_factory=dict)
    given: list[Any] = field(default_factory=list)
    versions: list[list[int]] = field(default_factory=list)
    marked: dict[int, list[Tensor]] = field(default_factory=dict)  # what a cell that writes to its input left of it

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
        self._tape = Tape(None)
        self._changes: Mapping[Visit, Change] | None = None
        self._from = 0
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
        inner = any(isinstance(part, nn.TransformerEncoderLayer) for part in _around(self.module, self.cells))
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
            if self._changes is None:
                before = _versions((args, kwargs))
                given = None if self._seen is None else _copied((args, kwargs))  # before anything is written to it
                out = forward(*args, **kwargs)
                if _versions((args, kwargs)) != before:
                    self._tape.marked[len(self._tape.given)] = _copied(tensors((args, kwargs)))
                if self._seen is not None:
                    self._seen(visit, given, _copied(out))
                return self._keep(visit, out)
            position = self._tape.visits[visit]
            if position < self._from:
                for tensor, left in zip(tensors((args, kwargs)), self._tape.marked.get(position, ()), strict=False):
                    tensor.copy_(left)
                kept = self._tape.given[position]
                return _copied(kept) if position in self._written else kept
            change = self._changes.get(visit)
            if change is None:
                return forward(*args, **kwargs)
            return change(Step(path, args, kwargs, self._tape.given[position], self._forwards))

        return run

    def _keep(self, visit: Visit, out: Any) -> Any:
        position = len(self._tape.given)
        self._tape.visits[visit] = position
        kept = _copied(out) if position in self._written else out
        self._tape.given.append(kept)
        self._tape.versions.append(_versions(kept))
        return out

    def record(self, example: Any, seen: Seen | None = None) -> Tape:
        """Run the module on a batch and keep what every cell gave. Raises BadModel if it does not run.

        ``seen(visit, (args, kwargs), output)`` is shown copies of what goes into each cell, and of what comes out.
        """
        self._seen = seen
        try:
            tape = self._record(example)
        finally:
            self._seen = None
        kept = enumerate(zip(tape.given, tape.versions, strict=True))
        written = {position for position, (given, before) in kept if _versions(given) != before}
        if written:  # found out on the first batch; from then on those are kept as copies
            self._written |= written
            tape = self._record(example)
        return tape

    def _record(self, example: Any) -> Tape:
        self._tape, self._changes = Tape(example), None
        self._tape.output = self._run(example)
        return self._tape

    def resume(self, tape: Tape, changes: Mapping[Visit, Change]) -> Any:
        """What the module gives on the tape's batch with some visits changed; with none, what it gave.

        Raises BadModel where a visit is none of the tape's, or where the module does not run with the change.
        """
        unknown = [visit for visit in changes if visit not in tape.visits]
        if unknown:
            raise BadModel(f"{unknown[0].path}, visit {unknown[0].number}: no run comes there; choose a span's visit")
        self._from = min((tape.visits[visit] for visit in changes), default=len(tape.given))
        self._tape, self._changes = tape, changes
        return self._run(tape.example)

    def _run(self, example: Any) -> Any:
        self._count = {}
        args, kwargs = arguments(example)
        try:
            return self.module(*args, **kwargs)
        except Left as left:
            return left.answer
        except Exception as error:  # whatever a stranger's forward raises, the user must read it
            raise failed(self.module, error) from error


def cells(module: nn.Module, paths: Collection[str]) -> tuple[str, ...]:
    """The paths, and the largest modules around them that hold none; in the order of the tree."""
    found: list[str] = []
    seen: set[int] = set()

    def go(part: nn.Module, path: str) -> None:
        for name, child in part.named_children():
            inner = f"{path}.{name}" if path else name
            if id(child) in seen:
                continue
            seen.add(id(child))
            if inner not in paths and (_holds(inner, paths) or not _called(child)):
                go(child, inner)
            else:
                found.append(inner)

    go(module, "")
    missing = [path for path in paths if path not in found]
    if missing:
        raise BadModel(f"{missing[0]}: lies within another span, or the module has no such part; leave one out")
    return tuple(found)


def _holds(path: str, paths: Collection[str]) -> bool:
    return any(other.startswith(f"{path}.") for other in paths)


def _called(part: nn.Module) -> bool:
    """Whether it is called itself, and not only what it holds."""
    return not isinstance(part, nn.ModuleList | nn.ModuleDict | nn.ParameterList | nn.ParameterDict)


def _around(module: nn.Module, inner: Collection[str]) -> Iterator[nn.Module]:
    """The modules that hold cells."""
    for path, part in module.named_modules():
        if path and _holds(path, inner):
            yield part


def _copied(tree: Any) -> Any:
    return tree_map_only(Tensor, torch.clone, tree)


def _versions(tree: Any) -> list[int]:
    """How often each tensor was written to."""
    return [tensor._version for tensor in tensors(tree)]
