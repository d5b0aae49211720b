"""Spans: the words in which the anatomy of a module is told to those who edit it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """One editable module. ``branch``: somebody else adds it to a stream; ``skip``: it carries a skip of its own."""

    path: str
    branch: bool
    skip: bool
    sums: int  # additions to the stream inside it: 1 for a residual block, 2 for a transformer layer
    params: int
    shape: tuple[int, ...]  # of what it gives, on the example


@dataclass(frozen=True)
class Anatomy:
    """Spans in the order they run; runs of neighbours that read each other; foldable pairs; what was left alone."""

    spans: tuple[Span, ...]
    chains: tuple[tuple[str, ...], ...]  # stream spans of which each reads what the one before gave
    folds: tuple[tuple[str, str], ...]  # (matrix, norm or matrix that alone reads it), both by path
    left: Mapping[str, str]  # path -> one line why
