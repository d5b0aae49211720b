"""Residual: every layer adds to a stream that all later ones read.

    x <- act( x + f_i(x) )

The first residual nets activate each sum; where that is the identity, as it is unless said, the stream is a sum.

Shapes   x: (batch, *places, dim) throughout
Exact when a layer gives zero: dropping it changes nothing, under an activation where what comes in has gone through it
Papers   deep-residual-learning-for-image-recognition
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from shoal.core.activations import activation
from shoal.core.base import Branch, Wiring
from shoal.core.errors import Refused
from shoal.core.part import Value

IDEMPOTENT = ("identity", "relu")  # once more changes nothing


class Residual(Wiring):
    """Settings: `act`, the name of the activation behind each sum."""

    def __init__(self, dim: int, depth: int, *, act: str = "identity") -> None:
        super().__init__(dim, depth)
        self.act, self.name = activation(act), act

    def reads(self) -> list[set[int]]:
        return [set(range(i + 1)) for i in range(self.depth + 1)]

    def groups(self) -> list[int] | None:
        return [1] * self.depth if self.name == "identity" else None

    def without(self, index: int) -> dict[str, Value]:
        if self.name not in IDEMPOTENT:
            raise Refused(
                f"wiring residual: without layer {index} the stream would be activated once less by {self.name}"
            )
        if index == 0 and self.name != "identity":
            raise Refused(f"wiring residual: without layer {index} what comes in would not go through {self.name}")
        return {"act": self.name}

    def forward(self, x: Tensor, layers: Sequence[Branch]) -> Tensor:
        for layer in layers:
            x = self.act(x + layer(x))
        return x
