"""Cross stage: some channels go past the stage, the others through it; both are joined behind.

    [p, q] = x;    q <- q + f_i(q);    out = behind [p, after q]        both transitions: act( norm( W . ) )

The gradients that reach the layers never come back a second time through the channels that went past.

Shapes   x: (batch, *places, dim) throughout;  p: share * dim channels, rounded down;  layers: dim - p
Cost     dim^2 + q^2 multiply-adds a place for the transitions, as many weights and their norms'
Exact when share = 0: the residual net, then its transitions
Papers   cspnet-a-new-backbone-that-can
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from shoal.core.base import Branch, MakeLinear, MakeNorm, Wiring
from shoal.core.errors import BadSetting
from shoal.core.part import Value
from shoal.wirings._node import Node


class CrossStage(Wiring):
    """Settings: `share` of the channels that go past; `fusion`: transitions after the stage and behind both ("both"),
    behind both only ("first": joined first), after the stage only ("last"); `act`, their activation."""

    tiny = {"act": "gelu"}

    def __init__(
        self,
        dim: int,
        depth: int,
        linear: MakeLinear,
        norm: MakeNorm,
        *,
        share: float = 0.5,
        fusion: Literal["both", "first", "last"] = "both",
        act: str = "relu",
    ) -> None:
        super().__init__(dim, depth)
        if not 0 <= share < 1:
            raise BadSetting(f"wiring cross_stage: share={share} leaves no stage; give at least 0 and less than 1")
        self.past, self.settings = int(share * dim), {"share": share, "fusion": fusion, "act": act}
        width = dim - self.past
        self.after = Node(width, width, linear, norm, act) if fusion != "first" else None
        self.behind = Node(dim, dim, linear, norm, act) if fusion != "last" else None

    def ends(self) -> list[tuple[int, int]]:
        return [(self.dim - self.past, self.dim - self.past)] * self.depth

    def reads(self) -> list[set[int]]:
        return [set(range(i + 1)) for i in range(self.depth + 1)]

    def without(self, index: int) -> dict[str, Value]:
        return dict(self.settings)

    def forward(self, x: Tensor, layers: Sequence[Branch]) -> Tensor:
        past, through = x.split((self.past, self.dim - self.past), dim=-1)
        for layer in layers:
            through = through + layer(through)
        if self.after is not None:
            through = self.after(through)
        y = torch.cat((past, through), dim=-1)
        return y if self.behind is None else self.behind(y)
