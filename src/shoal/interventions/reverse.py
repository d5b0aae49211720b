"""Reverse: a run of neighbours is gone through backwards.

    y = f_i(... f_{i+n-1}(x))

Papers   do-language-models-use-their-depth
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from shoal.core.base import Intervention
from shoal.core.spans import Anatomy, Change, Span, Visit
from shoal.interventions._order import in_order
from shoal.interventions._runs import at_least, neighbours


class Reverse(Intervention):
    """Settings: `run`, how many neighbours; 2 of them reversed are 2 swapped."""

    def __init__(self, *, run: int = 3) -> None:
        self.run = at_least("reverse", "run", run, 2)

    def places(self, anatomy: Anatomy) -> Iterator[tuple[Span, ...]]:
        yield from neighbours(anatomy, self.run)

    def changes(self, spans: tuple[Span, ...]) -> Mapping[Visit, Change]:
        return in_order(spans, tuple(reversed(range(len(spans)))))
