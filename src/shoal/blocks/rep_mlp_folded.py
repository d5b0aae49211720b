"""RepMLP folded: one matrix over all places of a piece of an image; what the block ``rep_mlp`` is in eval.

    x_p <- x_p + excite( relu( squeeze(mean x_p) ) );    y_p = whole x_p        for each piece p

Shapes   x, y: (batch, *places, dim);  within: (pieces, dim, *size);  places: two, each a multiple of ``size``
Cost     dim * out / groups * size multiply-adds a place, dim * out / groups * size^2 weights, size: the places of a
         piece (dense linears)
Papers   repmlp-re-parameterizing-convolutions-into-fully
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from shoal.blocks._partitions import checked, cut, laid_out
from shoal.core.base import Block, MakeLinear


class RepMLPFolded(Block):
    """Settings: `size` of a piece, height and width; `groups` of the matrix; `inner`, units of what a piece is told of
    itself (a quarter of dim where not said)."""

    layouts = (2,)
    norm = "none"
    widths = {"inner": ("squeeze:out", "excite:in")}
    sizes = {"inner": lambda dim, _: max(dim // 4, 1)}
    tiny = {"size": (5, 2), "inner": 3}

    def __init__(
        self,
        dim: int,
        linear: MakeLinear,
        out: int,
        *,
        size: tuple[int, ...] = (8, 8),
        groups: int = 1,
        inner: int | None = None,
    ) -> None:
        super().__init__()
        self.size_of_piece = checked("rep_mlp_folded", size, dim, out, groups)
        places, inner = size[0] * size[1], self.size("inner", inner, out)
        self.out = out
        self.squeeze, self.excite = linear(dim, inner), linear(inner, dim)
        self.whole = linear(dim * places, out * places, kernel=(1, 1), groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = x.shape[1:3]
        x = cut(x, self.size_of_piece)
        x = x + self.excite(F.relu(self.squeeze(x.mean((2, 3)))))[:, :, None, None]
        y = self.whole.convolve(x.flatten(1)[:, :, None, None])
        return laid_out(y.reshape(-1, self.out, *self.size_of_piece), rows, columns)
