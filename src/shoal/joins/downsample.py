"""Downsample: neighbouring places averaged, then a linear map to the next width.

    y = map( mean over a square of `stride` places along each axis )

Where there are no places it is the linear map alone; places that do not fill a square at the far edge are averaged too.
The map is run as a convolution of one place: an exported net then keeps to the convolutions' layout, and none of its
transposes is left (as a matrix product it held 38 of them in a net of 27 layers).

Shapes   x: (batch, *places, inputs);  y: (batch, *ceil(places / stride), outputs)
Cost     inputs * outputs multiply-adds a place of y, as many weights
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from shoal.core.base import Join, MakeLinear

POOL_AND_CONVOLVE = ((F.avg_pool1d, F.conv1d), (F.avg_pool2d, F.conv2d), (F.avg_pool3d, F.conv3d))  # by places


class Downsample(Join):
    """Settings: `stride`, places averaged along each axis."""

    def __init__(self, inputs: int, outputs: int, linear: MakeLinear, *, stride: int = 2) -> None:
        super().__init__()
        self.map, self.stride = linear(inputs, outputs), stride

    def forward(self, x: Tensor) -> Tensor:
        places = x.dim() - 2
        if places:
            pool, convolve = POOL_AND_CONVOLVE[places - 1]
            matrix = self.map.matrix()
            kernel = matrix.reshape(*matrix.shape, *(1 for _ in range(places)))
            pooled = pool(x.movedim(-1, 1), self.stride, ceil_mode=True)
            return convolve(pooled, kernel, self.map.bias).movedim(1, -1)
        return self.map(x)
