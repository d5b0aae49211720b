"""Network in network: a convolution whose filter is an MLP, slid over the places.

    y = act( third act( second act( first x ) ) )        first: kernel;  second, third: 1 x 1

It ends with its activation, so that stacked plainly (``plain(nin norm=none)``) it is the network of the paper.

Shapes   x, y: (batch, *places, dim);  within: (batch, hidden, *places);  places: as many as ``kernel`` has sizes
Cost     dim * hidden * (kernel + 1) + hidden^2 multiply-adds a place, as many weights (dense linears)
Papers   network-in-network
"""

from __future__ import annotations

import torch
from torch import Tensor

from shoal.core.activations import activation
from shoal.core.base import Block, MakeLinear
from shoal.core.errors import BadSetting


class NetworkInNetwork(Block):
    """Settings: `hidden`, channels within (dim where not said); `kernel`, its size along each place, odd; `act`, the
    activation's name; one that keeps zero at zero."""

    layouts = (2,)
    norm = "batch"
    widths = {"hidden": ("first:out", "second:in", "second:out", "third:in")}
    inlets = ("first",)
    sizes = {"hidden": lambda dim, _: dim}
    tiny = {"hidden": 6}

    def __init__(
        self,
        dim: int,
        linear: MakeLinear,
        out: int,
        *,
        hidden: int | None = None,
        kernel: tuple[int, ...] = (3, 3),
        act: str = "relu",
    ) -> None:
        super().__init__()
        hidden = self.size("hidden", hidden, out)
        self.act = activation(act)
        if self.act(torch.zeros(1, device="cpu")).any():
            raise BadSetting(f"block nin: act={act!r} is not zero at zero, and nothing stands behind it; take relu")
        one = tuple(1 for _ in kernel)
        self.first = linear(dim, hidden, kernel=kernel)
        self.second, self.third = linear(hidden, hidden, kernel=one), linear(hidden, out, kernel=one)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.first.convolve(x.movedim(-1, 1)))
        y = self.act(self.second.convolve(y))
        return self.act(self.third.convolve(y)).movedim(1, -1)
