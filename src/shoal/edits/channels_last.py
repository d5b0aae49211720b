"""ChannelsLast: the weights of convolutions lie in memory with their channels last, and so does what they give.

    (out, in, height, width)  the same numbers, shape and names; neighbours in memory are the channels of one place

Nothing else is computed. On a CPU a convolution of a few rows then reads its input as it lies, where it would have
brought it into another order first, which takes longer than the convolution itself where that is small. A Net has
nothing to do: its states have their channels last anyway.

Exact when always; only rounding differs
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from shoal.core.base import Edit
from shoal.core.errors import Refused
from shoal.core.spec import Spec
from shoal.edits._surgery import submodule


@dataclass(frozen=True, kw_only=True)
class ChannelsLast(Edit):
    """Settings: `paths` of the convolutions; none for a Net."""

    exact: ClassVar[bool] = True
    paths: tuple[str, ...] = ()

    def rewrite(self, spec: Spec, weights: Mapping[str, Tensor]) -> tuple[Spec, dict[str, Tensor]]:
        if self.paths:
            raise Refused("channels_last: the states of a Net have their channels last; leave paths empty")
        return spec, dict(weights)

    def apply(self, module: nn.Module) -> nn.Module:
        if not self.paths:
            raise Refused("channels_last: no paths given; channels_first(module) lists those that can go")
        convolutions = [submodule(module, path) for path in self.paths]
        for path, part in zip(self.paths, convolutions, strict=True):
            if not isinstance(part, nn.Conv2d) or part._parameters.get("weight") is None:
                raise Refused(f"channels_last: {path} is no Conv2d that has its weights; {type(part).__name__} stays")
        for part in convolutions:
            weight = part.get_parameter("weight")
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)
        return module
