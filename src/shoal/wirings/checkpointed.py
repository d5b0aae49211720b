"""Checkpointed: the residual net, which in training keeps the stream before each run of layers and nothing else.

    x <- x + f_i(x)        backward runs the layers of a run again, from the stream before it

Batch norms see the batch twice, and move their running statistics once. On a processor the C library may hoard what is
freed between the runs (glibc does): MALLOC_MMAP_THRESHOLD_=65536 in the environment makes it give that back.

Shapes   x: (batch, *places, dim) throughout
Cost     in training one more forward pass; kept are depth / every streams and what one run of layers needs
Exact when a layer run twice gives the same twice: outputs and gradients are those of the residual net
Papers   deep-residual-learning-for-image-recognition
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from torch import Tensor
from torch.utils.checkpoint import checkpoint

from shoal.core.base import Branch, Wiring
from shoal.core.errors import BadSetting
from shoal.core.part import Value
from shoal.wirings._recompute import SecondRun, recomputes


class Checkpointed(Wiring):
    """Settings: `every`, layers in a run; 0 is about the root of the depth, which keeps the least."""

    tiny = {"every": 2}

    def __init__(self, dim: int, depth: int, *, every: int = 0) -> None:
        super().__init__(dim, depth)
        if every < 0:
            raise BadSetting(f"wiring checkpointed: every={every} is no run; give at least 1, or 0 for about the root")
        self.every, self.run = every, every or max(round(math.sqrt(depth)), 1)

    def reads(self) -> list[set[int]]:
        return [set(range(i + 1)) for i in range(self.depth + 1)]

    def groups(self) -> list[int]:
        return [1] * self.depth

    def without(self, index: int) -> dict[str, Value]:
        return {"every": self.every}

    def forward(self, x: Tensor, layers: Sequence[Branch]) -> Tensor:
        if not recomputes():
            return _through(x, layers)
        for start in range(0, self.depth, self.run):
            x = checkpoint(_through, x, layers[start : start + self.run], use_reentrant=False, context_fn=_contexts)
        return x


def _through(x: Tensor, layers: Sequence[Branch]) -> Tensor:
    for layer in layers:
        x = x + layer(x)
    return x


def _contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """What the two runs stand in."""
    return nullcontext(), SecondRun()
