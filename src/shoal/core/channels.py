"""Channels: which convolutions of a module have weights that lie in memory with their channels first."""

from __future__ import annotations

import torch
from torch import nn


def channels_first(module: nn.Module) -> tuple[str, ...]:
    """Paths of the convolutions whose weights lie with channels first; to depthwise ones it makes no difference."""
    found = []
    for path, part in module.named_modules():
        if not isinstance(part, nn.Conv2d) or part.groups > 1:
            continue
        weight = part._parameters.get("weight")  # none where it is made of others
        if weight is None or not weight.is_contiguous():
            continue
        if not weight.is_contiguous(memory_format=torch.channels_last):
            found.append(path)
    return tuple(found)
