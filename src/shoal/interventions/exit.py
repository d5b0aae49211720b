"""Exit: the run ends behind the span; a linear map from there gives the answer.

    answer = A mean(h) + b        fitted to what the module answers; every place by itself where it answers for each

Papers   dynamic-perceiver-for-efficient-visual-recognition
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from shoal.core.base import Intervention
from shoal.core.errors import BadSetting
from shoal.core.scene import pooled, rows_of
from shoal.core.spans import Anatomy, Change, Left, Span, Step, Visit
from shoal.interventions._runs import layers


class Exit(Intervention):
    """Settings: `ridge`, added to the diagonal of the squares, as a share of their mean."""

    learns = True

    def __init__(self, *, ridge: float = 1e-3) -> None:
        if ridge < 0:
            raise BadSetting(f"intervention exit: ridge={ridge} is negative; give 0 or more")
        self.ridge = ridge
        self._maps: dict[Visit, tuple[Tensor, bool]] = {}

    def places(self, anatomy: Anatomy) -> Iterator[tuple[Span, ...]]:
        for span in layers(anatomy):
            yield (span,)

    def learn(self, spans: tuple[Span, ...], given: Tensor, made: Tensor, wanted: Tensor) -> None:
        each = wanted.dim() > 2
        x = _features(spans[0], given, made, each).double()
        x = torch.cat((x, x.new_ones(len(x), 1)), dim=1)
        square = x.T @ x
        square.diagonal().add_(self.ridge * square.diagonal().mean())
        y = wanted.reshape(len(x), -1).double()
        self._maps[spans[0].at] = (torch.linalg.lstsq(square, x.T @ y, driver="gelsd").solution, each)

    def changes(self, spans: tuple[Span, ...]) -> Mapping[Visit, Change]:
        span = spans[0]
        matrix, each = self._maps[span.at]

        def change(step: Step) -> Any:
            x = _features(span, step.main, step.run(step.main), each)
            own = matrix.to(x)
            y = x @ own[:-1] + own[-1]
            raise Left(y.unflatten(0, (len(step.main), -1)) if each else y)

        return {span.at: change}


def _features(span: Span, given: Tensor, made: Tensor, each: bool) -> Tensor:
    """(rows, channels) of the stream behind the span: of each place, or the mean over all."""
    stream = given + made if span.branch else made
    return rows_of(stream, span.axis) if each else pooled(stream, span.axis)
