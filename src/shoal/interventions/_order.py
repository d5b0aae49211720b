"""Neighbours in another order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shoal.core.spans import Change, Span, Step, Visit


def in_order(spans: Sequence[Span], order: Sequence[int]) -> Mapping[Visit, Change]:
    """Changes by which ``spans[order[i]]`` runs in the place of ``spans[i]``."""
    return {span.at: _as(spans[index].path) for span, index in zip(spans, order, strict=True)}


def _as(path: str) -> Change:
    def change(step: Step) -> Any:
        return step.give(step.run(step.main, path))

    return change
