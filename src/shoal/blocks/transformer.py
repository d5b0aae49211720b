"""Transformer: attention, then an MLP that reads what attention added; one layer of the usual stack.

    a = attention(norm x);    m = mlp(norm(x + a));    y = a + m

Shapes   x, y: (batch, *places, dim), places taken as one row
Cost     (4 * heads * head_dim + 2 * hidden) * dim multiply-adds a place, and 2 * places * heads * head_dim
Papers   wide-attention-is-the-way-forward
"""

from __future__ import annotations

from torch import Tensor

from shoal.blocks._attention import attend, head_dim_for, heads_for
from shoal.core.activations import activation
from shoal.core.base import Block, MakeLinear, MakeNorm


class Transformer(Block):
    """Settings: `heads` (of about 32 channels where not said); `head_dim` (dim / heads where not said); `hidden`, units
    of the MLP (4 * dim where not said); `act`; `causal`. Context: `mask`, True where to read; `positions`."""

    layouts = (1, 2)
    widths = {"heads": ("query:out", "key:out", "value:out", "out:in"), "hidden": ("up:out", "down:in")}
    outlets = ("out", "down")
    folds = {"before_attention": ("query:in", "key:in", "value:in"), "before_mlp": ("up:in",)}
    sizes = {"heads": heads_for, "head_dim": head_dim_for, "hidden": lambda dim, _: 4 * dim}
    tiny = {"heads": 2, "head_dim": 4, "hidden": 12}

    def __init__(
        self,
        dim: int,
        linear: MakeLinear,
        norm: MakeNorm,
        *,
        heads: int | None = None,
        head_dim: int | None = None,
        hidden: int | None = None,
        act: str = "gelu",
        causal: bool = False,
    ) -> None:
        super().__init__()
        self.heads = self.size("heads", heads, dim)
        inner = self.heads * self.size("head_dim", head_dim, dim, heads=self.heads)
        hidden = self.size("hidden", hidden, dim)
        self.before_attention, self.before_mlp = norm(dim), norm(dim)
        self.query, self.key, self.value = linear(dim, inner), linear(dim, inner), linear(dim, inner)
        self.out = linear(inner, dim)
        self.up, self.down = linear(dim, hidden), linear(hidden, dim)
        self.act, self.causal = activation(act), causal

    def forward(self, x: Tensor, *, mask: Tensor | None = None, positions: Tensor | None = None) -> Tensor:
        row = self.before_attention(x).flatten(1, -2)
        y = attend(self.query(row), self.key(row), self.value(row), self.heads, self.causal, mask, positions)
        y = self.out(y).unflatten(1, x.shape[1:-1])
        return y + self.down(self.act(self.up(self.before_mlp(x + y))))
