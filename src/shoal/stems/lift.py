"""Lift: a row of features into many channels, by a random matrix that is never trained nor stored, only its seed.

    y = W x,    W uniform of variance 1 / features: features of variance one become channels of variance one

With layers narrower than the stream (``residual(mlp[hidden=8]) 4x64``) it is the hourglass MLP.

Shapes   x: (batch, features);  y: (batch, dim)
Cost     features * dim multiply-adds, no weights to train and none in a file
Papers   rethinking-the-shape-convention-of-an
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from shoal.core.base import Stem
from shoal.core.errors import BadSetting
from shoal.core.part import Value

STEPS = 2**24  # values a weight may take: as many as float32 holds apart


class Lift(Stem):
    """Settings: `features`, numbers in a row; `seed`, which says what the matrix is."""

    tiny = {"features": 5}
    known = {"gradients": "its matrix stays as it was drawn: nothing in it learns"}
    matrix: Tensor

    def __init__(self, dim: int, *, features: int, seed: int = 0) -> None:
        super().__init__()
        if features < 1 or not 0 <= seed < 2**63:
            raise BadSetting(f"stem lift: features={features}, seed={seed}; give a feature and a seed from 0 to 2^63-1")
        # whole numbers are drawn, which are the same on every machine; normal ones are rounded as it computes them
        source = torch.Generator("cpu").manual_seed(seed)
        drawn = torch.randint(STEPS, (dim, features), generator=source, device="cpu", dtype=torch.int64)
        values = ((drawn.double() + 0.5) * (2 / STEPS) - 1) * (3 / features) ** 0.5
        self.register_buffer("matrix", torch.empty(dim, features).copy_(values), persistent=False)

    @classmethod
    def reads(cls, places: tuple[int, ...], channels: int, vocabulary: int | None) -> dict[str, Value] | None:
        return {"features": channels} if not places and vocabulary is None else None

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.matrix)
