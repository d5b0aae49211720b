"""Entry: a stem to a few channels, then a join to the width of the first stage.

    y = join( first x )

For nets whose first block already widens: a join stands between two stages, so before the first it stands here.

Shapes   x: (batch, *places, channels);  between: (batch, *places', width);  y: (batch, *places'', dim)
Cost     what the two cost
Papers   aggregated-residual-transformations-for-deep-neural
"""

from __future__ import annotations

from torch import Tensor

from shoal.core.base import MakeLinear, MakeNorm, Stem
from shoal.core.errors import BadSetting
from shoal.core.part import Part, Value
from shoal.kinds import JOINS, STEMS


class Entry(Stem):
    """Settings: `channels` of the data; `width`, channels between the two; `first`, the stem as text, without its
    channels; `join`, the join as text."""

    tiny = {"channels": 2, "width": 4}

    def __init__(
        self,
        dim: int,
        linear: MakeLinear,
        norm: MakeNorm,
        *,
        channels: int,
        width: int = 16,
        first: str = "convolution",
        join: str = "widen",
    ) -> None:
        super().__init__()
        if width < 1:
            raise BadSetting(f"stem entry: width={width} holds nothing; give at least 1")
        offers = {"linear": linear, "norm": norm}
        self.first = STEMS.make(Part.parse(first).with_settings(channels=channels), width, dim=width, offers=offers)
        self.join = JOINS.make(Part.parse(join), width, dim, dim=dim, offers=offers)

    @classmethod
    def reads(cls, places: tuple[int, ...], channels: int, vocabulary: int | None) -> dict[str, Value] | None:
        if not places or vocabulary is not None:
            return None
        return {"channels": channels, "first": f"convolution[kernel=[{','.join('3' for _ in places)}]]"}

    def forward(self, x: Tensor) -> Tensor:
        return self.join(self.first(x))
