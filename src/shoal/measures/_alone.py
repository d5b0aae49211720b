"""Alone: a span run by itself, on other inputs than it was given; random numbers and small sums for that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

from shoal.core.errors import BadSetting
from shoal.core.resuming import Resumable, Tape
from shoal.core.spans import Left, Span, Step

APART = 0x5EED5EED

Look: TypeAlias = Callable[[Tensor, Callable[[Tensor], Tensor]], None]


def alone(runs: Resumable, tape: Tape, span: Span, look: Look) -> None:
    """Show ``look`` what goes into a span, and the span as a function of that; nothing behind it is run."""

    def change(step: Step) -> Any:
        look(step.main.clone(), lambda x: step.run(x.clone()))  # it may write to what it reads
        raise Left(step.out)

    runs.resume(tape, {span.at: change})


def drawing(seed: int) -> torch.Generator:
    """Random numbers from a seed; others than a module began with whose weights were drawn from that seed."""
    return torch.Generator().manual_seed(seed ^ APART)


def squares(x: Tensor) -> float:
    """The sum of the squares."""
    return float(x.double().square().sum())


def share(part: float, whole: float) -> float:
    """A part of a whole; 0 where there is nothing."""
    return part / whole if whole > 0 else 0.0


def at_least(name: str, setting: str, value: int, least: int) -> int:
    """The value; BadSetting where it is less."""
    if value < least:
        raise BadSetting(f"measure {name}: {setting}={value} is too few; give at least {least}")
    return value
