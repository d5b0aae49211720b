"""Node: several tensors become one of the same width; what aggregating, composite and cross-stage wirings share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from shoal.core.activations import activation
from shoal.core.base import MakeLinear, MakeNorm


class Node(nn.Module):
    """act( norm( map [all given, side by side] ) (+ the last given, where residual) )."""

    def __init__(
        self, inputs: int, outputs: int, linear: MakeLinear, norm: MakeNorm, act: str, residual: bool = False
    ) -> None:
        super().__init__()
        self.map = linear(inputs, outputs, bias=False)
        self.norm = norm(outputs) if outputs > 1 else None  # of a single channel a layer norm would leave nothing
        self.act, self.residual = activation(act), residual

    def forward(self, *given: Tensor) -> Tensor:
        """(batch, *places, width) each -> (batch, *places, outputs)."""
        y: Tensor = self.map(torch.cat(given, dim=-1) if len(given) > 1 else given[0])
        y = y if self.norm is None else self.norm(y)
        return self.act(y + given[-1] if self.residual else y)
