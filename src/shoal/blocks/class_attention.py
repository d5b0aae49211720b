"""Class attention: only the first place reads, and it reads all; the other places get nothing.

    y_0 = out( softmax( (query x_0) (key x)^T / sqrt(head_dim) ) (value x) );    y_i = 0        a head at a time

Shapes   x, y: (batch, *places, dim), places taken as one row;  the first of them is the class token
Cost     2 * dim * heads * head_dim multiply-adds a place for keys and values, as many once for query and output
Exact when it is added to a stream: all places but the first stay as they are
Papers   going-deeper-with-image-transformers
"""

from __future__ import annotations

from torch import Tensor

from shoal.blocks._attention import attend, head_dim_for, heads_for
from shoal.blocks._tokens import at_first
from shoal.core.base import Block, MakeLinear


class ClassAttention(Block):
    """Settings: `heads` (of about 32 channels where not said); `head_dim` (dim / heads where not said). Context:
    `mask`, True where a place may be read."""

    layouts = (1, 2)
    widths = {"heads": ("query:out", "key:out", "value:out", "out:in")}
    inlets, outlets = ("query", "key", "value"), ("out",)
    sizes = {"heads": heads_for, "head_dim": head_dim_for}
    tiny = {"heads": 2, "head_dim": 4}

    def __init__(
        self, dim: int, linear: MakeLinear, out: int, *, heads: int | None = None, head_dim: int | None = None
    ) -> None:
        super().__init__()
        self.heads = self.size("heads", heads, out)
        inner = self.heads * self.size("head_dim", head_dim, out, heads=self.heads)
        self.query, self.key, self.value = linear(dim, inner), linear(dim, inner), linear(dim, inner)
        self.out = linear(inner, out)

    def forward(self, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
        row = x.flatten(1, -2)
        y = attend(self.query(row[:, :1]), self.key(row), self.value(row), self.heads, False, mask, None)
        return at_first(self.out(y), x)
