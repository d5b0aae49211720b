"""Images to lay out, and how a weight lies in memory."""

from __future__ import annotations

import torch
from torch import Tensor


def images(rows: int) -> tuple[Tensor, Tensor]:
    """Noise of 8 x 8 in three channels; the class is whether it is bright."""
    x = torch.randn(rows, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    return x, (x.mean(dim=(1, 2, 3)) > 0).long()


def last(weight: Tensor) -> bool:
    """Whether its channels come last, and not first as well."""
    return weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()
