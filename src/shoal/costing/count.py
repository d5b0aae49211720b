"""Count: what a module executes, found by running it once and looking at every operation.

Nothing is read from the classes of layers, so functional code, shared layers, early exits and layers that are never
reached cost exactly what they execute. The fused fast paths of torch's transformer layers are switched off while
counting: they hide what they multiply.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass

from shoal.core.example import arguments, failed, tensors, unmarked
from shoal.costing.flow import Flow
from shoal.costing.formulas import FORMULAS, name_of, work_of
from shoal.costing.table import Cost, LayerCost, Shape


def cost(module: nn.Module, example: Any) -> Cost:
    """Parameters, multiply-adds, bytes and depth of one run of a module; the module is left as it was.

    `example` is a tensor, a tuple of arguments or a dict of keyword arguments; it runs in eval mode without gradients.
    Raises BadModel when the module does not run on it.

        cost(nn.Linear(8, 4), torch.zeros(2, 8)).macs      # 64
    """
    args, kwargs = arguments(example)
    watch = _Watch(module)
    fast = torch.backends.mha.get_fastpath_enabled()
    with unmarked(module), torch.no_grad():
        watch.flow.start((args, kwargs))
        hooks = watch.hooks()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            with watch:
                out = module(*args, **kwargs)
        except Exception as error:
            raise failed(module, error) from error
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)
            for hook in hooks:
                hook.remove()
    parameters = list(module.parameters())
    depth = watch.flow.depth(out) if tensors(out) else watch.flow.deepest()
    return Cost(
        params=sum(tensor.numel() for tensor in parameters),
        trainable=sum(tensor.numel() for tensor in parameters if tensor.requires_grad),
        buffers=sum(tensor.numel() for tensor in module.buffers()),
        macs=sum(visit.macs for visit in watch.visits),
        bytes=stored_bytes(module),
        depth=depth or 0,
        layers=tuple(watch.layers()),
        uncounted=tuple(watch.uncounted),
    )


def stored_bytes(module: nn.Module) -> int:
    """Bytes of the tensors in a module's state dict: shared ones once, sparse and packed ones by their parts."""
    seen: dict[Any, int] = {}
    pending = tensors(list(module.state_dict().values()))
    while pending:
        tensor = pending.pop()
        if is_traceable_wrapper_subclass(tensor):
            pending += [getattr(tensor, name) for name in tensor.__tensor_flatten__()[0]]
        elif tensor.layout is torch.sparse_coo:
            pending += [tensor._indices(), tensor._values()]
        elif tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
            pending += [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
        elif tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
            pending += [tensor.ccol_indices(), tensor.row_indices(), tensor.values()]
        else:
            where = (tensor.untyped_storage()._cdata, tensor.storage_offset(), tensor.shape, tensor.stride())
            seen[where] = tensor.numel() * tensor.element_size()
    return sum(seen.values())


@dataclass
class _Visit:
    module: nn.Module
    path: str
    call: int
    input_shape: Shape | None
    output_shape: Shape | None = None
    macs: int = 0
    multiplies: bool = False


class _Watch(TorchDispatchMode):
    """Sees every operation, and knows in which call of which module it happens."""

    supports_higher_order_operators = True

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.paths = {part: path for path, part in module.named_modules()}
        self.flow, self.calls = Flow(), Counter[str]()
        self.visits: list[_Visit] = []
        self.stack: list[_Visit] = []
        self.uncounted: dict[str, None] = {}  # an ordered set

    def hooks(self) -> list[Any]:
        """Follow calls of modules, until the handles that are returned are removed."""
        handles: list[Any] = []
        for part in self.paths:
            handles.append(part.register_forward_pre_hook(self._enter, prepend=True, with_kwargs=True))
            handles.append(part.register_forward_hook(self._leave))
        return handles

    def _enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        path = self.paths[module]
        visit = _Visit(module, path, self.calls[path], _shape((args, kwargs)))
        self.calls[path] += 1
        self.visits.append(visit)
        self.stack.append(visit)

    def _leave(self, module: nn.Module, args: Any, out: Any) -> None:
        self.stack.pop().output_shape = _shape(out)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if isinstance(func, OpOverload) and name_of(func).removeprefix("aten.") not in FORMULAS:
            with self:  # inside inference mode, compound operations arrive whole
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        out = func(*args, **kwargs)
        work = work_of(func, args, out)
        self.flow.see(func, args, kwargs, out, work)
        if work is not None:
            visit = self.stack[-1]
            visit.multiplies = True
            visit.macs += work.macs or 0
            if work.macs is None:
                self.uncounted[f"{name_of(func)} at {visit.path or type(visit.module).__name__}"] = None
        return out

    def layers(self) -> list[LayerCost]:
        """The visits of leaves, and of what multiplies by itself."""
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
            )
            for visit in self.visits
            if visit.multiplies or not any(child in called for child in visit.module.children())
        ]


def _held(module: nn.Module, called: set[nn.Module]) -> int:
    own = sum(parameter.numel() for parameter in module.parameters(recurse=False))
    return own + sum(_held(child, called) for child in module.children() if child not in called)


def _shape(tree: Any) -> Shape | None:
    found = tensors(tree)
    return tuple(found[0].shape) if found else None
