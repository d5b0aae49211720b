"""Talking heads: attention whose heads mix their scores before the softmax, and their weights behind it.

    w = after( softmax( before( (query x) (key x)^T / sqrt(head_dim) ) ) );    y = out( w (value x) )

Shapes   x, y: (batch, *places, dim), places taken as one row;  before, after: heads to heads at each pair of places
Cost     that of attention, and 2 * places * heads^2 multiply-adds a place, 2 * heads^2 weights
Exact when before and after are the identity: attention
Papers   going-deeper-with-image-transformers
"""

from __future__ import annotations

from torch import Tensor

from shoal.blocks._attention import head_dim_for, heads_for
from shoal.core.base import Block, MakeLinear


class TalkingHeads(Block):
    """Settings: `heads` (of about 32 channels where not said); `head_dim` (dim / heads where not said). Context:
    `mask`, True where a place may be read."""

    layouts = (1, 2)
    widths = {
        "heads": (
            *("query:out", "key:out", "value:out", "out:in"),
            *("before:in", "before:out", "after:in", "after:out"),
        )
    }
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
        self.before, self.after = linear(self.heads, self.heads), linear(self.heads, self.heads)
        self.out = linear(inner, out)

    def forward(self, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
        row = x.flatten(1, -2)
        parts = (each(row).unflatten(-1, (self.heads, -1)) for each in (self.query, self.key, self.value))
        query, key, value = (part.transpose(1, 2) for part in parts)
        scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
        scores = self.before(scores.movedim(1, -1))  # (batch, places, places, heads)
        if mask is None:
            weights = self.after(scores.softmax(dim=2))
        else:
            hidden = ~(mask[:, None, None, :] if mask.dim() == 2 else mask).movedim(1, -1)
            weights = self.after(scores.masked_fill(hidden, -float("inf")).softmax(dim=2))
            weights = weights.masked_fill(hidden, 0)  # a hidden place has no weight, nor the bias of `after` for one
        y = (weights.movedim(-1, 1) @ value).transpose(1, 2).flatten(2)
        return self.out(y).unflatten(1, x.shape[1:-1])
