"""Depth use: how large what a span adds is, where it points, and how much what comes later relies on it.

    ratio  = |u| / |h|                                      h the stream before the span, u what it adds, at a place
    cosine = cos(u, h)                                      below 0 it erases, about 0 it adds what is new
    effect(s, l) = |u_l - u_l without s| / |u_l|            for every later span l

`later` is the mean of effect(s, l) over the later spans, norms taken over all places. `future`, where places are a row:
s is left out at the places before a split alone, and this is the share of the effect that falls behind the split; 0
where places do not read each other. `future_answer` is how far the answers behind it go: KL where classes are told
apart, else relative squares. A median is the mean of the batches' medians.

Cost     1 run a batch; L * (1 + splits) half runs of the first `rows`
Exact when the module is run as it is: the sum of all u and the first h is the last h of a residual stream
Papers   do-language-models-use-their-depth
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import product

import pandas as pd
import torch
from torch import Tensor

from shoal.core.base import Measure
from shoal.core.errors import BadSetting
from shoal.core.scene import Scene, answer
from shoal.core.spans import Visit
from shoal.measures._changes import skipped, skipped_before
from shoal.measures._tables import Means, apart, cosine, rows, square, table
from shoal.measures._watching import Update, every_update, watched


class DepthUse(Measure):
    """Settings: `rows`, on how many the effect on later spans is seen; `splits`, at how many places of a row."""

    tiny = {"rows": 4, "splits": 1}

    def __init__(self, *, rows: int = 32, splits: int = 2) -> None:
        if min(rows, splits) < 1:
            raise BadSetting(f"measure depth_use: rows={rows}, splits={splits}; give at least 1 of each")
        self.rows, self.splits = rows, splits

    def table(self, scene: Scene) -> pd.DataFrame:
        means, most = Means(), {span.at: 0.0 for span in scene.spans}
        for _, _, found in every_update(scene):
            for span in scene.spans:
                h, u = (rows(part, span) for part in found[span.at])
                ratio = _over(u.norm(dim=1), h.norm(dim=1))
                means.add(span.at, "stream", h.norm(dim=1))
                means.add(span.at, "added", u.norm(dim=1))
                means.add(span.at, "ratio", ratio)
                means.put(span.at, "ratio_median", float(ratio.median()), len(ratio))
                means.add(span.at, "cosine", cosine(u, h))
                most[span.at] = max(most[span.at], float(ratio.max()))
        columns = {**means.columns(scene), "ratio_max": list(most.values())}
        few = scene.head(self.rows)
        columns["later"] = _mean_later(self._effects(few))
        return table(scene, {**columns, **(self._future(few) if _are_rows(few) else {})})

    def map(self, scene: Scene) -> pd.DataFrame:
        """effect(s, l), a row for every span s that is left out: the largest at any place of the first `rows`."""
        count = len(scene.spans)
        largest = torch.zeros(count, count, dtype=torch.float64)
        for s, base, found in _without(scene.head(self.rows)):
            for at, span in enumerate(scene.spans):
                u, other = (rows(one[span.at].added, span) for one in (base, found))
                off = _over((u - other).norm(dim=1), u.norm(dim=1)).max()
                largest[s, at] = torch.maximum(largest[s, at], off)
        return square(scene, largest)

    def _effects(self, scene: Scene) -> Tensor:
        """(s, l): by the norms over all rows and places."""
        count = len(scene.spans)
        off, size = torch.zeros(2, count, count, dtype=torch.float64)
        for s, base, found in _without(scene):
            for at, span in enumerate(scene.spans):
                u, other = (one[span.at].added.double() for one in (base, found))
                off[s, at] += (u - other).square().sum()
                size[s, at] += u.square().sum()
        return _over(off, size).sqrt()

    def _future(self, scene: Scene) -> dict[str, list[float]]:
        """The share of the effect behind the splits, and how far the answers there went."""
        count, means = len(scene.spans), Means()
        off, size = torch.zeros(2, 2, count, count, dtype=torch.float64)  # before and behind, s, l
        with scene.runs() as runs:
            for batch in scene.batches:
                tape, base = watched(scene, partial(runs.record, batch.example))
                own, length = answer(tape.output), base[scene.spans[0].at].added.shape[1]
                for s, split in product(range(count), _splits(length, self.splits)):
                    changes = skipped_before(scene.spans[s], split)
                    output, again = watched(scene, partial(runs.resume, tape, changes))
                    found = {**base, **again}  # what was not run again is as it was
                    for at, span in enumerate(scene.spans):
                        u, other = (one[span.at].added.double() for one in (base, found))
                        for side, part in enumerate((slice(None, split), slice(split, None))):
                            off[side, s, at] += (u - other)[:, part].square().sum()
                            size[side, s, at] += u[:, part].square().sum()
                    if own.shape[:-1] == (batch.rows, length):
                        far = apart(scene.task, own[:, split:], answer(output)[:, split:])
                        means.add(scene.spans[s].at, "future_answer", far)
        before, behind = (_mean_later(_over(*both).sqrt()) for both in zip(off, size, strict=True))
        share = [b / (a + b) if a + b else 0.0 for a, b in zip(before, behind, strict=True)]
        return {"future": share, **means.columns(scene)}


def _without(scene: Scene) -> Iterator[tuple[int, Mapping[Visit, Update], Mapping[Visit, Update]]]:
    """Batch by batch and span by span: its number, what all spans add, and what they add where it is left out."""
    with scene.runs() as runs:
        for batch in scene.batches:
            tape, base = watched(scene, partial(runs.record, batch.example))
            for s, span in enumerate(scene.spans):
                found = watched(scene, partial(runs.resume, tape, skipped([span])))[1]
                yield s, base, {**base, **found}  # what was not run again is as it was


def _are_rows(scene: Scene) -> bool:
    """Whether all streams are (batch, places, dim) with the same places; rows of a whole batch read each other."""
    first, whole = scene.spans[0].shape, any(batch.whole for batch in scene.batches)
    alike = all((len(span.shape), span.shape[1:2], span.axis) == (3, first[1:2], -1) for span in scene.spans)
    return alike and first[1] > 1 and not whole


def _splits(length: int, count: int) -> list[int]:
    """So many places of a row, evenly spread."""
    return sorted({length * (i + 1) // (count + 1) for i in range(count)} - {0})


def _over(a: Tensor, b: Tensor) -> Tensor:
    """a / b, and 0 where b is."""
    return torch.where(b > 0, a / b.clamp_min(1e-300), torch.zeros_like(a))


def _mean_later(effects: Tensor) -> list[float]:
    """The mean over the later spans; 0 for the last."""
    return [float(row[at + 1 :].mean()) if at + 1 < len(row) else 0.0 for at, row in enumerate(effects)]
