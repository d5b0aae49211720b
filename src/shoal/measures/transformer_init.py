"""Transformer init: how the stream grows span by span, whether its places grow alike, and what reaches the answer.

    stream      mean square of the stream before the span
    added       mean square of what it adds to that
    alike_in    mean product of two places of an example, over the mean square of one; 1 where all are the same
    alike_out   the same, of the stream behind the span
    gain        E |da|^2 / |dh|^2: how far the answer moves where the stream behind the span does, mean squares

In a transformer with norms before its branches, at its start, the stream grows by the same sum at each layer, its
places grow alike as attention adds to each the mean of all, and no gain vanishes. Where an example is one place alone,
two examples are compared instead.

Cost     two runs from every span to the end on `rows` examples
Exact when all that follows a span is linear (gain); the rest always
Papers   effective-theory-of-transformers-at-initialization
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from pandas import DataFrame
from torch import Tensor

from shoal.core.base import Measure
from shoal.core.errors import BadSetting
from shoal.core.resuming import Resumable, Tape
from shoal.core.scene import Scene, answer
from shoal.core.spans import Change, Span, Step
from shoal.measures._alone import at_least, drawing, share, squares
from shoal.measures._tables import table
from shoal.measures._watching import Update, watched


class TransformerInit(Measure):
    """Settings: `rows` that are looked at; `step`, how far the stream is moved, as a share of its size."""

    tiny = {"rows": 8}

    def __init__(self, *, rows: int = 32, step: float = 1e-3) -> None:
        if not 0 < step < 1:
            raise BadSetting(f"measure transformer_init: step={step} is no small share; give one within 0 and 1")
        self.rows, self.step = at_least("transformer_init", "rows", rows, 1), step

    def table(self, scene: Scene) -> DataFrame:
        few = scene.head(self.rows)
        sums = np.zeros((len(few.spans), 8))
        drawn = drawing(scene.seed)
        with few.runs() as runs:
            for batch in few.batches:
                tape, updates = watched(few, partial(runs.record, batch.example))
                sums += [
                    [*_stream(span, updates[span.at]), *self._gain(runs, tape, span, updates[span.at], drawn)]
                    for span in few.spans
                ]
        return table(
            scene,
            {
                "stream": [share(x, n) for x, _, _, _, _, n, _, _ in sums],
                "added": [share(by, n) for _, by, _, _, _, n, _, _ in sums],
                "alike_in": [share(two, x) for x, _, two, _, _, _, _, _ in sums],
                "alike_out": [share(two, y) for _, _, _, y, two, _, _, _ in sums],
                "gain": [share(moved, by) for *_, moved, by in sums],
            },
        )

    def _gain(self, runs: Resumable, tape: Tape, span: Span, found: Update, drawn: torch.Generator) -> list[float]:
        """Mean squares of how far the answer moved, and of how far the stream was, times the rows."""
        stream = found.behind
        size = float(stream.double().square().mean().sqrt()) or 1.0
        v = (size * torch.randn(stream.shape, generator=drawn, dtype=torch.float64)).to(stream)
        there, back = (answer(runs.resume(tape, {span.at: _moved(by * v)})) for by in (self.step, -self.step))
        moved = (there - back).double() / (2 * self.step)
        rows = len(stream)
        return [rows * float(moved.square().mean()), rows * float(v.double().square().mean())]


def _moved(by: Tensor) -> Change:
    def change(step: Step) -> Any:
        return step.give(step.run(step.main) + by)

    return change


def _stream(span: Span, found: Update) -> list[float]:
    """Sums over a batch: squares that go in, that are added, products of places; the same behind; how many numbers."""
    given, made = (x.movedim(span.axis, -1).double() for x in (found.stream, found.behind))
    return [squares(given), squares(found.added), _across(given), squares(made), _across(made), given.numel()]


def _across(x: Tensor) -> float:
    """The sum of |x|^2 of all places, were each product of two places of an example the square of one."""
    places = x.unsqueeze(0) if x.dim() == 2 else x.flatten(1, -2)
    if places.shape[1] == 1:
        places = places.transpose(0, 1)
    count = places.shape[1]
    if count == 1:
        return squares(places)
    return (squares(places.sum(dim=1)) - squares(places)) / (count - 1)
