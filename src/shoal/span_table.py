"""Span table: one row a visited span: its place, sizes, cost, time, the harm without it, and its verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import pandas as pd
from torch import nn

from shoal.core.scene import Batch, Scene, cut
from shoal.core.spans import Visit
from shoal.costing import Cost, cost
from shoal.intervening import Effect
from shoal.verdicts import SpanVerdict


def span_table(
    scene: Scene, batch: Batch, skipped: Sequence[Effect], words: Sequence[SpanVerdict], ms: Mapping[Visit, float]
) -> pd.DataFrame:
    """The table. ``skipped`` is what skipping each span did, ``ms`` the milliseconds of each visit; costs are counted
    on a row of the batch."""
    row = cut(batch, 1)
    counted = cost(scene.module, row.example, training=False)
    visits = Counter(span.path for span in scene.spans)
    harm = {one.spans[0].at: one for one in skipped}
    rows = []
    for span, said in zip(scene.spans, words, strict=True):
        one = harm[span.at]
        rows.append(
            {
                "path": span.path,
                "visit": span.visit,
                "kind": "branch" if span.branch else "stream",
                "siblings": sum(other.parent == span.parent for other in scene.spans) - 1,
                "inner": _inner(scene.module.get_submodule(span.path)),
                "params": span.params,
                "macs": _macs(counted, span.path) // visits[span.path] // row.rows,
                "ms": ms[span.at],
                "harm": one.loss.value,
                "harm_low": one.loss.low,
                "harm_high": one.loss.high,
                "quality": one.quality.value,
                "distance": one.distance.value,
                "verdict": said.word,
                "why": said.why,
            }
        )
    return pd.DataFrame(rows)


def _macs(counted: Cost, path: str) -> int:
    """Multiply-adds of a part and all in it, over all its visits."""
    return sum(call.macs for call in counted.calls if f"{call.path}.".startswith(f"{path}."))


def _inner(part: nn.Module) -> str:
    """The widths within: rows of its matrices, in order, as ``64,16``."""
    return ",".join(str(weight.shape[0]) for weight in part.parameters() if weight.dim() > 1)
