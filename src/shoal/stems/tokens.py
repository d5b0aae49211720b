"""Tokens: each token looked up in a table, and each position in another.

    y_t = table[x_t] + position[t]

Shapes   x: (batch, length) integers below vocabulary;  y: (batch, length, dim)
Cost     (vocabulary + length) * dim weights, no multiply-adds
"""

from __future__ import annotations

from torch import Tensor, nn

from shoal.core.base import MakeLinear, Stem
from shoal.core.errors import BadSetting
from shoal.core.part import Value


class Tokens(Stem):
    """Settings: `vocabulary`, how many tokens there are; `length`, the longest sequence."""

    tiny = {"vocabulary": 7, "length": 6}

    def __init__(self, dim: int, linear: MakeLinear, *, vocabulary: int, length: int) -> None:
        super().__init__()
        if vocabulary < 1 or length < 1:
            raise BadSetting(f"stem tokens: vocabulary={vocabulary}, length={length}; give at least 1 of each")
        self.table, self.position = nn.Embedding(vocabulary, dim), nn.Embedding(length, dim)
        for weight in (self.table.weight, self.position.weight):
            nn.init.normal_(weight, std=0.5**0.5)  # their sum has variance one

    @classmethod
    def reads(cls, places: tuple[int, ...], channels: int, vocabulary: int | None) -> dict[str, Value] | None:
        return {"vocabulary": vocabulary, "length": places[0]} if vocabulary is not None and places else None

    def forward(self, x: Tensor) -> Tensor:
        return self.table(x) + self.position.weight[: x.shape[1]]
