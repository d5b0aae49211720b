"""Swap: two neighbours change places.

    y = f_i(f_{i+1}(x))

Papers   do-language-models-use-their-depth
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from shoal.core.base import Intervention
from shoal.core.spans import Anatomy, Change, Span, Visit
from shoal.interventions._order import in_order
from shoal.interventions._runs import neighbours


class Swap(Intervention):
    """No settings."""

    def places(self, anatomy: Anatomy) -> Iterator[tuple[Span, ...]]:
        yield from neighbours(anatomy, 2)

    def changes(self, spans: tuple[Span, ...]) -> Mapping[Visit, Change]:
        return in_order(spans, (1, 0))
