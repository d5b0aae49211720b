"""Features: a row of features as it is, with zeros behind it where the width is larger; no weights.

    y = [x, 0]

What stands behind it works on the features themselves, and where that has no weights either, it is worked out once.

Shapes   x: (batch, features);  y: (batch, dim), dim >= features
Cost     nothing
Papers   evaluating-deep-graph-neural-networks
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from shoal.core.base import MakeLinear, Stem
from shoal.core.errors import BadSetting
from shoal.core.part import Value


class Features(Stem):
    """Settings: `features`, numbers in a row."""

    known = {"gradients": "it has no weights"}
    tiny = {"features": 5}

    def __init__(self, dim: int, linear: MakeLinear, *, features: int) -> None:
        super().__init__()
        if not 1 <= features <= dim:
            raise BadSetting(f"stem features: {features} features do not fit width {dim}; give 1 to {dim}")
        self.behind = dim - features

    @classmethod
    def reads(cls, places: tuple[int, ...], channels: int, vocabulary: int | None) -> dict[str, Value] | None:
        return {"features": channels} if not places and vocabulary is None else None

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, (0, self.behind)) if self.behind else x
