"""RepMLP: a matrix over all places of a piece of an image, with convolutions beside it; one matrix once trained.

    x_p <- x_p + excite( relu( squeeze( norm(mean x_p) ) ) )        for each piece p: what it is told of itself
    y_p = norm(whole x_p) + sum_k norm(conv_k x_p)                  whole: (dim * places) -> (out * places)

A convolution over a piece of fixed size is a matrix, (out * places) x (dim * places), each block of which is Toeplitz
along both axes; so the convolutions lend it their locality while training and are part of it afterwards.

Shapes   x, y: (batch, *places, dim);  within: (pieces, dim, *size);  places: two, each a multiple of ``size``
Cost     dim * out / groups * (size + sum of kernels) multiply-adds a place; dim * out / groups * (size^2 + kernels)
         weights, size: the places of a piece (dense linears)
Exact when folded in eval with norms of single channels: one matrix a piece (block ``rep_mlp_folded``)
Papers   repmlp-re-parameterizing-convolutions-into-fully
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shoal.blocks._partitions import checked, cut, laid_out
from shoal.core.base import Block, Linear, MakeLinear, MakeNorm, Norm
from shoal.core.folding import normed
from shoal.core.part import Part, Value


class RepMLP(Block):
    """Settings: `size` of a piece, height and width; `kernels`, the sizes of the convolutions, odd; `groups` of the
    matrix and the convolutions; `inner`, units of what a piece is told of itself (a quarter of dim where not said)."""

    layouts = (2,)
    norm = "batch"
    widths = {"inner": ("squeeze:out", "excite:in")}
    sizes = {"inner": lambda dim, _: max(dim // 4, 1)}
    tiny = {"size": (5, 2), "kernels": (1, 3), "inner": 3}

    def __init__(
        self,
        dim: int,
        linear: MakeLinear,
        norm: MakeNorm,
        out: int,
        *,
        size: tuple[int, ...] = (8, 8),
        kernels: tuple[int, ...] = (1, 3, 5, 7),
        groups: int = 1,
        inner: int | None = None,
    ) -> None:
        super().__init__()
        self.size_of_piece = checked("rep_mlp", size, dim, out, groups)
        places, inner = size[0] * size[1], self.size("inner", inner, out)
        self.out, self.groups = out, groups
        self.told = norm(dim)
        self.squeeze, self.excite = linear(dim, inner), linear(inner, dim)
        self.whole = linear(dim * places, out * places, bias=False, kernel=(1, 1), groups=groups)
        self.behind = norm(out)
        self.convs = nn.ModuleList(linear(dim, out, bias=False, kernel=(k, k), groups=groups) for k in kernels)
        self.norms = nn.ModuleList(norm(out) for _ in kernels)

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = x.shape[1:3]
        x = cut(x, self.size_of_piece)
        told = self.excite(F.relu(self.squeeze(self.told(x.mean((2, 3))))))
        x = x + told[:, :, None, None]
        whole = self.whole.convolve(x.flatten(1)[:, :, None, None])
        y = self.behind.planes(whole.reshape(-1, self.out, *self.size_of_piece))
        for conv, norm in zip(self.convs, self.norms, strict=True):
            assert isinstance(conv, Linear)
            assert isinstance(norm, Norm)
            y = y + norm.planes(conv.convolve(x))
        return laid_out(y, rows, columns)

    def folded(self) -> tuple[Part, dict[str, Tensor]] | None:
        """The block ``rep_mlp_folded`` that gives the same in eval, and its weights."""
        every = [self.told, self.behind, *self.norms]
        if not all(isinstance(norm, Norm) and norm.channelwise for norm in every):
            return None
        places = self.size_of_piece[0] * self.size_of_piece[1]
        scale, bias = self.behind.affine()
        matrix = self.whole.matrix().detach() * scale.repeat_interleave(places)[:, None]
        for conv, norm in zip(self.convs, self.norms, strict=True):
            assert isinstance(conv, Linear)
            assert isinstance(norm, Norm)
            kernel, shift = normed(conv, norm)
            matrix, bias = matrix + as_matrix(kernel, self.size_of_piece, self.groups), bias + shift
        scale, shift = self.told.affine()
        squeeze = self.squeeze.matrix().detach()
        assert self.squeeze.bias is not None
        weights = {"squeeze.weight": squeeze * scale, "squeeze.bias": self.squeeze.bias.detach() + squeeze @ shift}
        assert self.excite.bias is not None
        weights |= {"excite.weight": self.excite.matrix().detach(), "excite.bias": self.excite.bias.detach()}
        weights |= {"whole.weight": matrix[:, :, None, None], "whole.bias": bias.repeat_interleave(places)}
        settings: dict[str, Value] = {"size": self.size_of_piece, "groups": self.groups, "inner": self.squeeze.outputs}
        return Part("rep_mlp_folded", settings), weights


def as_matrix(kernel: Tensor, size: tuple[int, int], groups: int) -> Tensor:
    """The matrix, (outputs * places, inputs / groups * places), that a convolution of such a piece is: each column is
    what the convolution makes of a single one at one place of one channel."""
    inputs = kernel.shape[1]
    places = size[0] * size[1]
    ones = torch.eye(inputs * places, dtype=kernel.dtype).reshape(-1, inputs, *size)
    padding = [length // 2 for length in kernel.shape[2:]]
    return torch.cat([F.conv2d(ones, own, padding=padding).flatten(1).T for own in kernel.chunk(groups)])
