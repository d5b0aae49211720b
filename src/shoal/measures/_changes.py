"""Changes: what measures do to a span in a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from shoal.core.example import tensors
from shoal.core.spans import Change, Span, Step, Visit


def gone(span: Span, x: Tensor) -> Tensor:
    """What is there without the span: nothing where it is added to a stream, else its input."""
    return torch.zeros_like(x) if span.branch else x


def skipped(spans: Sequence[Span]) -> dict[Visit, Change]:
    """All of them left out."""

    def left_out(span: Span) -> Change:
        return lambda step: step.give(gone(span, step.main))

    return {span.at: left_out(span) for span in spans}


def skipped_before(span: Span, place: int) -> dict[Visit, Change]:
    """The span left out at the places of a row before that one; it must be the first that is changed."""

    def change(step: Step) -> Any:
        given = tensors(step.out)[0].clone()  # nothing was changed before it: it gives what it gave
        given[:, :place] = gone(span, step.main)[:, :place]
        return step.give(given)

    return {span.at: change}
