"""Samples: what the checks are run on, and the two words they judge with. Everything small; two rows a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from shoal.core.base import Block
from shoal.core.graphs import normalised
from shoal.core.kind import Kind
from shoal.core.makers import offers
from shoal.core.part import Part
from shoal.core.spec import DENSE, LayerSpec
from shoal.net import Layer

DIM = 8
BATCH = 2
PLACES: Mapping[int, tuple[int, ...]] = {0: (), 1: (6,), 2: (5, 4)}
STEMS_FOR: Mapping[int, str] = {
    0: f"vector[features={DIM}]",
    1: f"convolution[channels={DIM},kernel=[3]]",
    2: f"convolution[channels={DIM}]",
}


class CheckFailed(AssertionError):
    """A method does not do what its kind promises; one line that says what."""


@dataclass(frozen=True)
class Subject:
    """The method under test: its kind and its name."""

    kind: Kind
    name: str

    @property
    def cls(self) -> type[Any]:
        """The class, imported now."""
        return self.kind.get(self.name)

    @property
    def part(self) -> Part:
        """The method at its ``tiny`` settings, complete."""
        return self.kind.complete(Part(self.name, self.cls.tiny), DIM)

    def with_settings(self, **settings: Any) -> Part:
        """The tiny part with some settings replaced."""
        return self.part.with_settings(**settings)


Check = Callable[[Subject], None]

HOUSE: Mapping[str, tuple[Any, ...]] = {  # what the house gives by position, a kind
    "stem": (DIM,),
    "linear": (DIM, 12, True, (), 1),
    "norm": (DIM,),
    "wiring": (DIM, 4),
    "join": (DIM, 12),
    "head": (DIM,),
    "task": (),
    "edit": (),
    "compressor": (),
    "measure": (),
    "intervention": (),
    "net": (),
}
OFFERS = offers(Part("layer"))  # and what it has for those who ask


def build(subject: Subject, part: Part | None = None) -> Any:
    """The method built at its tiny settings, or as ``part`` says."""
    part = subject.part if part is None else part
    if subject.kind.name == "block":
        return layer(part).block
    return subject.kind.make(part, *HOUSE[subject.kind.name], dim=DIM, offers=OFFERS)


def layer(block: Part, inputs: int = DIM, outputs: int = DIM, linear: Part = DENSE) -> Layer:
    """A Layer about that block, at its own norm."""
    return Layer(LayerSpec(block, linear=linear), inputs, outputs)


def inputs(places: int, dim: int = DIM, batch: int = BATCH) -> Tensor:
    """A random input with so many places, float64."""
    return torch.randn(batch, *PLACES[places], dim, dtype=torch.float64)


def layouts(cls: type[Block]) -> tuple[int, ...]:
    """The numbers of places a block is tried at: those it declares that there are samples for."""
    return tuple(places for places in cls.layouts if places in PLACES)


def context(name: str, x: Tensor) -> Tensor:
    """A sample of the context of that name for an input x; every place may be read, positions are far from uniform."""
    size = int(torch.Size(x.shape[1:-1]).numel())
    rows = torch.arange(len(x))
    ring = torch.stack((rows, rows.roll(1)))  # the rows are nodes, each joined to the next
    samples = {
        "mask": torch.ones(x.shape[0], size, dtype=torch.bool),
        "positions": torch.arange(size) * 3,
        "edges": ring,
        "adjacency": normalised(ring, len(x), x.dtype),
    }
    require(name in samples, f"the battery has no sample of the context {name!r}; add one to shoal.testing._samples")
    return samples[name]


def shake(module: nn.Module) -> None:
    """Every parameter moved off its initial value, so that nothing passes for being zero or one at the start."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.empty_like(parameter).uniform_(-0.3, 0.3))


def require(ok: bool, message: str) -> None:
    """Raise CheckFailed with the message unless ok."""
    if not ok:
        raise CheckFailed(message)


def require_close(found: Tensor, wanted: Tensor, what: str, tolerance: float = 1e-10) -> None:
    """Raise CheckFailed unless the shapes are equal and the values within ``tolerance`` of the largest wanted."""
    require(found.shape == wanted.shape, f"{what}: shape {tuple(found.shape)}, wanted {tuple(wanted.shape)}")
    gap = float((found.detach() - wanted.detach()).abs().max()) if found.numel() else 0.0
    scale = max(float(wanted.detach().abs().max()), 1.0) if wanted.numel() else 1.0
    require(gap <= tolerance * scale, f"{what}: {gap:.3g} apart, at most {tolerance * scale:.3g} is allowed")


def require_gradients(module: nn.Module, output: Tensor) -> None:
    """Every parameter gets a finite gradient from the output."""
    module.zero_grad()
    (output * torch.randn_like(output)).sum().backward()
    for name, parameter in module.named_parameters():
        if parameter.grad is None:
            raise CheckFailed(f"parameter {name!r} gets no gradient")
        require(bool(torch.isfinite(parameter.grad).all()), f"parameter {name!r} gets a gradient that is not finite")


def require_rows_apart(run: Callable[[Tensor], Tensor], x: Tensor) -> None:
    """Changing the last row of the batch leaves the first as it was."""
    changed = x.clone()
    changed[-1] = torch.randn_like(changed[-1])
    require(torch.equal(run(x)[0], run(changed)[0]), "row 0 changes with the last row of the batch")
