"""Global context: one summary of all places, the same for each of them, added everywhere by the wiring.

    c = sum over places of softmax(key x) x;    y = up( act( norm( down c ) ) )  at every place

Shapes   x, y: (batch, *places, dim), places taken as one row;  within: (batch, hidden)
Cost     2 * dim multiply-adds a place and 2 * dim * hidden more;  dim + 2 * dim * hidden weights (dense linears)
Exact when key is zero: c is the mean over all places
Papers   gcnet-non-local-networks-meet-squeeze
"""

from __future__ import annotations

import torch
from torch import Tensor

from shoal.core.activations import activation
from shoal.core.base import Block, MakeLinear, MakeNorm
from shoal.core.errors import BadModel


class GlobalContext(Block):
    """Settings: `hidden`, units within (a quarter of dim, at least 4, where not said); `act`, the activation's name.
    Context: `mask`, True where a place may be read."""

    layouts = (1, 2)
    widths = {"hidden": ("down:out", "inner:dim", "up:in")}
    outlets = ("up",)
    sizes = {"hidden": lambda dim, _: max(dim // 4, 4)}  # a norm over one channel would leave nothing of it
    tiny = {"hidden": 6}

    def __init__(
        self, dim: int, linear: MakeLinear, norm: MakeNorm, out: int, *, hidden: int | None = None, act: str = "relu"
    ) -> None:
        super().__init__()
        hidden = self.size("hidden", hidden, out)
        self.key = linear(dim, 1, bias=False)  # the softmax takes any bias out again
        self.down, self.inner, self.up = linear(dim, hidden), norm(hidden), linear(hidden, out)
        self.act = activation(act)

    def forward(self, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
        row = x.flatten(1, -2)
        score = self.key(row).squeeze(-1)
        if mask is not None:
            if mask.dim() != 2:
                raise BadModel(f"block global_context: mask of shape {tuple(mask.shape)}; give one of (batch, places)")
            score = score.masked_fill(~mask, torch.finfo(score.dtype).min)
        summary = (score.softmax(dim=-1).unsqueeze(1) @ row).squeeze(1)
        y = self.up(self.act(self.inner(self.down(summary))))
        return y.reshape(-1, *(1 for _ in x.shape[1:-1]), y.shape[-1]).expand(*x.shape[:-1], -1)
