"""Own norms: a layer that is visited several times, with norms of its own at each visit.

    y = block(norm_v(x))        at visit v: the matrices of the block are shared, its norms and the one before it not

Papers   go-wider-instead-of-deeper
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from shoal.core.base import MakeNorm, Norm
from shoal.core.errors import Refused


class OwnNorms(Norm):
    """Stands where a shared layer has a norm. The layer sets ``visit`` before it runs: it says whose turn it is."""

    def __init__(self, norms: Sequence[Norm]) -> None:
        super().__init__()
        self.each = nn.ModuleList(norms)
        self.visit = 0

    def now(self) -> Norm:
        """The norm of this visit."""
        found = self.each[self.visit]
        assert isinstance(found, Norm)
        return found

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.now()(x)
        return y

    def planes(self, x: Tensor) -> Tensor:
        return self.now().planes(x)

    def affine(self) -> tuple[Tensor, Tensor]:
        raise Refused(f"a norm with {len(self.each)} visits of their own has no one scale and shift; share it first")

    def neutral(self) -> None:
        raise Refused(f"a norm with {len(self.each)} visits of their own has no one scale and shift; share it first")


def for_visits(norm: MakeNorm, visits: int) -> MakeNorm:
    """A maker of norms for a layer that is visited so often."""
    if visits == 1:
        return norm
    return lambda dim: OwnNorms([norm(dim) for _ in range(visits)])
