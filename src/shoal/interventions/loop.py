"""Loop: the span is gone through several times, each time on what it gave before.

    stream   y = f(f(x))
    branch   y = f(x) + f(x + f(x))

Papers   skip-a-layer-or-loop-it
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from shoal.core.base import Intervention
from shoal.core.spans import Anatomy, Change, Span, Step, Visit
from shoal.interventions._runs import at_least, layers


class Loop(Intervention):
    """Settings: `times`, how often the span is run."""

    def __init__(self, *, times: int = 2) -> None:
        self.times = at_least("loop", "times", times, 2)

    def places(self, anatomy: Anatomy) -> Iterator[tuple[Span, ...]]:
        for span in layers(anatomy):
            yield (span,)

    def changes(self, spans: tuple[Span, ...]) -> Mapping[Visit, Change]:
        span = spans[0]

        def change(step: Step) -> Any:
            x = step.main
            for _ in range(self.times):
                y = step.run(x)
                x = x + y if span.branch else y
            return step.give(x - step.main if span.branch else x)

        return {span.at: change}
