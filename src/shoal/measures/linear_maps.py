"""Linear maps: how well the stream behind one span tells that behind another, by a linear map.

    error(i, j) = sum |A h_i + b - h_j|^2 / sum |h_j - mean|^2      A, b fitted on every second row, the error on others

The streams are means over all places. `to_next`, `to_last`: to the stream behind the next span and behind the last; the
last is its own next. `between` does the same for two modules on the same rows: where a deep one does no more than a
shallow one, only slower, the least errors lie where both are equally far in.

Cost     1 run a batch, L^2 solutions of dim^2 numbers; `rows` pooled streams are kept
Exact when a map is exactly linear: then the error is that of the ridge
Papers   do-language-models-use-their-depth
"""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor

from shoal.core.base import Measure
from shoal.core.errors import BadData, BadSetting
from shoal.core.scene import Scene, pooled
from shoal.measures._tables import square, table
from shoal.measures._watching import every_update


class LinearMaps(Measure):
    """Settings: `rows`, at most so many; `ridge`, added to the diagonal of the squares, as a share of their mean."""

    def __init__(self, *, rows: int = 2048, ridge: float = 1e-6) -> None:
        if rows < 4 or ridge < 0:
            raise BadSetting(
                f"measure linear_maps: rows={rows}, ridge={ridge}; give at least 4 rows, and no less than 0"
            )
        self.rows, self.ridge = rows, ridge

    def table(self, scene: Scene) -> pd.DataFrame:
        streams = self._streams(scene)
        nexts = [*streams[1:], streams[-1]]
        return table(
            scene,
            {
                "to_next": [self._error(x, y) for x, y in zip(streams, nexts, strict=True)],
                "to_last": [self._error(x, streams[-1]) for x in streams],
            },
        )

    def between(self, scene: Scene, other: Scene) -> pd.DataFrame:
        """error(i, j), a row for every span of the first module and a column for every span of the other."""
        ones, others = self._streams(scene), self._streams(other)
        if len(ones[0]) != len(others[0]):
            raise BadData(f"linear_maps: {len(ones[0])} rows and {len(others[0])}; give both modules the same batches")
        return square(scene, torch.tensor([[self._error(x, y) for y in others] for x in ones]).double(), other)

    def _streams(self, scene: Scene) -> list[Tensor]:
        """(rows, channels) behind every span."""
        kept: list[list[Tensor]] = [[] for _ in scene.spans]
        for _, _, found in every_update(scene.head(self.rows)):
            for streams, span in zip(kept, scene.spans, strict=True):
                streams.append(pooled(found[span.at].behind, span.axis).double())
        return [torch.cat(streams) for streams in kept]

    def _error(self, x: Tensor, y: Tensor) -> float:
        middle = x[::2].mean(dim=0), y[::2].mean(dim=0)
        x, y = x - middle[0], y - middle[1]
        square = x[::2].T @ x[::2]
        square.diagonal().add_(self.ridge * square.diagonal().mean())
        own = torch.linalg.lstsq(square, x[::2].T @ y[::2], driver="gelsd").solution
        left, spread = (y[1::2] - x[1::2] @ own).square().sum(), y[1::2].square().sum()
        return float(left / spread) if spread > 0 else 0.0
