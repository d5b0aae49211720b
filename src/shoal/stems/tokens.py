"""Tokens: each token looked up in a table, and each position in another.

    y_t = norm( table[x_t] + position[t] + kind[k_t] )        the norm and the kinds only where they are asked for

Shapes   x: (batch, length) integers below vocabulary, or (batch, length, 2) with each token's kind behind it, below
         `kinds`; all are of kind 0 where none is given;  y: (batch, length, dim)
Cost     (vocabulary + length + kinds) * dim weights, no multiply-adds
"""

from __future__ import annotations

from torch import Tensor, nn

from shoal.core.base import MakeLinear, Stem
from shoal.core.errors import BadModel, BadSetting
from shoal.core.part import Part, Value
from shoal.kinds import NORMS


class Tokens(Stem):
    """Settings: `vocabulary`, how many tokens there are; `length`, the longest sequence; `kinds` of token (segments of
    a text), 0 for none; `norm`, the norm's kind behind the sum, its settings in brackets."""

    tiny = {"vocabulary": 7, "length": 6}

    def __init__(
        self, dim: int, linear: MakeLinear, *, vocabulary: int, length: int, kinds: int = 0, norm: str = "none"
    ) -> None:
        super().__init__()
        if vocabulary < 1 or length < 1 or kinds < 0:
            told = f"vocabulary={vocabulary}, length={length}, kinds={kinds}"
            raise BadSetting(f"stem tokens: {told}; give at least 1 token and place, and no kinds below 0")
        self.table, self.position = nn.Embedding(vocabulary, dim), nn.Embedding(length, dim)
        self.kind = nn.Embedding(kinds, dim) if kinds else None
        tables = [table for table in (self.table, self.position, self.kind) if table is not None]
        for table in tables:
            nn.init.normal_(table.weight, std=len(tables) ** -0.5)  # their sum has variance one
        self.norm = NORMS.make(Part.parse(norm), dim, dim=dim)

    @classmethod
    def reads(cls, places: tuple[int, ...], channels: int, vocabulary: int | None) -> dict[str, Value] | None:
        return {"vocabulary": vocabulary, "length": places[0]} if vocabulary is not None and places else None

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 3 and self.kind is None:
            raise BadModel("stem tokens: kinds of tokens come in, and it has none; set kinds, or give (batch, length)")
        tokens = x[..., 0] if x.dim() == 3 else x
        y = self.table(tokens) + self.position.weight[: x.shape[1]]
        if self.kind is not None:
            y = y + (self.kind(x[..., 1]) if x.dim() == 3 else self.kind.weight[0])
        return self.norm(y)
