"""Matrices: the ones of a span that an edit can take as one matrix."""

from __future__ import annotations

from torch import nn

from shoal.core.base import Linear
from shoal.kinds import LINEARS

TORCH = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def matrices_of(module: nn.Module, span: str) -> tuple[str, ...]:
    """Paths of the matrices in a span, in order: the dense ones of a Net, Linear and Conv of torch; none in groups."""
    dense: type[Linear] = LINEARS.get("dense")
    return tuple(
        f"{span}.{name}" if name else span
        for name, part in module.get_submodule(span).named_modules()
        if type(part) in (*TORCH, dense) and getattr(part, "groups", 1) == 1  # a Linear of torch has none
    )


def sides(module: nn.Module, path: str) -> tuple[int, int]:
    """Rows and columns of a matrix, those of a kernel's places among the columns."""
    weight = module.get_parameter(f"{path}.weight")
    return weight.shape[0], weight[0].numel()
