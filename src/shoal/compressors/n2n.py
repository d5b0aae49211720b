"""N2N: two small policies learn by trial which spans to remove, and then to what share to shrink the widths that stay.

    reward = C (2 - C) * quality of the student / quality of the module,    C = 1 - its weights / those of the module
             -1 where the student cannot be made

A student is the module with the edits done, taught for a few steps to answer as the module does, and its task where
there are targets. The paper's students are taught for epochs, and its policies see thousands of them; here both are
settings, and small. A policy begins inclined to leave things as they are: without much teaching, few students survive
half of all removals.

The best students of the first policy are proposed as they are. On top of the best one the second policy shrinks the
inner widths, the lightest units first; those are proposed a span at a time.

Papers   n2n-learning-network-to-network-compression
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from shoal.compressors._inner import inner_widths
from shoal.compressors._lessons import chance
from shoal.compressors._policy import FACTORS, Keeping, Shrinking, Way, search
from shoal.compressors._students import Trial
from shoal.core.base import Compressor, Proposal
from shoal.core.errors import BadSetting
from shoal.core.scene import Scene
from shoal.core.spans import Span
from shoal.edits.drop import Drop
from shoal.edits.narrow import Narrow


class N2N(Compressor):
    """Settings: `updates` of each policy; `rollouts`, students an update; `steps` of teaching a student gets; `lr` of
    the policies; `students`, how many of the best are proposed; `rows` of the scene that students are judged on."""

    tiny = {"updates": 3}

    def __init__(
        self,
        *,
        updates: int = 20,
        rollouts: int = 5,
        steps: int = 0,
        lr: float = 0.03,
        students: int = 3,
        rows: int = 128,
    ) -> None:
        if min(updates, rollouts, students, rows) < 1 or steps < 0 or not lr > 0:
            told = f"updates={updates}, rollouts={rollouts}, students={students}, rows={rows}, steps={steps}, lr={lr}"
            raise BadSetting(f"compressor n2n: {told}; give at least 1 of each, no steps below 0 and lr above 0")
        self.updates, self.rollouts, self.lr = updates, rollouts, lr
        self.students, self.rows, self.steps = students, rows, steps

    def propose(self, scene: Scene) -> Iterator[Proposal]:
        with chance(scene.seed):  # all of it before the first is given away: chance is not ours in between
            found = self._found(scene, Trial(scene.head(self.rows), self.steps)) if scene.anatomy.spans else []
        yield from found

    def _found(self, scene: Scene, trial: Trial) -> list[Proposal]:
        spans = scene.anatomy.spans
        told = _told(spans)
        rules = {"updates": self.updates, "rollouts": self.rollouts}
        tried = search(Keeping(told.shape[1]), told, lambda way: trial.reward(_drops(spans, way)), lr=self.lr, **rules)
        best = [_drops(spans, way) for way, reward in tried.items() if reward > 0][: self.students]
        removals = [Proposal(drops, tuple(drop.path for drop in reversed(drops))) for drops in best]
        base = best[0] if best else ()
        gone = {drop.path for drop in base}
        widths = [width for width in inner_widths(scene) if width.path not in gone and width.count > 1]
        if not widths:
            return removals

        def narrows(way: Way) -> list[tuple[str, Narrow]]:
            kept = [max(1, round(FACTORS[step] * width.count)) for width, step in zip(widths, way, strict=True)]
            pairs = zip(widths, kept, strict=True)
            return [(width.path, width.first(some)) for width, some in pairs if some < width.count]

        told = torch.tensor([[math.log(width.count), place / len(widths)] for place, width in enumerate(widths)])
        tried = search(
            Shrinking(2),
            told,
            lambda way: trial.reward((*(edit for _, edit in narrows(way)), *base)),
            lr=self.lr,
            **rules,
        )
        way, reward = next(iter(tried.items()))
        edits = narrows(way) if reward > 0 else []
        return removals + [
            Proposal(tuple(edit for where, edit in edits if where == path), (path,), into=path)
            for path in dict.fromkeys(where for where, _ in edits)
        ]


def _drops(spans: Sequence[Span], way: Way) -> tuple[Drop, ...]:
    """The removals of a way, the last first: a Net numbers its layers anew."""
    gone = [span for span, kept in zip(spans, way, strict=True) if not kept]
    return tuple(Drop(path=span.path, branch=span.branch, written=span.written) for span in reversed(gone))


def _told(spans: Sequence[Span]) -> Tensor:
    """A row for each span: where it stands, how large it is, what it gives, how it meets the stream."""
    rows = [
        [
            place / len(spans),
            math.log1p(span.params),
            math.log(math.prod(span.shape)),
            span.skip,
            span.branch,
            span.sums,
        ]
        for place, span in enumerate(spans)
    ]
    return torch.tensor(rows, dtype=torch.float32)
