"""Looped: a residual stack gone through several times with the same weights.

    repeat `times`:  for each layer  x <- x + f_i(x)

A batch norm keeps one mean and variance for visits whose numbers differ, so that eval does not do what training did:
give the layers a norm that keeps none, as in `looped(conv norm=layer)`.

Shapes   x: (batch, *places, dim) throughout
Cost     the multiply-adds of times * depth layers, the weights of depth
Exact when times = 1: the residual net
Papers   make-deep-networks-shallow-again
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from shoal.core.base import Branch, Wiring
from shoal.core.errors import BadSetting
from shoal.core.part import Value


class Looped(Wiring):
    """Settings: `times`, how often the stack is gone through."""

    tiny = {"times": 2}

    def __init__(self, dim: int, depth: int, *, times: int = 2) -> None:
        super().__init__(dim, depth)
        if times < 1:
            raise BadSetting(f"wiring looped: times={times} runs nothing; give at least 1")
        self.times = times

    def reads(self) -> list[set[int]]:
        return [set(range(i + 1)) for i in range(self.depth * self.times + 1)]

    def without(self, index: int) -> dict[str, Value]:
        return {"times": self.times}

    def forward(self, x: Tensor, layers: Sequence[Branch]) -> Tensor:
        for _ in range(self.times):
            for layer in layers:
                x = x + layer(x)
        return x
