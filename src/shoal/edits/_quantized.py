"""What a quantised module of somebody else is made of: weights seen through a grid, and grids before and behind."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized, register_parametrization

from shoal.core.errors import Refused
from shoal.core.grids import Grid, OwnGrid, on_rows, scales_of, ternary

MATRICES = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class Rows(nn.Module):
    """Weights as integers of so many bits, one scale for each output; the scales are buffers."""

    def __init__(self, weight: Tensor, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.register_buffer("scales", scales_of(weight, bits))
        zeros = torch.zeros(len(weight), dtype=torch.int32, device=weight.device)
        self.register_buffer("zeros", zeros, persistent=False)
        self.scales: Tensor
        self.zeros: Tensor

    def forward(self, weight: Tensor) -> Tensor:
        return on_rows(weight, self.scales, self.zeros, self.bits)


class Ternaries(nn.Module):
    """Weights as one size times -1, 0 or 1."""

    def __init__(self, measure: str) -> None:
        super().__init__()
        self.measure = measure

    def forward(self, weight: Tensor) -> Tensor:
        return ternary(weight, self.measure)


class OnGrid(nn.Module):
    """A module whose first argument, or whose output, is moved to a grid."""

    def __init__(self, inner: nn.Module, given: nn.Module | None, made: nn.Module | None) -> None:
        super().__init__()
        self.given, self.inner, self.made = given, inner, made
        self.train(inner.training)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        y: Tensor = self.inner(x if self.given is None else self.given(x), *args, **kwargs)
        return y if self.made is None else self.made(y)


def matrix_at(module: nn.Module, path: str) -> nn.Module:
    """The matrix there. Refused where it is none, or is seen through something already."""
    part = module.get_submodule(path)
    if not isinstance(part, MATRICES):
        raise Refused(f"{path}: is a {type(part).__name__}; quantize takes Linear and Conv modules")
    if is_parametrized(part, "weight"):
        raise Refused(f"{path}: its weight is quantised or masked already; leave it out")
    return part


def see_through(part: nn.Module, seen: nn.Module) -> None:
    """From now on a matrix runs with its weight as ``seen`` gives it; the weight itself is kept and learns."""
    register_parametrization(part, "weight", seen.train(part.training))


def put_on_grid(module: nn.Module, path: str, before: bool, behind: bool, own: bool) -> None:
    """Grids around the module at a path; ``own``: the one before it is made anew for each tensor."""
    part = module.get_submodule(path)
    device = next((tensor.device for tensor in [*part.parameters(), *part.buffers()]), None)
    given = None if not before else OwnGrid() if own else Grid().to(device)
    module.set_submodule(path, OnGrid(part, given, Grid().to(device) if behind else None))
