"""Flow: on how many multiplications by weights a tensor's value rests, along the longest way from the input.

A tensor has a depth when it depends on the input: 0 for the input itself. An operation gives its outputs the largest
depth among its inputs, and one more when it multiplies by weights: that is, when one factor depends on the input and
another does not. So branches side by side count once, scores of queries against keys count nothing, and a
recurrent net counts every step.

Depths are kept by storage: views and writes in place need no care. The price: two parts of one storage share the
larger depth. Storages are held weakly, so activations are freed as in any other run.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.multiprocessing.reductions import StorageWeakRef

from shoal.costing.counting.storage import parts_of, plain
from shoal.costing.counting.work import Call, Work

Key = tuple[str, int]


class Flow:
    """The depth of every tensor seen so far."""

    def __init__(self) -> None:
        self._depths: dict[Key, int] = {}
        self._kept: dict[Key, Any] = {}  # what keeps a key from being used again for something else

    def start(self, tree: Any, depth: int | None = 0) -> None:
        """Say how deep tensors are: the input, and what came about unseen; None: they rest on no input."""
        if depth is not None:
            for tensor in plain(tree):
                self._write(tensor, depth)

    def depth(self, tree: Any) -> int | None:
        """The largest depth in a nest of tensors; None when none of them depends on the input."""
        return self._largest(plain(tree))

    def deepest(self) -> int:
        """The largest depth of all."""
        return max(self._depths.values(), default=0)

    def see(self, call: Call, work: Work) -> None:
        """Follow one operation that has just been run."""
        depth = self._largest(parts_of(call.given))
        if depth is None or makes_new(call.name):
            return
        if work.factors and self._by_weights(work):
            depth += work.steps
        for tensor in parts_of([*call.made, *written(call)]):
            self._write(tensor, depth)

    def _largest(self, tensors: list[Tensor]) -> int | None:
        found = [self._depths.get(self._key(tensor)) for tensor in tensors]
        return max((depth for depth in found if depth is not None), default=None)

    def _by_weights(self, work: Work) -> bool:
        factors = [factor for factor in work.factors if isinstance(factor, Tensor | torch.ScriptObject)]
        moved = [isinstance(factor, Tensor) and self.depth(factor) is not None for factor in factors]
        return any(moved) and not all(moved)  # packed weights are script objects: always weights

    def _write(self, tensor: Tensor, depth: int) -> None:
        key = self._key(tensor)
        if key not in self._kept:
            self._kept[key] = StorageWeakRef(tensor.untyped_storage()) if key[0] == "storage" else tensor
        self._depths[key] = max(depth, self._depths.get(key, 0))

    @staticmethod
    def _key(tensor: Tensor) -> Key:
        if tensor.layout is torch.strided:
            return "storage", tensor.untyped_storage()._cdata
        return "tensor", id(tensor)  # in a layout of some library's own, which has no storage


def makes_new(name: str) -> bool:
    """Whether an operation takes only the shape of its input: ``zeros_like``, ``new_empty``."""
    return name.endswith("_like") or ".new_" in name


def written(call: Call) -> list[Tensor]:
    """The arguments that an operation writes to, by its schema."""
    places, names = _targets(call.func) if isinstance(call.func, OpOverload) else ((), ())
    values = [call.args[place] for place in places if place < len(call.args)]
    values += [call.kwargs[name] for name in names if name in call.kwargs]
    return [
        tensor for value in values for tensor in (value if isinstance(value, list) else [value]) if tensor is not None
    ]


@cache
def _targets(func: OpOverload) -> tuple[tuple[int, ...], tuple[str, ...]]:
    declared = enumerate(func._schema.arguments)
    found = [(place, each.name) for place, each in declared if each.alias_info and each.alias_info.is_write]
    return tuple(place for place, _ in found), tuple(name for _, name in found)
