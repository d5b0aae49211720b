"""Direct effect: how much a span relies on what an earlier one added, all between them as it was.

    direct(s, l) = |u_l(h_l) - u_l(h_l - u_s)| / |u_l(h_l)|       h_l the stream that l reads, u what spans add to it

`direct` is the mean over the later spans, norms taken over all places; next to `later` of depth_use it tells what goes
straight from what comes about by way of others. `read` is the mean over the earlier ones, s and l changed about. Spans
that read a stream of another shape, or only through a norm that is not theirs, are left out; 0 where none is left for
a span. Refused where all read through such norms.

Cost     1 run a batch, and L^2 / 2 runs of one span
Exact when spans add to one stream
Papers   do-language-models-use-their-depth
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pandas as pd
import torch
from torch import Tensor

from shoal.core.base import Measure
from shoal.core.errors import Refused
from shoal.core.scene import Scene
from shoal.core.spans import Span
from shoal.measures._alone import alone, at_least, share
from shoal.measures._tables import square, table
from shoal.measures._watching import watched


class DirectEffect(Measure):
    """Settings: `rows`, on how many."""

    tiny = {"rows": 4}

    def __init__(self, *, rows: int = 32) -> None:
        self.rows = at_least("direct_effect", "rows", rows, 1)

    def table(self, scene: Scene) -> pd.DataFrame:
        effects, seen = self._effects(scene)
        pairs = list(zip(effects, seen, strict=True)), list(zip(effects.T, seen.T, strict=True))
        direct, read = ([share(float(e.sum()), float(s.sum())) for e, s in each] for each in pairs)
        return table(scene, {"direct": direct, "read": read})

    def map(self, scene: Scene) -> pd.DataFrame:
        """direct(s, l), a row for every span s whose addition is taken out; 0 where it was not looked at."""
        return square(scene, self._effects(scene)[0])

    def _effects(self, scene: Scene) -> tuple[Tensor, Tensor]:
        """(s, l) the effects, and 1 where there is one."""
        if not any(_reads(span) for span in scene.spans):
            raise Refused(
                "measure direct_effect: every span reads the stream through a norm of another module; "
                "choose depth_use for such modules"
            )
        count = len(scene.spans)
        off, size, seen = torch.zeros(3, count, count, dtype=torch.float64)
        with scene.runs() as runs:
            for batch in scene.head(self.rows).batches:
                tape, found = watched(scene, partial(runs.record, batch.example))
                added = [found[span.at].added for span in scene.spans]

                def look(x: Tensor, run: Callable[[Tensor], Tensor], at: int, before: list[Tensor]) -> None:
                    own = _adds(scene.spans[at], x, run)
                    for s, u in enumerate(before):
                        if u.shape == x.shape:
                            other = _adds(scene.spans[at], x - u, run)
                            off[s, at] += (own - other).square().sum()
                            size[s, at] += own.square().sum()
                            seen[s, at] = 1

                for at, span in enumerate(scene.spans):
                    if _reads(span):
                        alone(runs, tape, span, partial(look, at=at, before=added[:at]))
        return torch.where(size > 0, off / size.clamp_min(1e-300), torch.zeros_like(off)).sqrt(), seen


def _reads(span: Span) -> bool:
    """Whether it reads the very stream that it changes."""
    return span.direct or not span.branch


def _adds(span: Span, x: Tensor, run: Callable[[Tensor], Tensor]) -> Tensor:
    """What the span adds to the stream."""
    y = run(x)
    return (y if span.branch else y - x).double()
