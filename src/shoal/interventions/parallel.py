"""Parallel: neighbours run side by side, all on what the first of them reads.

    stream   x + sum_i (f_i(x) - x)
    branch   x + sum_i f_i(x)

Papers   make-deep-networks-shallow-again
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from shoal.core.base import Intervention
from shoal.core.spans import Anatomy, Change, Span, Step, Visit
from shoal.interventions._runs import added, at_least, neighbours


class Parallel(Intervention):
    """Settings: `run`, how many neighbours."""

    def __init__(self, *, run: int = 2) -> None:
        self.run = at_least("parallel", "run", run, 2)

    def places(self, anatomy: Anatomy) -> Iterator[tuple[Span, ...]]:
        yield from neighbours(anatomy, self.run)

    def changes(self, spans: tuple[Span, ...]) -> Mapping[Visit, Change]:
        read: list[Tensor] = []  # what the first reads, kept for those beside it

        def first(step: Step) -> Any:
            read[:] = [step.main]
            return step.give(step.run(step.main))

        def beside(span: Span) -> Change:
            def change(step: Step) -> Any:
                y = added(span, read[0], step.run(read[0]))
                return step.give(y if span.branch else step.main + y)

            return change

        return {spans[0].at: first, **{span.at: beside(span) for span in spans[1:]}}
