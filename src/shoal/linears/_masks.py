"""Masks: where a matrix may have weights, by what each of them is worth."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from shoal.core.errors import BadSetting


def checked(what: str, density: float, of: int) -> None:
    """BadSetting where nothing could be kept so."""
    if not 0 < density <= 1:
        raise BadSetting(f"{what}: density={density} is no share of the weights; give more than 0 and at most 1")
    if of < 0:
        raise BadSetting(f"{what}: of={of} is no number of inputs; give 0 for the whole matrix, 4 for 2:4")


def mask_of(worth: Tensor, density: float, of: int = 0) -> Tensor:
    """True where the worthiest are: a share of all weights, or of every ``of`` neighbouring inputs of a row.

    ``worth``: (outputs, inputs, *kernel). At least one is kept; of a last, shorter run as many as of
    the others.
    """
    if not of:
        flat = worth.flatten()
        return _largest(flat, max(1, round(density * len(flat)))).view_as(worth)
    rows = worth.movedim(1, -1)
    runs = F.pad(rows, (0, -rows.shape[-1] % of), value=-torch.inf).unflatten(-1, (-1, of))
    kept = _largest(runs, max(1, round(density * of))).flatten(-2)
    return kept[..., : rows.shape[-1]].movedim(-1, 1).contiguous()


def _largest(worth: Tensor, count: int) -> Tensor:
    """True at the ``count`` largest along the last axis."""
    found = worth.topk(count, dim=-1).indices
    return torch.zeros_like(worth, dtype=torch.bool).scatter(-1, found, True)
