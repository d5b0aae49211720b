"""Inputs: rows as a module takes them, and what it answers; whatever goes through data row by row asks here.

tensor                 module(x);       a row is one of its first axis
dict of tensors        module(**x);     a row is one of the first axis of each

An example, on which a module is run once, may be more (see ``core.example``); it is copied, and rows are not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from shoal.core.scene import answer

Inputs: TypeAlias = Any  # a Tensor, or a dict of them by the names of the module's arguments, as many rows in each


def run_on(module: Callable[..., Any], x: Inputs) -> Any:
    """Whatever a module gives for these rows."""
    return module(**x) if isinstance(x, dict) else module(x)


def answer_to(module: Callable[..., Any], x: Inputs) -> Tensor:
    """The tensor that a module answers these rows with, as ``answer`` finds it. Raises BadModel where there is none."""
    given = run_on(module, x)
    return given if isinstance(given, Tensor) else answer(given)


def count(x: Inputs) -> int:
    """How many rows there are."""
    return len(first(x))


def first(x: Inputs) -> Tensor:
    """The tensor, or the first of the dict."""
    found: Tensor = next(iter(x.values())) if isinstance(x, dict) else x
    return found


def taken(x: Inputs, index: Tensor | slice) -> Inputs:
    """Some of the rows."""
    return {name: value[index] for name, value in x.items()} if isinstance(x, dict) else x[index]


def pieces(x: Inputs, rows: int) -> Iterator[Inputs]:
    """All rows, so many at a time."""
    return (taken(x, slice(start, start + rows)) for start in range(0, count(x), rows))


def placed(x: Inputs, device: torch.device) -> Inputs:
    """The rows on a device."""
    return {name: value.to(device) for name, value in x.items()} if isinstance(x, dict) else x.to(device)


def joined(parts: Sequence[Inputs]) -> Inputs:
    """The rows of several, one after another; all of them have the same names."""
    if isinstance(parts[0], dict):
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return torch.cat(list(parts))
