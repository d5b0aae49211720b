"""Stochastic: a residual stack in which layers sit out at random while it learns, later ones more often.

    x <- x + b_i f_i(x)        b_i = 1 with probability p_i, else 0, a draw a batch;  in eval p_i itself
    p_i = 1 - (i / depth) (1 - survive),  i = 1 .. depth

A layer that sits out is not computed.

Shapes   x: (batch, *places, dim) throughout
Cost     in training the share of the layers that take part: (1 + survive) / 2 of them in a deep stack
Exact when survive = 1: the residual net
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from shoal.core.base import Branch, Wiring
from shoal.core.errors import BadSetting
from shoal.core.part import Value


class Stochastic(Wiring):
    """Settings: `survive`, how likely the last layer takes part, between 0 and 1; or every layer's likelihood."""

    tiny = {"survive": 1.0}  # the battery's checks ask that every layer takes part

    def __init__(self, dim: int, depth: int, *, survive: float | tuple[float, ...] = 0.5) -> None:
        super().__init__(dim, depth)
        if isinstance(survive, tuple):
            self.chances = [float(chance) for chance in survive]
        else:
            self.chances = [1 - i / depth * (1 - survive) for i in range(1, depth + 1)]
        if len(self.chances) != depth or not all(0 < chance <= 1 for chance in self.chances):
            raise BadSetting(
                f"wiring stochastic: survive={survive} at depth {depth}; give one number above 0 and at most 1, or one"
                " a layer"
            )

    def reads(self) -> list[set[int]]:
        return [set(range(i + 1)) for i in range(self.depth + 1)]

    def without(self, index: int) -> dict[str, Value]:
        return {"survive": tuple(self.chances[:index] + self.chances[index + 1 :])}

    def forward(self, x: Tensor, layers: Sequence[Branch]) -> Tensor:
        if self.training:
            draws = torch.rand(self.depth, device="cpu").tolist()
            parts = [layer for layer, chance, draw in zip(layers, self.chances, draws, strict=True) if draw < chance]
            for layer in parts:
                x = x + layer(x)
            return x
        for chance, layer in zip(self.chances, layers, strict=True):
            x = x + chance * layer(x)
        return x
