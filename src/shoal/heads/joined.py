"""Joined: a join to another width, then a head.

    y = head( join x )

For nets that widen once more behind their last block: a join stands between two stages, so behind the last it stands
here.

Shapes   x: (batch, *places, dim);  between: (batch, *places', width);  y: (batch, outputs), or as the head gives it
Cost     what the two cost
Papers   non-deep-networks
"""

from __future__ import annotations

from torch import Tensor

from shoal.core.base import Head, MakeLinear, MakeNorm
from shoal.core.errors import BadSetting
from shoal.core.part import Part
from shoal.kinds import HEADS, JOINS


class Joined(Head):
    """Settings: `outputs`, numbers given; `width`, channels between the two; `join`, the join as text; `head`, the head
    as text, without its outputs."""

    tiny = {"outputs": 3, "width": 6}

    def __init__(
        self,
        dim: int,
        linear: MakeLinear,
        norm: MakeNorm,
        *,
        outputs: int,
        width: int = 64,
        join: str = "widen",
        head: str = "pool",
    ) -> None:
        super().__init__()
        if width < 1:
            raise BadSetting(f"head joined: width={width} holds nothing; give at least 1")
        offers = {"linear": linear, "norm": norm}
        self.join = JOINS.make(Part.parse(join), dim, width, dim=width, offers=offers)
        self.head = HEADS.make(Part.parse(head).with_settings(outputs=outputs), width, dim=width, offers=offers)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.join(x))
