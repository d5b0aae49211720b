"""A teacher: a frozen copy of a module, which remembers what it answered to rows that come again."""

from __future__ import annotations

import copy
import hashlib

import torch
from torch import Tensor, nn

from shoal.core.example import tensors
from shoal.core.inputs import Inputs, answer_to

ROOM = 256 << 20  # bytes of answers are remembered at most


class Teacher:
    """A copy of a module in eval mode, taken when this is made: the one given is never touched, and may be the very net
    that is trained.

    On the CPU an answer is found again by the bytes of the rows, which are read for it; on a GPU all are asked for
    anew, since reading the bytes would wait for it. A recipe with ``views`` brings batches again.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        self.known: dict[bytes, Tensor] = {}
        self.room = ROOM

    def to(self, device: torch.device) -> nn.Module:
        """The module, on that device."""
        return self.module.to(device)

    def answer(self, x: Inputs, device: torch.device) -> Tensor:
        """What it answers these rows."""
        key = _digest(x) if device.type == "cpu" else None
        if key is not None and key in self.known:
            return self.known[key]
        with torch.no_grad():
            given = answer_to(self.to(device), x)
        size = given.numel() * given.element_size()
        if key is not None and size <= self.room:
            self.known[key], self.room = given.clone(), self.room - size
        return given


def _digest(x: Inputs) -> bytes:
    """Rows by their bytes, types, shapes and names."""
    found = hashlib.blake2b(repr(list(x)).encode() if isinstance(x, dict) else b"", digest_size=16)
    for value in tensors(x):
        found.update(f"{value.dtype}{tuple(value.shape)}{value.device}".encode())
        found.update(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.digest()
