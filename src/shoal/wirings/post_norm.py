"""Post-norm: every layer adds to the stream, and the sum is normalised before the next one reads it.

    x <- norm_i( x + f_i(x) )

The layers' own norms come on top: write `norm=none` behind the block for the original transformer.

Shapes   x: (batch, *places, dim) throughout
Cost     the weights of a norm a layer
Papers   an-introduction-to-transformers
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from shoal.core.base import Branch, Wiring
from shoal.core.part import Part
from shoal.kinds import NORMS


class PostNorm(Wiring):
    """Settings: `norm`, the norms' kind, with its settings in brackets where there are some to say."""

    def __init__(self, dim: int, depth: int, *, norm: str = "layer") -> None:
        super().__init__(dim, depth)
        self.norms = nn.ModuleList(NORMS.make(Part.parse(norm), dim, dim=dim) for _ in range(depth))

    def reads(self) -> list[set[int]]:
        return [set(range(i + 1)) for i in range(self.depth + 1)]

    def forward(self, x: Tensor, layers: Sequence[Branch]) -> Tensor:
        for layer, norm in zip(layers, self.norms, strict=True):
            x = norm(x + layer(x))
        return x
