"""Mode connectivity: how far the loss rises on the straight way from a span's weights to those of another network.

    barrier     max_t  L(theta_t) - (1 - t) L(theta_0) - t L(theta_1)        that span alone moves
    up_to       the same where all spans up to it move together
    random      the same on a random way of equal length, weight by weight
    curvature   d' H d at the module's weights; a parabola would lie t (1 - t) / 2 of it below the straight line
    distance    |d| / |theta|

`other` is a file of weights of the same module, trained from another seed or later on. Running statistics are taken
anew at every point. Without targets the module's own answers are asked for. Visits of one module share their numbers.

Cost     3 * `steps` + 9 runs of `rows` examples a span, twice as many with batch norms
Papers   layer-wise-linear-mode-connectivity, landscaping-linear-mode-connectivity
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from pandas import DataFrame
from torch import Tensor

from shoal.core.base import Measure
from shoal.core.errors import Refused
from shoal.core.scene import Scene
from shoal.measures._alone import at_least
from shoal.measures._paths import Line, read_weights
from shoal.measures._tables import table


class ModeConnectivity(Measure):
    """Settings: `other`, the file of the other weights (safetensors); `steps` between the ends; `rows` that are looked
    at."""

    tiny = {"steps": 2, "rows": 8}

    def __init__(self, *, other: str = "", steps: int = 5, rows: int = 256) -> None:
        self.other = other
        self.steps = at_least("mode_connectivity", "steps", steps, 1)
        self.rows = at_least("mode_connectivity", "rows", rows, 1)

    def table(self, scene: Scene) -> DataFrame:
        if not self.other:
            raise Refused(
                "measure mode_connectivity: it needs the weights at the other end; "
                "write mode_connectivity[other=file.safetensors]"
            )
        line = Line(scene.head(self.rows), read_weights(self.other))
        astray = line.astray(scene.seed)
        found: dict[str, tuple[float, ...]] = {}
        moving: list[str] = []
        for span in scene.spans:
            if span.path in found:
                continue
            names = line.of(span.path)
            moving += [name for name in names if name not in moving]
            found[span.path] = (
                line.barrier(names, self.steps),
                line.barrier(moving, self.steps),
                astray.barrier(names, self.steps),
                line.curvature(names),
                line.distance(names),
            )
        columns = zip(*(found[span.path] for span in scene.spans), strict=True)
        return table(scene, dict(zip(("barrier", "up_to", "random", "curvature", "distance"), columns, strict=True)))

    def barriers(self, scene: Scene, other: Mapping[str, Tensor], sets: Sequence[Collection[str]]) -> list[float]:
        """The barrier towards other weights where just these weights move, for each set of names."""
        line = Line(scene.head(self.rows), other)
        return [line.barrier(names, self.steps) for names in sets]
