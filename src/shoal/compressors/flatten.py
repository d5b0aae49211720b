"""Flatten: neighbours of a residual stage side by side, and merged into one wide layer.

    x + f(x) + g(x + f(x))  ->  x + [f g](x)

Depth goes and weights stay: what is lost is only that the later layer no longer reads what the earlier one adds.
Where layers cannot be merged exactly (their block says how), nothing is proposed: side by side alone is no faster.

Papers   make-deep-networks-shallow-again
"""

from __future__ import annotations

from collections.abc import Iterator

from shoal.core.base import Compressor, Proposal
from shoal.core.errors import Refused
from shoal.core.scene import Scene
from shoal.edits.merge import Merge
from shoal.edits.parallel import Parallel
from shoal.net import Net
from shoal.recipe import rewritten


class Flatten(Compressor):
    """No settings."""

    def propose(self, scene: Scene) -> Iterator[Proposal]:
        module = scene.module
        if not isinstance(module, Net):
            return
        for stage, found in enumerate(module.spec.stages):
            for first in range(len(found.layers) - 1):
                paths = tuple(f"stages.{stage}.layers.{index}" for index in (first, first + 1))
                edits = (Parallel(paths=paths), Merge(paths=paths))
                if _possible(module, edits):
                    yield Proposal(edits, paths, into=paths[0])


def _possible(net: Net, edits: tuple[Parallel, Merge]) -> bool:
    try:
        rewritten(net, edits)
    except Refused:
        return False
    return True
