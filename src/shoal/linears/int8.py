"""Int8: weights, and where asked what goes in and comes out, on grids that integers of 8 bits say.

    y = out( R(W) in(x) + b )        R: each row by its own scale;  in, out: one scale for the tensor

W itself is kept and learns; gradients go straight through the grids. Exported to ONNX the grids are QuantizeLinear and
DequantizeLinear, which onnxruntime makes one integer kernel of.

Shapes   x: (..., inputs);  y: (..., outputs);  W: (outputs, inputs / groups, *kernel)
Cost     as dense; a byte a weight where integers are stored
Exact when the weights are on their grid, and there is none for x and y
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shoal.core.base import Linear
from shoal.core.errors import BadSetting
from shoal.core.grids import Grid, OwnGrid, on_rows, scales_of
from shoal.linears._dense import convolve_with, dense_weight

GIVEN: dict[str, type[nn.Module]] = {"none": nn.Identity, "static": Grid, "dynamic": OwnGrid}


class Int8(Linear):
    """Settings: `bits` of a weight, 2 to 8; `given`, the grid of the input: none, static (set from data) or dynamic
    (its own for each tensor); `made`, whether the output has a static one."""

    tiny = {"bits": 6, "given": "none", "made": False}

    def __init__(
        self,
        inputs: int,
        outputs: int,
        bias: bool,
        kernel: tuple[int, ...],
        groups: int,
        *,
        bits: int = 7,
        given: str = "static",
        made: bool = True,
    ) -> None:
        super().__init__(inputs, outputs, bias, kernel, groups)
        if given not in GIVEN:
            raise BadSetting(f"linear int8: given={given!r} is no grid; give one of {', '.join(GIVEN)}")
        self.bits = bits
        self.weight = dense_weight(outputs, inputs // groups, kernel)
        self.register_buffer("scales", scales_of(self.weight, bits))
        self.register_buffer("zeros", torch.zeros(outputs, dtype=torch.int32), persistent=False)
        self.scales: Tensor
        self.zeros: Tensor
        self.given = GIVEN[given]()
        self.made = Grid() if made else nn.Identity()

    def matrix(self) -> Tensor:
        return self._rows().flatten(1)

    def fit(self, matrix: Tensor) -> None:
        self.weight.data.copy_(matrix.view_as(self.weight))
        there = torch.allclose(self.matrix(), matrix, rtol=1e-6, atol=0)  # on its grid already, which it then keeps
        if not (there and matrix.any()):
            self.scales.copy_(scales_of(self.weight, self.bits))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.made(F.linear(self.given(x), self._rows(), self.bias))
        return y

    def convolve(self, x: Tensor, stride: int = 1) -> Tensor:
        y: Tensor = self.made(convolve_with(self.given(x), self._rows(), self.bias, stride, self.groups))
        return y

    def _rows(self) -> Tensor:
        return on_rows(self.weight, self.scales, self.zeros, self.bits)
