"""State: the tensors of a net, their running average, and a stream of random numbers of its own.

All that training carries from one step to the next beside the optimizer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from shoal.core.errors import BadArtifact


def seed_of(*words: object) -> int:
    """A seed of 63 bits from some words, such as (seed, "order", epoch): other words, another seed."""
    digest = hashlib.blake2b(repr(words).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator_of(*words: object) -> torch.Generator:
    """A generator on the CPU that is seeded by these words."""
    return torch.Generator().manual_seed(seed_of(*words))


def tensors_of(net: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer once, by name; they share memory with the net."""
    found = {name: value.detach() for name, value in net.named_parameters()}
    return found | {name: value.detach() for name, value in net.named_buffers()}


def copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of their own memory, in the same layout."""
    return {name: value.detach().clone() for name, value in tensors.items()}


def fill(into: Mapping[str, Tensor], values: Mapping[str, Tensor], what: str) -> None:
    """Write values into tensors of the same names and shapes; BadArtifact, before any is changed, where they differ."""
    for name in [*into, *values]:
        if name not in into or name not in values or into[name].shape != values[name].shape:
            raise BadArtifact(f"{what}: tensor {name!r} does not fit this net; give the net that was being trained")
    with torch.no_grad():
        for name, value in values.items():
            into[name].copy_(value)


class Average:
    """The running average of a net's weights and floating buffers (batch statistics among them).

    average <- d average + (1 - d) weights,   d = min(decay, (t - 1) / (t + 9)) at update t

    The first update copies, and early ones look back over a tenth of the way only, so that the start is forgotten.
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.tensors = copied(tensors_of(net))
        self._slots = [_slot(net, name) for name in self.tensors]  # where to look: a module may put a new buffer there

    def update(self) -> None:
        """Take in what the net holds now."""
        self.updates += 1
        weight = 1 - min(self.decay, (self.updates - 1) / (self.updates + 9))
        mine: list[Tensor] = []
        floats: list[Tensor] = []
        for own, (holder, name) in zip(self.tensors.values(), self._slots, strict=True):
            now = holder[name].detach()
            if now.is_floating_point():
                mine.append(own)
                floats.append(now)
            else:
                own.copy_(now)
        torch._foreach_lerp_(mine, floats, weight)

    def swap(self, net: nn.Module) -> None:
        """Exchange the average and what is in the net."""
        own = copied(tensors_of(net))
        fill(tensors_of(net), self.tensors, "average")
        self.tensors = own


def _slot(net: nn.Module, path: str) -> tuple[Mapping[str, Tensor], str]:
    """The dictionary and the key under which a module holds a parameter or a buffer."""
    owner, _, name = path.rpartition(".")
    module = net.get_submodule(owner)
    holder: Mapping[str, Any] = module._parameters if name in module._parameters else module._buffers
    return holder, name


class Stream:
    """Random numbers for what draws from torch's global ones, such as dropout; the caller's are left as they were.

    with stream: ...      inside, the global numbers go on where this stream stopped
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self.device = device
        self.states = [torch.Generator().manual_seed(seed).get_state()]
        if device.type == "cuda":
            self.states.append(torch.Generator(device).manual_seed(seed).get_state())
        self._before = self.states
        self._outside: list[Tensor] = []

    def __enter__(self) -> Stream:
        self._outside = self._read()
        self._before = self.states
        self._write(self.states)
        return self

    def __exit__(self, *_: object) -> None:
        self.states = self._read()
        self._write(self._outside)

    def rewind(self) -> None:
        """Go back to where the last use began."""
        self.states = self._before

    def _read(self) -> list[Tensor]:
        own = [torch.get_rng_state()]
        return [*own, torch.cuda.get_rng_state(self.device)] if self.device.type == "cuda" else own

    def _write(self, states: list[Tensor]) -> None:
        torch.set_rng_state(states[0])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(states[1], self.device)
