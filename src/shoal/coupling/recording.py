"""Recording: one run of a module as a list of the operations that torch did, each with the module that it was in.

It records below autograd, where a few hundred operations are all there is: a linear layer, an einsum and an LSTM are
made of the same products there. Tensors are numbers; an operation in place gives its tensor a new one.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from shoal.core.example import arguments, failed, tensors, unmarked
from shoal.coupling.slicing import named_tensors


@dataclass(frozen=True)
class Value:
    """A tensor at one moment, by its number."""

    number: int


@dataclass(frozen=True)
class Operation:
    """``given``: its arguments by name, tensors as Values; ``made``: the numbers of what it gave; ``path``: of the
    module whose forward it was in, the innermost."""

    name: str
    given: dict[str, Any]
    made: tuple[int, ...]
    path: str
    pointwise: bool

    def values(self) -> list[int]:
        """The numbers of the tensors it was given, in order."""
        found: list[int] = []
        for argument in self.given.values():
            listed = argument if isinstance(argument, list | tuple) else [argument]
            found += [one.number for one in listed if isinstance(one, Value)]
        return found


@dataclass
class Recording:
    """``shapes`` by number; ``weights``: number -> name, of parameters and buffers; ``inputs`` and ``outputs``."""

    operations: list[Operation] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    weights: dict[int, str] = field(default_factory=dict)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.found = Recording()
        self.at: dict[int, int] = {}  # id of a live tensor -> its newest number
        self.keep: list[Tensor] = []  # tensors stay alive, so that an id is never given twice
        self.paths = [""]

    def number(self, tensor: Tensor) -> int:
        return self.at[id(tensor)] if id(tensor) in self.at else self.add(tensor)

    def add(self, tensor: Tensor) -> int:
        self.at[id(tensor)] = len(self.found.shapes)
        self.found.shapes.append(tuple(tensor.shape))
        self.keep.append(tensor)
        return self.at[id(tensor)]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = {a.name: a.default_value for a in func._schema.arguments if a.has_default_value()}
        named |= dict(zip([a.name for a in func._schema.arguments], args, strict=False)) | (kwargs or {})
        given = tree_map_only(Tensor, lambda tensor: Value(self.number(tensor)), named)
        out = func(*args, **(kwargs or {}))
        made = tuple(self.add(tensor) for tensor in tensors(out))
        name, pointwise = func.overloadpacket.__name__, torch.Tag.pointwise in func.tags
        self.found.operations.append(Operation(name, given, made, self.paths[-1], pointwise))
        return out


def recorded(module: nn.Module, example: Any) -> Recording:
    """Run the module once (eval, no gradients) and record it; it is left as it was. Raises BadModel if it fails."""
    recorder = _Recorder()
    recorder.found.weights = {recorder.add(tensor): name for name, tensor in _once(module)}
    args, kwargs = arguments(example)
    recorder.found.inputs = [recorder.add(tensor) for tensor in tensors((args, kwargs))]
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one operation for a whole layer hides what is in it
    onednn = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)  # nor a whole LSTM
    try:
        with ExitStack() as stack, unmarked(module), torch.no_grad():
            for path, part in module.named_modules():
                _watch(stack, recorder, path, part)
            with recorder:
                out = module(*args, **kwargs)
    except Exception as error:  # whatever a stranger's forward raises, the user must read it
        raise failed(module, error) from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        torch._C._set_mkldnn_enabled(onednn)
    recorder.found.outputs = [recorder.number(tensor) for tensor in tensors(out)]
    return recorder.found


def _once(module: nn.Module) -> list[tuple[str, Tensor]]:
    """Every parameter and buffer once, by its first name."""
    found: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in named_tensors(module).items():
        found.setdefault(id(tensor), (name, tensor))
    return list(found.values())


def _watch(stack: ExitStack, recorder: _Recorder, path: str, part: nn.Module) -> None:
    def before(*_: Any) -> None:
        recorder.paths.append(path)

    def after(*_: Any) -> None:
        recorder.paths.pop()

    for handle in (part.register_forward_pre_hook(before), part.register_forward_hook(after)):
        stack.callback(handle.remove)
