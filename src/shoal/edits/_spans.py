"""Spans: what stands where a span of a stranger was replaced by a linear map, and how anything is put there."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from shoal.edits._surgery import PassThrough, submodule

_CONVOLUTIONS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class LinearSpan(nn.Module):
    """x + W x + b, or W x + b where somebody else adds it; the map begins at zero.

    ``places``: how many axes stand behind the channels; 0 where channels are last. Whatever else it is called with
    (masks) is not read.
    """

    def __init__(self, channels: int, places: int, branch: bool) -> None:
        super().__init__()
        sizes = (channels, channels) if places == 0 else (channels, channels, 1)
        self.map = torch.nn.utils.skip_init(_CONVOLUTIONS[places], *sizes)
        self.branch = branch
        with torch.no_grad():
            for value in self.map.parameters():
                value.zero_()

    def forward(self, x: Tensor, *_: Any, **__: Any) -> Tensor:
        y: Tensor = self.map(x)
        return y if self.branch else x + y


def put(module: nn.Module, path: str, new: nn.Module) -> nn.Module:
    """The module with another one at a path. A stack of torch's transformer layers goes on without looking into it."""
    like = PassThrough(like=submodule(module, path))
    if hasattr(like, "self_attn"):
        new.self_attn = like.self_attn
    if path == "":
        return new
    module.set_submodule(path, new)
    stack = module.get_submodule(".".join(path.split(".")[:-2]))
    if isinstance(stack, nn.TransformerEncoder):
        stack.use_nested_tensor = False  # that way reads the weights of the first layer
    return module
