"""Stepped: one layer after another, each to a width of its own.

    x <- f_i(x),  f_i: widths[i-1] -> widths[i],  widths[-1] = dim

Shapes   x: (batch, *places, dim);  behind layer i: (batch, *places, widths[i])
Exact when all widths are dim: the plain net
Papers   lets-keep-it-simple-using-simple
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from shoal.core.base import Branch, Wiring
from shoal.core.errors import BadSetting, Refused
from shoal.core.part import Value


class Stepped(Wiring):
    """Settings: `widths`, what each layer gives; the last holds for all layers behind it (dim where none is said)."""

    tiny = {"widths": (6,)}
    known = {"trains_at_32": "thirty-two layers without a stream past them do not learn in 60 steps; why residuals are"}

    def __init__(self, dim: int, depth: int, *, widths: tuple[int, ...] = ()) -> None:
        super().__init__(dim, depth)
        if len(widths) > depth or min(widths, default=1) < 1:
            raise BadSetting(f"wiring stepped: widths {list(widths)} for {depth} layers; give one a layer, at least 1")
        last = widths[-1] if widths else dim
        self.widths = (*widths, *(last for _ in range(depth - len(widths))))

    def ends(self) -> list[tuple[int, int]]:
        return list(zip((self.dim, *self.widths), self.widths, strict=False))

    def out(self) -> int:
        return self.widths[-1]

    def reads(self) -> list[set[int]]:
        return [{i} for i in range(self.depth + 1)]

    def without(self, index: int) -> dict[str, Value]:
        takes, gives = self.ends()[index]
        if takes != gives:
            raise Refused(f"wiring stepped: layer {index} takes {takes} channels and gives {gives}; it cannot go")
        return {"widths": (*self.widths[:index], *self.widths[index + 1 :])}

    def forward(self, x: Tensor, layers: Sequence[Branch]) -> Tensor:
        for layer in layers:
            x = layer(x)
        return x
