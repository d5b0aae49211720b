"""Linear map: the span is replaced by the best linear map from what goes in to what comes out.

    y = A x + b,    A, b = argmin sum |A x + b - f(x)|^2        every place by itself, all channels together

Papers   do-language-models-use-their-depth
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from shoal.core.base import Intervention
from shoal.core.errors import BadSetting
from shoal.core.scene import rows_of
from shoal.core.spans import Anatomy, Change, Span, Step, Visit


class LinearMap(Intervention):
    """Settings: `ridge`, added to the diagonal of the squares, as a share of their mean."""

    learns = True

    def __init__(self, *, ridge: float = 1e-6) -> None:
        if ridge < 0:
            raise BadSetting(f"intervention linear_map: ridge={ridge} is negative; give 0 or more")
        self.ridge = ridge
        self._maps: dict[Visit, Tensor] = {}

    def places(self, anatomy: Anatomy) -> Iterator[tuple[Span, ...]]:
        for span in anatomy.visits:
            yield (span,)

    def learn(self, spans: tuple[Span, ...], given: Tensor, made: Tensor, wanted: Tensor) -> None:
        x, y = (rows_of(flow, spans[0].axis).double() for flow in (given, made))
        x = torch.cat((x, x.new_ones(len(x), 1)), dim=1)
        square = x.T @ x
        square.diagonal().add_(self.ridge * square.diagonal().mean())
        self._maps[spans[0].at] = torch.linalg.lstsq(square, x.T @ y, driver="gelsd").solution

    def changes(self, spans: tuple[Span, ...]) -> Mapping[Visit, Change]:
        axis, matrix = spans[0].axis, self._maps[spans[0].at]

        def change(step: Step) -> Any:
            x = step.main.movedim(axis, -1)
            own = matrix.to(x)
            return step.give((x @ own[:-1] + own[-1]).movedim(-1, axis))

        return {spans[0].at: change}
