"""Skip: the span is left out; a stream passes by, a branch adds nothing.

    stream   y = x
    branch   y = 0

Papers   do-language-models-use-their-depth
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from shoal.core.base import Intervention
from shoal.core.spans import Anatomy, Change, Span, Step, Visit
from shoal.interventions._runs import at_least, gone


class Skip(Intervention):
    """Settings: `run`, how many spans that follow each other are left out together."""

    def __init__(self, *, run: int = 1) -> None:
        self.run = at_least("skip", "run", run, 1)

    def places(self, anatomy: Anatomy) -> Iterator[tuple[Span, ...]]:
        visits = anatomy.visits
        for start in range(len(visits) - self.run + 1):
            yield visits[start : start + self.run]

    def changes(self, spans: tuple[Span, ...]) -> Mapping[Visit, Change]:
        return {span.at: _left_out(span) for span in spans}


def _left_out(span: Span) -> Change:
    def change(step: Step) -> Any:
        return step.give(gone(span, step.main))

    return change
