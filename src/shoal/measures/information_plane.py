"""Information plane: what the stream behind a span still tells of the example, and of what is asked for, in bits.

    I(X; T) = H(T),    I(T; Y) = H(T) + H(Y) - H(T, Y)        T: every channel in one of `bins` equal bins

A module without noise makes T of X, so what it tells of X is its own entropy. Places are averaged; the bins lie between
the smallest and the largest number of the span. Y is the target where it is one a row, else what the module answers:
its largest class, or its number, binned. With so many channels that every example has a pattern of its own, H(T) is the
logarithm of the rows and I(T; Y) is H(Y); and where activations do not saturate, as with ReLU, the compression that the
paper tells of need not be there.

Cost     2 runs a batch; a number a row and span is kept
Papers   opening-the-black-box-of-deep
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from shoal.core.base import Measure
from shoal.core.errors import BadSetting, Refused
from shoal.core.scene import Batch, Scene, answer, pooled
from shoal.core.spans import Visit
from shoal.measures._tables import table
from shoal.measures._watching import every_update

Codes = NDArray[np.int64]


class InformationPlane(Measure):
    """Settings: `bins`, how many between the smallest and the largest number."""

    def __init__(self, *, bins: int = 30) -> None:
        if bins < 2:
            raise BadSetting(f"measure information_plane: bins={bins} tell nothing; give at least 2")
        self.bins = bins

    def table(self, scene: Scene) -> pd.DataFrame:
        ranges = _ranges(scene)
        patterns: dict[Visit, list[int]] = {span.at: [] for span in scene.spans}
        told: list[Tensor] = []
        for batch, tape, found in every_update(scene):
            told.append(_asked(batch, answer(tape.output)))
            for span in scene.spans:
                binned = _binned(pooled(found[span.at].behind, span.axis), *ranges[span.at], self.bins)
                patterns[span.at] += [hash(row.tobytes()) for row in binned]  # equal rows, equal numbers
        y = self._codes(told)
        short = [span for span in scene.spans if len(patterns[span.at]) != len(y)]
        if short:
            raise Refused(
                f"measure information_plane: {short[0].path} holds {len(patterns[short[0].at])} rows and {len(y)} are "
                "asked for; leave it out for modules that answer for some rows only"
            )
        codes = [np.unique(np.array(patterns[span.at]), return_inverse=True)[1] for span in scene.spans]
        return table(
            scene,
            {
                "about_input": [_entropy(t) for t in codes],
                "about_target": [max(0.0, _entropy(t) + _entropy(y) - _entropy(t, y)) for t in codes],
            },
        )

    def _codes(self, told: list[Tensor]) -> Codes:
        """What is asked for as whole numbers."""
        y = torch.cat(told)
        if y.is_floating_point():
            y = torch.from_numpy(_binned(y, y.min(), y.max(), self.bins))
        codes: Codes = np.unique(y.numpy(), return_inverse=True)[1].astype(np.int64)
        return codes


def _ranges(scene: Scene) -> Mapping[Visit, tuple[Tensor, Tensor]]:
    """The smallest and the largest number behind every span."""
    found: dict[Visit, tuple[Tensor, Tensor]] = {}
    for _, _, updates in every_update(scene):
        for span in scene.spans:
            x = pooled(updates[span.at].behind, span.axis)
            low, high = found.get(span.at, (x.min(), x.max()))
            found[span.at] = torch.minimum(low, x.min()), torch.maximum(high, x.max())
    return found


def _binned(x: Tensor, low: Tensor, high: Tensor, bins: int) -> NDArray[Any]:
    """Which of the equal bins between low and high each number falls into."""
    width = ((high - low).double() / bins).clamp_min(1e-300)
    return ((x.double() - low) / width).floor().clamp(0, bins - 1).to(torch.int16).numpy()


def _asked(batch: Batch, output: Tensor) -> Tensor:
    """(rows,) whole numbers where classes are asked for, else numbers."""
    if batch.target is not None and batch.target.numel() == len(batch.target):
        return batch.target.flatten()
    each = output if output.dim() == 2 else output.flatten(1, -2).mean(dim=1) if output.dim() > 2 else output[:, None]
    return each[:, 0] if each.shape[1] == 1 else each.argmax(dim=1)


def _entropy(*codes: Codes) -> float:
    """In bits, of what all codes say together."""
    count = np.unique(np.stack(codes), axis=1, return_counts=True)[1]
    share = count / count.sum()
    return float(-(share * np.log2(share)).sum()) + 0.0
