"""What runs beside a strided branch: a join given as text, brought to the branch's stride."""

from __future__ import annotations

from shoal.core.base import Join, MakeLinear
from shoal.core.makers import offers
from shoal.core.part import Part
from shoal.kinds import JOINS

PROJECTION = "convolution[bias=false,kernel=[1,1],norm=batch]"  # option B of the first residual nets


def shortcut_of(text: str, inputs: int, outputs: int, stride: int, linear: MakeLinear, norm: str) -> Join:
    """The join of that text at that stride, with these matrices and norms of that kind."""
    offered = {**offers(Part(norm)), "linear": linear}
    made: Join = JOINS.make(Part.parse(text).with_settings(stride=stride), inputs, outputs, dim=outputs, offers=offered)
    return made
