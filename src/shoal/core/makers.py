"""Makers: matrices and norms whose kind is already chosen, for those who build with them.

offers(norm) is what the house has for whoever asks: a method's constructor asks by naming an argument `linear` or
`norm` behind those it is given by position.
"""

from __future__ import annotations

from typing import Any

from shoal.core.base import Linear, MakeLinear, MakeNorm, Norm
from shoal.core.part import Part
from shoal.kinds import LINEARS, NORMS


def linear_maker(part: Part) -> MakeLinear:
    """A MakeLinear of that kind."""

    def make(inputs: int, outputs: int, *, bias: bool = True, kernel: tuple[int, ...] = (), groups: int = 1) -> Linear:
        made: Linear = LINEARS.make(part, inputs, outputs, bias, kernel, groups)
        return made

    return make


def norm_maker(part: Part) -> MakeNorm:
    """A MakeNorm of that kind."""

    def make(dim: int) -> Norm:
        made: Norm = NORMS.make(part, dim, dim=dim)
        return made

    return make


DENSE = linear_maker(Part("dense"))


def offers(norm: Part) -> dict[str, Any]:
    """What stands between layers may ask for: dense matrices, and norms of the kind that the layers have."""
    return {"linear": DENSE, "norm": norm_maker(norm)}
