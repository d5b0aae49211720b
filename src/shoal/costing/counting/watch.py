"""Watch: what one run of a module executes, and in which call of which of its submodules."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from threading import get_ident
from typing import Any

import torch
from torch import nn

from shoal.core.example import tensors
from shoal.costing.counting.elementwise import is_view
from shoal.costing.counting.flow import Flow
from shoal.costing.counting.formulas import work_of
from shoal.costing.counting.lookout import Lookout
from shoal.costing.counting.memory import Alive
from shoal.costing.counting.operations import record, shape_of
from shoal.costing.counting.scripts import hidden
from shoal.costing.counting.work import Call
from shoal.costing.table import LayerCost, Operation, Shape


@dataclass
class Visit:
    """One call of a module, as far as it has been seen."""

    module: nn.Module
    path: str
    call: int
    input_shape: Shape | None
    output_shape: Shape | None = None
    macs: int = 0
    flops: int = 0
    computes: bool = False


class Watch(Lookout):
    """Counts every operation of one run of a module; ``given`` is what it is run on."""

    def __init__(self, module: nn.Module, given: Any) -> None:
        super().__init__()
        self.module, self.thread = module, get_ident()
        self.paths = {part: path for path, part in module.named_modules()}
        self.flow, self.alive, self.numbers = Flow(), Alive(module, given), Counter[str]()
        self.visits: list[Visit] = []
        self.stack: list[Visit] = []
        self.operations: list[Operation] = []
        self.uncounted: dict[str, None] = {}  # an ordered set

    def run(self, args: Any, kwargs: Any) -> Any:
        """Run the module and count; what it gives."""
        self.flow.start((args, kwargs))
        for path, name in hidden(self.module):
            self._not_counted(name, path)
        with ExitStack() as stack:
            for part in self.paths:
                # scripted modules call theirs where no hook sees it; the module itself is entered below
                if part is not self.module and not isinstance(part, torch.jit.ScriptModule):
                    enter = part.register_forward_pre_hook(self._enter, prepend=True, with_kwargs=True)
                    stack.callback(enter.remove)
                    stack.callback(part.register_forward_hook(self._leave, always_call=True).remove)
            self._enter(self.module, args, kwargs)
            with self:
                out = self.module(*args, **kwargs)
            self._leave(self.module, args, out)
        return out

    def _enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        path = self.paths[module]
        if get_ident() != self.thread:
            self._not_counted("another thread", path)
            return
        visit = Visit(module, path, self.numbers[path], _shape((args, kwargs)))
        self.numbers[path] += 1
        self.visits.append(visit)
        self.stack.append(visit)

    def _leave(self, module: nn.Module, args: Any, out: Any) -> None:
        if get_ident() == self.thread:
            self.stack.pop().output_shape = _shape(out)

    def _not_counted(self, name: str, path: str) -> None:
        self.uncounted[f"{name} at {path or type(self.module).__name__}"] = None

    def look(self, call: Call) -> None:
        """Count one operation in the call of a module that is running."""
        work = work_of(call)
        self.flow.see(call, work)
        self.alive.see(call.made)
        if is_view(call):
            return
        visit = self.stack[-1]
        self.operations.append(record(call, work, visit))
        visit.macs += work.macs or 0
        visit.flops += work.flops
        visit.computes = visit.computes or work.flops > 0 or work.macs is None
        if work.macs is None:
            self._not_counted(call.name, visit.path)

    def note(self, result: Any) -> Any:
        """The depth of a result within a loop or a branch."""
        return self.flow.depth(result)

    def bind(self, out: Any, notes: Any) -> None:
        """What a loop or a branch gives is as deep as the deepest result within."""
        self.flow.start(out, max((depth for depth in notes if depth is not None), default=None))
        self.alive.see(tensors(out))

    def calls(self) -> list[LayerCost]:
        """The visits of leaves, and of what computes something by itself."""
        called = {visit.module for visit in self.visits}
        return [
            LayerCost(
                path=visit.path,
                call=visit.call,
                type=type(visit.module).__name__,
                input_shape=visit.input_shape,
                output_shape=visit.output_shape,
                params=_held(visit.module, called),
                macs=visit.macs,
                flops=visit.flops,
            )
            for visit in self.visits
            if visit.computes or not any(child in called for child in visit.module.children())
        ]


def _held(module: nn.Module, called: set[nn.Module]) -> int:
    own = sum(parameter.numel() for parameter in module.parameters(recurse=False))
    return own + sum(_held(child, called) for child in module.children() if child not in called)


def _shape(tree: Any) -> Shape | None:
    found = tensors(tree)
    return shape_of(found[0]) if found else None
