"""Patches: the places cut into squares, each square one place of dim channels, with its position added.

    y_p = map(square p) + position[p]
    y_0 = token + position[0]                 with a class token, that stands in front of the row of squares

Shapes   x: (batch, height, width, channels);  y: (batch, height / patch, width / patch, dim), or with a class token
         (batch, 1 + squares, dim)
Cost     channels * patch^2 * dim multiply-adds a square, as many weights, and dim weights a place for its position
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from shoal.core.base import MakeLinear, Stem
from shoal.core.errors import BadSetting
from shoal.core.part import Value


class Patches(Stem):
    """Settings: `channels` of the data; `size`, its (height, width); `patch`, the side of a square; it divides both;
    `class_token`, whether a learned place stands in front; `position`, whether positions are added."""

    tiny = {"channels": 2, "size": (6, 6), "patch": 2}

    def __init__(
        self,
        dim: int,
        linear: MakeLinear,
        *,
        channels: int,
        size: tuple[int, ...],
        patch: int = 4,
        class_token: bool = False,
        position: bool = True,
    ) -> None:
        super().__init__()
        if len(size) != 2 or patch < 1 or any(side % patch for side in size):
            raise BadSetting(f"stem patches: squares of {patch} do not divide {list(size)}; choose a common divisor")
        self.patch = patch
        self.map = linear(channels * patch * patch, dim)
        grid = [side // patch for side in size]
        places = [1 + grid[0] * grid[1]] if class_token else grid
        self.position = nn.Parameter(torch.empty(*places, dim)) if position else None
        self.token = nn.Parameter(torch.empty(dim)) if class_token else None
        for weight in (self.position, self.token):
            if weight is not None:
                nn.init.normal_(weight, std=0.02)

    @classmethod
    def reads(cls, places: tuple[int, ...], channels: int, vocabulary: int | None) -> dict[str, Value] | None:
        if len(places) != 2 or vocabulary is not None:
            return None
        patch = next(p for p in (4, 2, 7, 5, 3, 1) if all(side % p == 0 for side in places))
        return {"channels": channels, "size": places, "patch": patch}

    def forward(self, x: Tensor) -> Tensor:
        squares = x.unflatten(2, (-1, self.patch)).unflatten(1, (-1, self.patch)).transpose(2, 3)
        y = self.map(squares.flatten(3))
        if self.token is not None:
            y = torch.cat((self.token.expand(y.shape[0], 1, -1), y.flatten(1, 2)), dim=1)
        return y if self.position is None else y + self.position
