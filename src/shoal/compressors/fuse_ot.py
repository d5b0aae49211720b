"""Fuse OT: neighbours of a residual stage become one layer, their neurons first laid on each other by transport.

    x + f(x) + g(x)  ->  x + h(x),    h = the mean of what both read with, the sum of what both give

Without being laid on each other, the means of unlike neurons are no neurons. Near are neurons that are active alike, or
that read with like weights. The layer stays as narrow as one of them was.

Exact when the later layer does what the earlier does, in whatever order its neurons stand, and does not read it
Papers   model-fusion-via-optimal-transport
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from shoal.compressors._products import products
from shoal.compressors._proposing import possible
from shoal.compressors._transport import fusible, joined
from shoal.core.base import Compressor, Proposal
from shoal.core.errors import BadSetting
from shoal.core.scene import Scene
from shoal.net import Net


class FuseOT(Compressor):
    """Settings: `layers` that become one; `by`, what neurons that are near have in common; `rows` that they are seen
    on."""

    def __init__(
        self, *, layers: int = 2, by: Literal["activations", "weights"] = "activations", rows: int = 1000
    ) -> None:
        if layers < 2 or rows < 1:
            raise BadSetting(f"compressor fuse_ot: layers={layers}, rows={rows}; give at least 2 layers and 1 row")
        self.layers, self.by, self.rows = layers, by, rows

    def propose(self, scene: Scene) -> Iterator[Proposal]:
        net = scene.module
        if not isinstance(net, Net):
            return
        runs = [run for run in fusible(net) if len(run) >= self.layers]
        paths = [path for run in runs for units in run for path in (*units.makers, *units.readers)]
        seen = products(scene, net, paths, self.rows)
        for run in runs:
            for start in range(len(run) - self.layers + 1):
                some = run[start : start + self.layers]
                if all(path in seen for units in some for path in (*units.makers, *units.readers)):
                    one = joined(net, some, seen, self.by == "weights")
                    if possible(net, one):
                        yield one
