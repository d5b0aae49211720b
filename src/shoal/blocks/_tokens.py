"""Tokens: the helpers of blocks that treat all places as one row."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from shoal.core.errors import BadModel, BadSetting


def checked(block: str, places: int) -> int:
    """How many places the longest row has; BadSetting where that is none."""
    if places < 1:
        raise BadSetting(f"block {block}: places={places}; give at least 1")
    return places


def columns(block: str, x: Tensor, places: int) -> Tensor:
    """(batch, *places, dim) as (batch, dim, places): a row a channel, filled up with zeros where it is shorter."""
    rows = x.flatten(1, -2).transpose(1, 2)
    short = places - rows.shape[-1]
    if short < 0:
        raise BadModel(f"block {block}: {rows.shape[-1]} places come in, it is made for {places}; set places higher")
    return F.pad(rows, (0, short)) if short else rows


def back(y: Tensor, like: Tensor) -> Tensor:
    """The inverse of :func:`columns`: (batch, dim, places) with the places of ``like``."""
    shape = like.shape[1:-1]
    return y[..., : shape.numel()].transpose(1, 2).unflatten(1, shape)


def at_first(y: Tensor, like: Tensor) -> Tensor:
    """(batch, 1, dim) at the first place of ``like``, and zeros at all others."""
    shape = like.shape[1:-1]
    return F.pad(y, (0, 0, 0, shape.numel() - 1)).unflatten(1, shape)
