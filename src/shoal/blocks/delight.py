"""DeLighT: a narrow and deep run of grouped matrices, then attention of one head at half the width.

    y_l = W_l mix(x, shuffle act(y_{l-1})) + b_l        l = 1 .. layers, y_0 nothing, W_l of g_l groups
    y = out( softmax( (query y_L) (key y_L)^T / sqrt(head_dim) ) (value y_L) )

The first half of the layers widens evenly from dim to `widen` * dim, the others narrow evenly to head_dim. The groups
double from layer to layer and halve again behind the widest (1, 2, 4, 2, 1), as far as `groups` and dim allow: all are
powers of two that divide dim. Shuffle sends the channels of a group to all groups of the next; mix sets beside each
group its part of the input. Widths are rounded up to multiples of their groups. This is the common form of the method;
where the activation stands was not read in the paper.

Shapes   x, y: (batch, *places, dim), places taken as one row;  y_l: (batch, width_l, places)
Cost     (width_{l-1} + dim) * width_l / g_l multiply-adds a place and layer; of attention, at
         half the width, 1.25 * dim^2 + places * dim
Exact when seen as matrices: a grouped matrix is a block-diagonal one
Papers   delight-deep-and-light-weight-transformer
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from shoal.blocks._attention import attend
from shoal.core.activations import activation
from shoal.core.base import Block, Linear, MakeLinear
from shoal.core.errors import BadSetting


class DeLighT(Block):
    """Settings: `layers`, grouped matrices, at least 2; `widen`, the largest width as a multiple of dim; `groups`, at
    most; `head_dim`, channels of the one head (half of dim where not said); `act`; `causal`: a place reads only those
    before it. Context: `mask`, True where a place may be read."""

    layouts = (1, 2)
    outlets = ("out",)
    sizes = {"head_dim": lambda dim, _: max(dim // 2, 1)}
    tiny = {"layers": 4, "groups": 1}  # of the matrices of every kind, not all take groups

    def __init__(
        self,
        dim: int,
        linear: MakeLinear,
        out: int,
        *,
        layers: int = 4,
        widen: float = 2.0,
        groups: int = 8,
        head_dim: int | None = None,
        act: str = "gelu",
        causal: bool = False,
    ) -> None:
        super().__init__()
        if layers < 2 or groups < 1 or not 1 <= widen < 100:
            told = f"layers={layers}, groups={groups}, widen={widen}"
            raise BadSetting(f"block delight: {told}; give at least 2 layers, 1 group and a widening from 1 to 100")
        self.groups = _groups(dim, layers, groups)
        head_dim = self.size("head_dim", head_dim, out)
        widths = _widths(dim, layers, widen * dim, head_dim, self.groups)
        self.steps = nn.ModuleList(
            linear(before + dim if index else dim, after, kernel=(1,), groups=parts)
            for index, (before, after, parts) in enumerate(zip([0, *widths], widths, self.groups, strict=False))
        )
        self.query, self.key, self.value = (linear(head_dim, head_dim) for _ in range(3))
        self.out = linear(head_dim, out)
        self.act, self.causal = activation(act), causal

    def forward(self, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
        planes = x.flatten(1, -2).transpose(1, 2)
        y, before = planes, 1
        for index, (step, groups) in enumerate(zip(self.steps, self.groups, strict=True)):
            if index:
                y = _beside(_shuffled(self.act(y), before), planes, groups)
            assert isinstance(step, Linear)
            y, before = step.convolve(y), groups
        row = y.transpose(1, 2)
        y = attend(self.query(row), self.key(row), self.value(row), 1, self.causal, mask, None)
        return self.out(y).unflatten(1, x.shape[1:-1])


def _groups(dim: int, layers: int, most: int) -> list[int]:
    """Of each layer: doubling up to the widest, then the same backwards; powers of two that divide dim."""
    divisor = dim & -dim  # the largest power of two in it
    return [min(2 ** min(i, layers - 1 - i), 2 ** (most.bit_length() - 1), divisor) for i in range(layers)]


def _widths(dim: int, layers: int, widest: float, last: int, groups: list[int]) -> list[int]:
    """Of each layer's output: evenly up to the widest, evenly down to the last, a multiple of the groups beside it."""
    up = (layers + 1) // 2
    exact = [dim + (widest - dim) * (i + 1) / up for i in range(up)]
    exact += [widest - (widest - last) * (i + 1) / (layers - up) for i in range(layers - up)]
    fit = [max(pair) for pair in zip(groups, [*groups[1:], 1], strict=True)]
    return [-(-round(width) // multiple) * multiple for width, multiple in zip(exact, fit, strict=True)]


def _shuffled(y: Tensor, groups: int) -> Tensor:
    """The channels in the order: the first of each group, the second of each ..."""
    return y.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)


def _beside(y: Tensor, x: Tensor, groups: int) -> Tensor:
    """Each group of y, and behind it the same group of x."""
    return torch.cat((y.unflatten(1, (groups, -1)), x.unflatten(1, (groups, -1))), dim=2).flatten(1, 2)
