"""Inputs: shapes as people write them, and tensors of such shapes to run something on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from shoal.core.errors import BadSetting
from shoal.core.example import tensors
from shoal.costing.table import Shape

WRITTEN = re.compile(r"([1-9]\d*(?:x[1-9]\d*)*)(?::(\w+))?")
TYPES = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "uint8", "bool")


class Input(NamedTuple):
    """The shape of a tensor, and its type where it was said."""

    shape: Shape
    dtype: str | None = None

    def __str__(self) -> str:
        return "x".join(map(str, self.shape)) + (f":{self.dtype}" if self.dtype not in (None, "float32") else "")


class Given(NamedTuple):
    """What was said of the input: its shapes, or data, or neither; and how many rows."""

    inputs: tuple[Input, ...] = ()
    data: str | None = None
    target: str | None = None
    batch: int | None = None


def read_input(text: str) -> Input:
    """``1x8x8x1`` or ``1x16:int64``. Raises BadSetting for anything else."""
    found = WRITTEN.fullmatch(text)
    if found is None or found[2] not in (None, *TYPES):
        known = ", ".join(TYPES)
        raise BadSetting(f"--input {text!r}: is no shape; write 1x8x8x1, batch first, or 1x16:int64 (types: {known})")
    return Input(tuple(int(size) for size in found[1].split("x")), found[2])


def drawn(given: Input) -> Tensor:
    """A tensor to run on: normal numbers, always the same; zeros for whole ones, which are valid as indices."""
    dtype: torch.dtype = getattr(torch, given.dtype or "float32")
    if not dtype.is_floating_point:
        return torch.zeros(given.shape, dtype=dtype)
    return torch.randn(given.shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def example_of(inputs: Sequence[Input]) -> Any:
    """What a module is called with: a tensor, or a tuple of several."""
    made = tuple(drawn(each) for each in inputs)
    return made[0] if len(made) == 1 else made


def told(example: Any) -> str:
    """The shapes in an example: ``1x8x8x1, 1x16:int64``."""
    found = [Input(tuple(x.shape), str(x.dtype).removeprefix("torch.")) for x in tensors(example)]
    return ", ".join(map(str, found)) or "nothing"
