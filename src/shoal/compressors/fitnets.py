"""FitNets: a thinner student of the same depth, which learns from hints in the middle of the teacher.

    every inner width of every span is narrowed to the same share; the objective `hints` heals what is left

The heaviest units stay and keep their weights, where the paper's student begins anew; it learns hints first and then
answers, with a weight that falls: `stages` in the objective's file. A span is a proposal: the planner takes them all,
or as many as it needs.

Papers   fitnets-hints-for-thin-deep-nets
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from shoal.compressors._inner import Inner, inner_widths
from shoal.compressors._proposing import possible
from shoal.core.base import Compressor, Proposal
from shoal.core.errors import BadSetting
from shoal.core.scene import Scene
from shoal.net import Net


class FitNets(Compressor):
    """Settings: `share` of every inner width that stays."""

    objective: ClassVar[str | None] = "hints"

    def __init__(self, *, share: float = 0.5) -> None:
        if not 0 < share < 1:
            raise BadSetting(f"compressor fitnets: share={share} keeps nothing or all; give between 0 and 1")
        self.share = share

    def propose(self, scene: Scene) -> Iterator[Proposal]:
        found: dict[str, list[Inner]] = {}
        for width in inner_widths(scene):
            if self._kept(width) < width.count:
                found.setdefault(width.path, []).append(width)
        for path, widths in found.items():
            proposal = Proposal(tuple(width.first(self._kept(width)) for width in widths), (path,), into=path)
            if not isinstance(scene.module, Net) or possible(scene.module, proposal):
                yield proposal

    def _kept(self, width: Inner) -> int:
        return max(1, round(self.share * width.count))
