"""Uniform scaling: the numbers of a bucket go to the nearest of s + 1 levels between their smallest and their largest.

v' = (v - b) / a,   Q(v) = a round(v' s) / s + b        b: the smallest of a bucket, a: its reach, s = 2^bits - 1
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def uniform(values: Tensor, bits: int, bucket: int, *, draws: torch.Generator | None = None) -> Tensor:
    """The values on their levels, bucket by bucket in their order.

    With ``draws`` the rounding is by chance: up as often as the value is near, so that it is right on average.
    """
    flat = values.flatten()
    size = min(bucket, flat.numel())
    rows = F.pad(flat, (0, -flat.numel() % size)).view(-1, size)
    inside = torch.arange(rows.numel(), device=rows.device).view_as(rows) < flat.numel()
    low = rows.masked_fill(~inside, torch.inf).amin(dim=1, keepdim=True)
    reach = rows.masked_fill(~inside, -torch.inf).amax(dim=1, keepdim=True) - low
    levels = 2**bits - 1
    scaled = (rows - low) / reach.masked_fill(reach == 0, 1) * levels
    if draws is None:
        whole = scaled.round()
    else:
        whole = (scaled + torch.rand(scaled.shape, generator=draws, dtype=scaled.dtype)).floor().clamp_max(levels)
    return (whole / levels * reach + low).flatten()[: flat.numel()].view_as(values)
