"""Flow: on how many multiplications by weights a tensor's value rests, along the longest way from the input.

A tensor has a depth when it depends on the input: 0 for the input itself. An operation gives its outputs the largest
depth among its inputs, and one more when it multiplies by weights: that is, when one factor depends on the input and
another does not. So branches side by side count once, scores of queries against keys count nothing, and a
recurrent net counts every step.

Depths are kept by storage: views and writes in place need no care. The price: two parts of one storage share the
larger depth. Storages are held weakly, so activations are freed as in any other run.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from shoal.core.example import tensors
from shoal.costing.formulas import Work, name_of

Key = tuple[str, int]


class Flow:
    """The depth of every tensor seen so far."""

    def __init__(self) -> None:
        self._depths: dict[Key, int] = {}
        self._kept: dict[Key, Any] = {}  # what keeps a key from being used again for something else

    def start(self, inputs: Any) -> None:
        """Say what the input is."""
        for tensor in tensors(inputs):
            self._write(tensor, 0)

    def depth(self, tree: Any) -> int | None:
        """The largest depth in a nest of tensors; None when none of them depends on the input."""
        found = [self._depths.get(self._key(tensor)) for tensor in tensors(tree)]
        return max((depth for depth in found if depth is not None), default=None)

    def deepest(self) -> int:
        """The largest depth of all."""
        return max(self._depths.values(), default=0)

    def see(self, func: Any, args: Any, kwargs: Any, out: Any, work: Work | None) -> None:
        """Follow one operation that has just been run."""
        depth = self.depth((args, kwargs))
        if depth is None or makes_new(name_of(func)):
            return
        if work is not None and self._by_weights(work):
            depth += work.steps
        for tensor in tensors((out, written(func, args, kwargs))):
            self._write(tensor, depth)

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
        try:
            return "storage", tensor.untyped_storage()._cdata
        except NotImplementedError:  # sparse and other tensors that have no storage of their own
            return "tensor", id(tensor)


def makes_new(name: str) -> bool:
    """Whether an operation takes only the shape of its input: ``zeros_like``, ``new_empty``."""
    return name.endswith("_like") or ".new_" in name


def written(func: Any, args: Any, kwargs: Any) -> list[Any]:
    """The arguments that an operation writes to, by its schema."""
    schema = getattr(func, "_schema", None)
    declared = schema.arguments if schema is not None else ()
    named = {argument.name for argument in declared if argument.alias_info and argument.alias_info.is_write}
    by_place = [value for argument, value in zip(declared, args, strict=False) if argument.name in named]
    return by_place + [value for name, value in kwargs.items() if name in named]
