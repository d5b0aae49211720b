"""Spans: the words in which the anatomy of a module is told to those who edit it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten


class Visit(NamedTuple):
    """The n-th time that a run comes to a module; modules that are shared or looped are visited more than once."""

    path: str
    number: int = 0


Forward: TypeAlias = Callable[..., Any]


class Step(NamedTuple):
    """A span about to be run: its path, what it is called with, what it gave when nothing was changed, and the
    forwards of all parts by path."""

    path: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Any
    forwards: Mapping[str, Forward]

    @property
    def main(self) -> Tensor:
        """The tensor that it works on: the first in its arguments."""
        return _first((self.args, self.kwargs))

    def run(self, x: Tensor, path: str | None = None) -> Tensor:
        """What it gives for another main tensor, or another part in its place: the main one of its outputs.

        Whatever else it is called with may remember (a transformer's cache of keys does): each run has a copy.
        """
        forward = self.forwards[self.path if path is None else path]
        args, kwargs = _with((self.args, self.kwargs), x, deepcopy)
        return _first(forward(*args, **kwargs))

    def give(self, y: Tensor) -> Any:
        """Its output with another main tensor; what else was in it stays."""
        return _with(self.out, y)


Change: TypeAlias = Callable[[Step], Any]  # what the span gives instead


def _with(tree: Any, x: Tensor, copied: Callable[[Any], Any] = lambda leaf: leaf) -> Any:
    """The tree with another first tensor; leaves that are no tensors go through ``copied``."""
    leaves, shape = tree_flatten(tree)
    at = next(i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor))
    others = [leaf if isinstance(leaf, Tensor) else copied(leaf) for leaf in leaves]
    return tree_unflatten([*others[:at], x, *others[at + 1 :]], shape)


def _first(tree: Any) -> Tensor:
    return next(leaf for leaf in tree_flatten(tree)[0] if isinstance(leaf, Tensor))


class Left(Exception):
    """No error: a change raises it to end a run in the middle; ``answer`` is what the module then gives."""

    def __init__(self, answer: Any) -> None:
        super().__init__("the run was left")
        self.answer = answer


@dataclass(frozen=True)
class Span:
    """One editable module. ``branch``: somebody else adds it to a stream; ``skip``: it carries a skip of its own.

    ``visit``: which of its visits this is; ``direct``: a branch whose input is the very stream that it is added to, no
    learned scale between; ``axis``: where its channels are, 1 where it convolves channels first, else -1; ``form``: how
    it is called, the number of arguments by position and the names of the others; ``written``: whether somebody writes
    to what it takes or gives when it is over, so that one may not stand for the other.
    """

    path: str
    branch: bool
    skip: bool
    sums: int  # additions to the stream inside it: 1 for a residual block, 2 for a transformer layer
    params: int
    shape: tuple[int, ...]  # of what it gives, on the example
    visit: int = 0
    direct: bool = False
    axis: int = -1
    form: tuple[str, ...] = ()
    written: bool = False

    @property
    def parent(self) -> str:
        """The path of the module that it is a part of."""
        return self.path.rpartition(".")[0]

    @property
    def at(self) -> Visit:
        """Its visit."""
        return Visit(self.path, self.visit)


@dataclass(frozen=True)
class Anatomy:
    """Spans in the order they run; runs of neighbours that read each other; foldable pairs; what was left alone.

    ``visits``: what can be looked at: the same, but modules that are shared or looped stand there once for every visit,
    and those that are called by keywords or give more than a tensor stand there too.
    """

    spans: tuple[Span, ...]
    chains: tuple[tuple[str, ...], ...]  # stream spans of which each reads what the one before gave
    folds: tuple[tuple[str, str], ...]  # (matrix, norm or matrix that alone reads it), both by path
    left: Mapping[str, str]  # path -> one line why it is not edited
    visits: tuple[Span, ...] = ()
    unvisited: Mapping[str, str] = field(default_factory=dict)  # path -> one line why it is not looked at either
