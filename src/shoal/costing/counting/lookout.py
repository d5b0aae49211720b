"""Lookout: sees every operation that torch executes, whoever asks for it, at the level where kernels are chosen."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch._ops import HigherOrderOperator, OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from shoal.costing.counting.formulas import counts_whole
from shoal.costing.counting.work import Call

COMPOUND = torch._C.DispatchKey.CompositeImplicitAutograd
CONTROL = {"cond", "while_loop", "scan", "associative_scan", "map_impl"}  # they only call functions that they are given


class Lookout(TorchDispatchMode, ABC):
    """Inside ``with self``, every operation is run and then shown to :meth:`look`."""

    supports_higher_order_operators = True

    @abstractmethod
    def look(self, call: Call) -> None:
        """An operation has just been run."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if any(kind.__torch_dispatch__ != Tensor.__torch_dispatch__ for kind in types):
            return NotImplemented  # a tensor around others says first what it does to those
        if isinstance(func, HigherOrderOperator) and func.name() in CONTROL:
            return self._control(func, args, kwargs)
        if _is_compound(func) and not counts_whole(Call(func, args, kwargs, None)):
            with self:
                return func._op_dk(COMPOUND, *args, **kwargs)
        out = func(*args, **kwargs)
        self.look(Call(func, args, kwargs, out))
        return out

    def note(self, result: Any) -> Any:
        """What to remember of the result of a function that a loop or a branch has called."""

    def bind(self, out: Any, notes: Any) -> None:
        """A loop or a branch has given this, made of results of which that was noted."""

    def _control(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run what only calls functions that it is given, such that what these do is seen."""
        notes: list[Any] = []

        def seen(value: Any) -> Any:
            if not callable(value) or isinstance(value, Tensor):
                return value

            def called(*own: Any) -> Any:
                with self:
                    result = value(*own)
                notes.append(self.note(result))
                return result

            return called

        out = func(*tree_map(seen, args), **tree_map(seen, kwargs))
        self.bind(out, notes)
        return out


@cache
def _is_compound(func: Any) -> bool:
    """Whether it consists of others: inside inference mode it arrives whole, elsewhere torch has taken it apart."""
    return isinstance(func, OpOverload) and torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), COMPOUND)


@contextmanager
def eager() -> Iterator[None]:
    """Inside, nothing runs as it was compiled or fused: what one kernel does for many operations, nobody sees."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    compiles = "torch._dynamo" in sys.modules  # it takes seconds to import, and nothing was compiled without it
    stance = torch.compiler.set_stance("force_eager") if compiles else nullcontext()
    try:
        with stance, torch.jit.optimized_execution(False):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
