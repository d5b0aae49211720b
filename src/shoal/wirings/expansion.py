"""Expansion: the scaled residual stack cut off at an order: how many layers a path may go through.

    x + lambda sum_i f_i(x) + lambda^2 sum_{i<j} Df_j(x)[f_i(x)] + ... + lambda^order (...)

The Taylor polynomial of the stack  x <- x + lambda f_i(x)  in lambda, at 0. Every layer is evaluated once, at x alone;
what the layers before it add comes in through its derivatives. They are taken from the graph of the forward pass: a
product with the Jacobian is the slope of a slope, so that layers need a second derivative and no forward one.

Shapes   x: (batch, *places, dim) throughout
Cost     about 3^(order - 1) times the multiply-adds of the layers, and their graph is kept, in eval too
Exact when order = 1: one group of all layers, scaled;  the layers are linear and order = depth: the scaled residual net
Papers   on-residual-network-depth, make-deep-networks-shallow-again
"""

from __future__ import annotations

from collections.abc import Sequence
from math import factorial

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from shoal.core.base import Branch, Wiring
from shoal.core.errors import BadSetting
from shoal.core.part import Value
from shoal.wirings._scale import Scale, scale_at


class Expansion(Wiring):
    """Settings: `order`, the highest power of lambda that is kept, 0 for the input alone; `scale`, lambda: a number, or
    `one` (1), `mean` (1 / depth), `root` (1 / sqrt(depth))."""

    known = {
        "exports_to_pt2": "torch.export does not trace derivatives that are taken within the forward pass",
        "exports_to_onnx": "torch.export does not trace derivatives that are taken within the forward pass",
    }

    def __init__(self, dim: int, depth: int, *, order: int = 2, scale: Scale = "mean") -> None:
        super().__init__(dim, depth)
        self.scale = scale_at(scale, depth, "expansion")
        if order < 0:
            raise BadSetting(f"wiring expansion: order={order} is none; give 0 for the input alone, or at least 1")
        self.order = order

    def reads(self) -> list[set[int]]:
        if not self.order:
            return [{0}]
        return [*({0} for _ in range(self.depth)), set(range(self.depth + 1))]

    def without(self, index: int) -> dict[str, Value]:
        return {"order": self.order, "scale": self.scale}

    def forward(self, x: Tensor, layers: Sequence[Branch]) -> Tensor:
        if not self.order:
            return x
        # the fused kernels of attention have no second derivative
        with torch.inference_mode(False), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            y = self._cut(x.clone() if x.is_inference() else x, layers)
        return y if torch.is_grad_enabled() else y.detach()

    def _cut(self, x: Tensor, layers: Sequence[Branch]) -> Tensor:
        """x + t * given(t) is the stack at lambda = t; its polynomial is that of given, taken at t = 0."""
        t = x.new_zeros(()).requires_grad_(self.order > 1)
        given = layers[0](x)
        for layer in layers[1:]:
            given = given + layer(x + t * given)
        y = x + self.scale * given
        for power in range(1, self.order):
            given = _slope(given, t)
            y = y + self.scale ** (power + 1) / factorial(power) * given
        return y


def _slope(y: Tensor, t: Tensor) -> Tensor:
    """dy/dt, itself with a graph: what goes back from y to t is linear in what is put in at y; its slope is dy/dt."""
    put = torch.zeros_like(y, requires_grad=True)
    back = torch.autograd.grad(y, t, put, create_graph=True, allow_unused=True)[0] if y.requires_grad else None
    if back is None or not back.requires_grad:  # y does not depend on t
        return torch.zeros_like(y)
    (slope,) = torch.autograd.grad(back, put, create_graph=True)
    return slope
