"""Memory: bytes of activations alive at once.

What counts is every piece of memory that an operation makes while the module runs, from when it is made until nobody
holds it: weights and inputs are not made by the run, views make nothing, and what a kernel takes and gives back within
one operation is not seen.

    inference    in eval mode without gradients: what the forward pass itself still needs
    training     in training mode with gradients: also what autograd keeps for backward, whose own needs come on top
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from shoal.core.example import arguments
from shoal.costing.counting.lookout import Lookout, eager
from shoal.costing.counting.storage import parts_of, plain
from shoal.costing.counting.untouched import turn
from shoal.costing.counting.work import Call


class Alive:
    """Bytes of the storages that were made since, and are still there; `peak`: the most there were at once."""

    def __init__(self, module: nn.Module, given: Any) -> None:
        self.peak = self._now = 0
        own = (list(module.parameters()), list(module.buffers()), given)
        self._given = {storage._cdata: storage for storage in _storages(plain(own))}
        self._sizes: dict[int, int] = {}
        self._watched: dict[int, Any] = {}

    def see(self, made: Iterable[Tensor]) -> None:
        """An operation has given these."""
        for storage in _storages(parts_of(made)):
            key, size = storage._cdata, storage.nbytes()
            if key in self._given:
                continue
            if key not in self._sizes:
                self._watched[key] = weakref.ref(storage, partial(self._gone, key))
            self._now += size - self._sizes.get(key, 0)
            self._sizes[key] = size
        self.peak = max(self.peak, self._now)

    def _gone(self, key: int, _: Any) -> None:
        self._now -= self._sizes.pop(key)
        del self._watched[key]


class _Training(Lookout):
    def __init__(self, alive: Alive) -> None:
        super().__init__()
        self.alive = alive

    def look(self, call: Call) -> None:
        self.alive.see(call.made)


def training_peak(module: nn.Module, example: Any) -> tuple[int | None, str]:
    """The peak of a forward pass in training mode, or None and what the module said to that; its state may change."""
    args, kwargs = arguments(example)
    alive = Alive(module, (args, kwargs))
    turn(module, training=True)
    try:
        with torch.enable_grad(), eager(), _Training(alive):
            module(*args, **kwargs)
    except Exception as error:  # whatever keeps a module from training, its inference was counted
        return None, str(error).strip().partition("\n")[0] or type(error).__name__
    return alive.peak, ""


def _storages(tensors: Iterable[Tensor]) -> list[torch.UntypedStorage]:
    return [tensor.untyped_storage() for tensor in tensors if tensor.layout is torch.strided]
