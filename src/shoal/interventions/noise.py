"""Noise: normal noise is added to what the span gives, as large as a share of it.

    y + share * |y| * e,    e ~ N(0, 1),  |y| the root of the mean square

Papers   the-principles-of-deep-learning-theory
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from shoal.core.base import Intervention
from shoal.core.errors import BadSetting
from shoal.core.spans import Anatomy, Change, Span, Step, Visit


class Noise(Intervention):
    """Settings: `share` of the root mean square of what the span gives; `seed` of the noise, the same at every span."""

    def __init__(self, *, share: float = 0.1, seed: int = 0) -> None:
        if not share > 0:
            raise BadSetting(f"intervention noise: share={share} adds nothing; give more than 0")
        self.share, self.seed = share, seed

    def places(self, anatomy: Anatomy) -> Iterator[tuple[Span, ...]]:
        for span in anatomy.visits:
            yield (span,)

    def changes(self, spans: tuple[Span, ...]) -> Mapping[Visit, Change]:
        def change(step: Step) -> Any:
            y = step.run(step.main)
            drawn = torch.randn(y.shape, generator=torch.Generator().manual_seed(self.seed), dtype=torch.float64)
            return step.give(y + self.share * y.square().mean().sqrt() * drawn.to(y))

        return {spans[0].at: change}
