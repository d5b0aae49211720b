"""What the interventions share: which spans are layers on one stream, and runs of such neighbours."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from shoal.core.errors import BadSetting
from shoal.core.spans import Anatomy, Span


def layers(anatomy: Anatomy) -> list[Span]:
    """The spans that read the very stream that they change: all but branches behind a norm of somebody else's."""
    return [span for span in anatomy.visits if not span.branch or span.direct]


def neighbours(anatomy: Anatomy, length: int) -> Iterator[tuple[Span, ...]]:
    """Runs of that many layers that follow each other under one parent, alike in shape, in kind and in their call."""
    found = layers(anatomy)
    for start in range(len(found) - length + 1):
        run = tuple(found[start : start + length])
        first = run[0]
        kind = (first.parent, first.shape, first.branch, first.axis, first.form)
        if all((span.parent, span.shape, span.branch, span.axis, span.form) == kind for span in run):
            yield run


def gone(span: Span, x: Tensor) -> Tensor:
    """What is there without the span: nothing where it is added to a stream, else its input."""
    return torch.zeros_like(x) if span.branch else x.clone() if span.written else x


def added(span: Span, x: Tensor, y: Tensor) -> Tensor:
    """What the span adds to the stream x, where it gives y."""
    return y if span.branch else y - x


def at_least(name: str, setting: str, value: int, least: int) -> int:
    """The value; BadSetting where it is less."""
    if value < least:
        raise BadSetting(f"intervention {name}: {setting}={value} is too few; give at least {least}")
    return value
