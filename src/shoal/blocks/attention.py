"""Attention: every place reads every other, as much as its query fits their keys.

    y = out( softmax( (query x) (key x)^T / sqrt(head_dim) ) (value x) )        a head at a time

Shapes   x, y: (batch, *places, dim), places taken as one row;  within: (batch, heads, places, head_dim)
Cost     4 * dim * heads * head_dim multiply-adds a place, and 2 * places * heads * head_dim for the scores and the sums
Papers   wide-attention-is-the-way-forward
"""

from __future__ import annotations

from torch import Tensor

from shoal.blocks._attention import attend, head_dim_for, heads_for
from shoal.core.base import Block, MakeLinear


class Attention(Block):
    """Settings: `heads` (of about 32 channels where not said); `head_dim` (dim / heads where not said); `causal`: a
    place reads only those before it. Context: `mask`, True where a place may be read; `positions`, for rotary."""

    layouts = (1, 2)
    widths = {"heads": ("query:out", "key:out", "value:out", "out:in")}
    inlets, outlets = ("query", "key", "value"), ("out",)
    sizes = {"heads": heads_for, "head_dim": head_dim_for}
    tiny = {"heads": 2, "head_dim": 4}

    def __init__(
        self,
        dim: int,
        linear: MakeLinear,
        out: int,
        *,
        heads: int | None = None,
        head_dim: int | None = None,
        causal: bool = False,
    ) -> None:
        super().__init__()
        self.heads = self.size("heads", heads, out)
        inner = self.heads * self.size("head_dim", head_dim, out, heads=self.heads)
        self.query, self.key, self.value = linear(dim, inner), linear(dim, inner), linear(dim, inner)
        self.out = linear(inner, out)
        self.causal = causal

    def forward(self, x: Tensor, *, mask: Tensor | None = None, positions: Tensor | None = None) -> Tensor:
        row = x.flatten(1, -2)
        y = attend(self.query(row), self.key(row), self.value(row), self.heads, self.causal, mask, positions)
        return self.out(y).unflatten(1, x.shape[1:-1])
