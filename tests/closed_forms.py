"""Modules with the multiply-adds and the depth that a person works out for them, for the tests and for the bench.

Each case is (make, example, multiply-adds, depth): two functions, since whoever counts may change what it is given.
Biases are left out, or less than 1%: some count them as multiply-adds. Longer than the house's 250 lines: it is one
table, and what its cases are made of.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from math import log2
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention.flex_attention import create_block_mask, flex_attention


class Case(NamedTuple):
    """A module, what it is run on, and what comes out of the formula written beside it."""

    make: Callable[[], nn.Module]
    example: Callable[[], Any]
    macs: int
    depth: int


class Do(nn.Module):
    """A function as a module, with weights of its own."""

    def __init__(self, function: Callable[..., Any], **own: Tensor) -> None:
        super().__init__()
        self.function = function
        for name, value in own.items():
            self.register_parameter(name, nn.Parameter(value))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(self, *args, **kwargs)


class Block(nn.Module):
    """A residual block that writes in place."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x), inplace=True)


X, C = torch.randn, torch.cfloat
ADJACENCY = (torch.arange(36).view(6, 6) % 3 == 0).float()  # 12 of 36
INDEX = torch.tensor([0, 0, 1, 3, 3, 3])
WIDER = ADJACENCY.repeat_interleave(2, 0).repeat_interleave(2, 1)
WIDE = INDEX[:, None].expand(6, 3)


def I8(*sizes: int) -> Tensor:
    return torch.ones(sizes, dtype=torch.int8)


def quantised(module: nn.Module, *kinds: type[nn.Module]) -> nn.Module:
    """The module with dynamically quantised layers."""
    with warnings.catch_warnings():  # torch announces that this interface will go
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(module.eval(), set(kinds), dtype=torch.qint8)


def packed() -> nn.Module:
    """A statically quantised convolution between what makes integers and what makes floats of them again."""
    from torch.ao.nn import quantized as layers

    return nn.Sequential(layers.Quantize(0.1, 0, torch.quint8), layers.Conv2d(3, 4, 3), layers.DeQuantize())


def do(function: Callable[..., Any], **own: tuple[int, ...] | Tensor) -> Callable[[], nn.Module]:
    """Makes a Do with random weights of these shapes."""
    return lambda: Do(function, **{name: X(size) if isinstance(size, tuple) else size for name, size in own.items()})


def attend(self: Do, query: Tensor, key: Tensor, value: Tensor, **settings: Any) -> Tensor:
    return F.scaled_dot_product_attention(query, key, value, **settings)


def sparse(layout: str) -> Callable[[], nn.Module]:
    """The adjacency matrix, stored so, times the input."""
    return do(lambda self, x: getattr(ADJACENCY, layout)() @ x)


def causal(self: Do, x: Tensor) -> Tensor:
    def before(batch: Tensor, head: Tensor, to: Tensor, of: Tensor) -> Tensor:
        return of <= to

    return flex_attention(x, x, x, block_mask=create_block_mask(before, None, None, 16, 16, device="cpu"))


def ragged(self: Do, x: Tensor) -> Tensor:
    """Two heads of 2 over three places and over five."""
    both = torch.nested.nested_tensor([x[:3], x[3:]], layout=torch.jagged).unflatten(-1, (2, 2)).transpose(1, 2)
    return F.scaled_dot_product_attention(both, both, both).transpose(1, 2).flatten(-2).values()


def spectral(self: Do, x: Tensor) -> Tensor:
    """The layer of a Fourier neural operator: transform, mix the channels of the low modes, transform back."""
    low = torch.einsum("bixy,ioxy->boxy", torch.fft.rfft2(x)[..., :4, :4], self.w)
    return torch.fft.irfft2(F.pad(low, (0, 5, 0, 12)), s=(16, 16))


def half(batch: int, height: int, width: int) -> int:
    """A Fourier transform from real numbers or to them."""
    return round(1.25 * batch * height * width * log2(height * width))


def convolved(self: Do, x: Tensor) -> Tensor:
    """Messages along 12 edges, gathered and added up."""
    to, of = ADJACENCY.nonzero().T
    return torch.zeros(6, 4).index_add_(0, to, (x @ self.w)[of])


def thrice(self: Do, x: Tensor) -> Tensor:
    return torch.einsum("bi,kij,bj->bk", x, self.w, x)


def mixed(self: Do, x: Tensor) -> Tensor:
    return torch.einsum("bi,io->bo", x, self.w)


def slope(self: Do, x: Tensor) -> Tensor:
    return torch.func.grad(lambda y: (torch.tanh(y @ self.w) @ self.v).sum())(x)


def threefold(self: Do, x: Tensor) -> Tensor:
    return torch.while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, y @ self.w), (torch.tensor(0), x))[1]


def mapped(self: Do, x: Tensor) -> Tensor:
    return torch._higher_order_ops.map(lambda row: row @ self.w, x)


def either(self: Do, x: Tensor) -> Tensor:
    return torch.cond(x.sum() > 0, lambda y: y @ self.w, lambda y: y.sin(), (x,))


class Packed(nn.Module):
    """An LSTM over sequences of 4, 2 and 1 places."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(5, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(nn.utils.rnn.pack_padded_sequence(x, torch.tensor([4, 2, 1])))[0].data


FORMS: dict[str, Case] = {
    # products
    "linear": Case(lambda: nn.Linear(128, 7), lambda: X(3, 128), 3 * 128 * 7, 1),
    "linear, no bias, places": Case(lambda: nn.Linear(5, 7, bias=False), lambda: X(2, 3, 5), 6 * 5 * 7, 1),
    "linear, one vector": Case(lambda: nn.Linear(128, 7), lambda: X(128), 128 * 7, 1),
    "mm": Case(do(lambda _, a, b: a @ b), lambda: (X(3, 4), X(4, 5)), 60, 0),
    "mv": Case(do(lambda _, a, b: a @ b), lambda: (X(3, 4), X(4)), 12, 0),
    "bmm": Case(do(lambda _, a, b: a @ b), lambda: (X(6, 3, 4), X(6, 4, 5)), 360, 0),
    "baddbmm": Case(do(lambda m, x: torch.baddbmm(m.c, x, m.w), c=(6, 3, 5), w=(6, 4, 5)), lambda: X(6, 3, 4), 360, 1),
    "addmm": Case(do(lambda m, x: torch.addmm(m.c, x, m.w), c=(5,), w=(4, 5)), lambda: X(3, 4), 60, 1),
    "einsum": Case(do(lambda m, x: torch.einsum("bhi,hio->bho", x, m.w), w=(2, 4, 5)), lambda: X(3, 2, 4), 120, 1),
    "einsum of three": Case(do(thrice, w=(7, 4, 4)), lambda: X(3, 4), 3 * 7 * (16 + 4), 1),
    "a product written out": Case(do(lambda m, x: (x[:, None] * m.w).sum(-1), w=(5, 4)), lambda: X(3, 4), 60, 1),
    "bilinear": Case(lambda: nn.Bilinear(8, 16, 5), lambda: (X(2, 8), X(2, 16)), 2 * 5 * 8 * 16, 1),
    "distances": Case(do(lambda m, x: torch.cdist(x, m.w), w=(40, 4)), lambda: X(3, 4), 3 * 40 * 4, 1),
    "complex linear": Case(lambda: nn.Linear(128, 7, dtype=C), lambda: X(3, 128, dtype=C), 4 * 3 * 128 * 7, 1),
    "complex einsum": Case(do(mixed, w=X(4, 5, dtype=C)), lambda: X(3, 4, dtype=C), 4 * 60, 1),
    "integers": Case(do(lambda _, a, b: torch._int_mm(a, b)), lambda: (I8(32, 16), I8(16, 8)), 32 * 16 * 8, 0),
    # convolutions
    "conv": Case(lambda: nn.Conv2d(16, 8, 3, padding=1), lambda: X(2, 16, 6, 5), 2 * 8 * 30 * 144, 1),
    "conv, groups, stride": Case(
        lambda: nn.Conv2d(48, 12, 3, stride=2, groups=3), lambda: X(2, 48, 9, 9), 2 * 12 * 16 * 16 * 9, 1
    ),
    "conv, depthwise, dilated": Case(
        lambda: nn.Conv1d(4, 4, 3, dilation=2, groups=4, bias=False), lambda: X(2, 4, 9), 2 * 4 * 5 * 3, 1
    ),
    "conv, unbatched": Case(lambda: nn.Conv2d(128, 8, 1), lambda: X(128, 4, 4), 8 * 16 * 128, 1),
    "conv, 3d": Case(lambda: nn.Conv3d(16, 3, 2), lambda: X(1, 16, 3, 3, 3), 3 * 8 * 16 * 8, 1),
    "conv, around the edge": Case(
        lambda: nn.Conv2d(16, 4, 3, padding=1, padding_mode="circular"), lambda: X(1, 16, 5, 5), 4 * 25 * 144, 1
    ),
    "conv, transposed": Case(
        lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2, bias=False), lambda: X(2, 4, 5, 5),
        2 * 4 * 25 * 3 * 9, 1,
    ),
    "conv, complex": Case(  # torch makes three real ones of it
        lambda: nn.Conv2d(2, 3, 1, bias=False, dtype=C), lambda: X(1, 2, 4, 4, dtype=C), 3 * 3 * 16 * 2, 1
    ),
    "residual blocks": Case(
        lambda: nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), Block(8), Block(8)), lambda: X(2, 3, 6, 6),
        72 * 8 * (27 + 4 * 72), 5,
    ),
    # attention
    "attention": Case(do(attend), lambda: (X(2, 12, 64, 64),) * 3, 2 * 2 * 12 * 64**3, 0),
    "attention, mask": Case(
        do(lambda m, q, mask: attend(m, q, q, q, attn_mask=mask)),
        lambda: {"q": X(2, 2, 6, 8), "mask": torch.zeros(6, 6)}, 2 * 2 * 2 * 36 * 8, 0,
    ),
    "attention, causal": Case(
        do(lambda m, q: attend(m, q, q, q, is_causal=True)), lambda: X(2, 2, 6, 8), 2 * 2 * 2 * 36 * 8, 0
    ),
    "attention, other lengths": Case(
        do(attend), lambda: (X(2, 2, 3, 8), X(2, 2, 7, 8), X(2, 2, 7, 4)), 4 * 21 * 12, 0
    ),
    "attention, fewer keys": Case(
        do(lambda m, q, k: attend(m, q, k, k, enable_gqa=True)), lambda: (X(2, 4, 6, 8), X(2, 2, 6, 8)),
        2 * 2 * 4 * 36 * 8, 0,
    ),
    "flex attention": Case(
        do(lambda _, x: flex_attention(x, x, x, score_mod=lambda s, b, h, i, j: s + i - j)), lambda: X(1, 2, 16, 8),
        2 * 2 * 256 * 8, 0,
    ),
    "flex attention, mask": Case(do(causal), lambda: X(1, 2, 16, 8), 2 * 2 * 256 * 8, 0),
    "ragged attention": Case(do(ragged), lambda: X(8, 4), 2 * (9 + 25) * (2 + 2), 0),
    "multihead": Case(
        lambda: nn.MultiheadAttention(8, 2, bias=False, batch_first=True), lambda: (X(2, 3, 8),) * 3,
        6 * 4 * 64 + 2 * 2 * 9 * 8, 2,
    ),
    "encoder layer": Case(
        lambda: nn.TransformerEncoderLayer(64, 4, 128, bias=False, batch_first=True), lambda: X(2, 16, 64),
        32 * (4 * 64 * 64 + 2 * 64 * 128) + 2 * 2 * 16 * 16 * 64, 4,
    ),
    "decoder layer": Case(
        lambda: nn.TransformerDecoderLayer(8, 2, 16, bias=False, batch_first=True), lambda: (X(2, 3, 8), X(2, 5, 8)),
        6 * (6 * 64 + 2 * 8 * 16) + 10 * 2 * 64 + 2 * 2 * (9 + 15) * 8, 6,
    ),
    # recurrent
    "lstm": Case(lambda: nn.LSTM(128, 128), lambda: X(5, 2, 128), 10 * 4 * 128 * 256, 5),
    "lstm, two layers": Case(lambda: nn.LSTM(128, 128, 2), lambda: X(5, 2, 128), 2 * 10 * 4 * 128 * 256, 10),
    "lstm, both ways": Case(
        lambda: nn.LSTM(128, 128, bidirectional=True), lambda: X(4, 2, 128), 2 * 8 * 4 * 128 * 256, 4
    ),
    "lstm, projected": Case(lambda: nn.LSTM(5, 6, proj_size=2), lambda: X(4, 3, 5), 12 * (24 * (5 + 2) + 6 * 2), 8),
    "lstm, several lengths": Case(Packed, lambda: X(4, 3, 5), 7 * 24 * 11, 4),
    "gru": Case(lambda: nn.GRU(128, 128), lambda: X(5, 2, 128), 10 * 3 * 128 * 256, 5),
    "rnn": Case(lambda: nn.RNN(128, 64, 4, bias=False), lambda: X(4, 3, 128), 12 * 64 * (192 + 3 * 128), 16),
    "gru cell": Case(lambda: nn.GRUCell(128, 128), lambda: X(3, 128), 3 * 3 * 128 * 256, 1),
    # Fourier transforms: 2.5 N log2 N, half of it where one side is real
    "rfft2": Case(do(lambda _, x: torch.fft.rfft2(x)), lambda: X(2, 32, 32), half(2, 32, 32), 0),
    "irfft2": Case(do(lambda _, x: torch.fft.irfft2(x)), lambda: X(2, 32, 17, dtype=C), half(2, 32, 32), 0),
    "fft2": Case(do(lambda _, x: torch.fft.fft2(x)), lambda: X(2, 32, 32, dtype=C), 2 * half(2, 32, 32), 0),
    "rfft": Case(do(lambda _, x: torch.fft.rfft(x)), lambda: X(6, 64), 6 * half(1, 1, 64), 0),
    "Fourier layer": Case(
        do(spectral, w=X(3, 3, 4, 4, dtype=C)), lambda: X(2, 3, 16, 16), 2 * half(6, 16, 16) + 4 * 2 * 3 * 3 * 16, 1
    ),
    # sums over graphs, sparse products: 12 stored numbers by 5 columns; 6 rows of 3 numbers
    "coo": Case(sparse("to_sparse"), lambda: X(6, 5), 12 * 5, 1),
    "csr": Case(sparse("to_sparse_csr"), lambda: X(6, 5), 12 * 5, 1),
    "csc": Case(sparse("to_sparse_csc"), lambda: X(6, 5), 12 * 5, 1),
    "dense by csr": Case(do(lambda _, x: x @ ADJACENCY.to_sparse_csr()), lambda: X(5, 6), 5 * 12, 1),
    "blocks of 2 by 2": Case(do(lambda _, x: WIDER.to_sparse_bsr((2, 2)) @ x), lambda: X(12, 5), 12 * 4 * 5, 1),
    "sampled": Case(
        do(lambda m, x: torch.sparse.sampled_addmm(ADJACENCY.to_sparse_csr(), x, m.w), w=(5, 6)), lambda: X(6, 5),
        12 * 5, 1,
    ),
    "csr, mean": Case(
        do(lambda _, x: torch.sparse.mm(ADJACENCY.to_sparse_csr(), x, "mean")), lambda: X(6, 5), 12 * 5, 1
    ),
    "sparse by sparse": Case(
        do(lambda _, x: x.to_sparse() @ ADJACENCY.to_sparse()), lambda: ADJACENCY, int((ADJACENCY @ ADJACENCY).sum()), 1
    ),
    "index_add": Case(do(lambda _, x: X(6, 3).index_add(0, INDEX, x)), lambda: X(6, 3), 18, 0),
    "scatter_add": Case(do(lambda _, x: X(6, 3).scatter_add_(0, WIDE, x)), lambda: X(6, 3), 18, 0),
    "scatter, mean": Case(do(lambda _, x: X(6, 3).scatter_reduce(0, WIDE, x, "mean")), lambda: X(6, 3), 18, 0),
    "scatter, largest": Case(do(lambda _, x: X(6, 3).scatter_reduce(0, WIDE, x, "amax")), lambda: X(6, 3), 0, 0),
    "indexed, mean": Case(do(lambda _, x: X(6, 3).index_reduce(0, INDEX, x, "mean")), lambda: X(6, 3), 18, 0),
    "accumulated": Case(do(lambda _, x: X(6, 3).index_put((INDEX,), x, accumulate=True)), lambda: X(6, 3), 18, 0),
    "segments": Case(
        do(lambda _, x: torch.segment_reduce(x, "sum", lengths=torch.tensor([2, 4]))), lambda: X(6, 3), 18, 0
    ),
    "graph net": Case(do(convolved, w=(5, 4)), lambda: X(6, 5), 6 * 5 * 4 + 12 * 4, 1),
    "bag of rows": Case(lambda: nn.EmbeddingBag(10, 4), lambda: torch.arange(10).view(2, 5), 40, 0),
    "embedding": Case(
        lambda: nn.Sequential(nn.Embedding(9, 128), nn.Linear(128, 2)), lambda: torch.tensor([[1, 2, 3]]), 3 * 256, 1
    ),
    # quantised
    "quantised linear": Case(lambda: quantised(nn.Sequential(nn.Linear(16, 4)), nn.Linear), lambda: X(2, 16), 128, 1),
    "quantised conv": Case(packed, lambda: X(1, 3, 6, 6), 4 * 16 * 27, 1),
    "weights of 8 bits": Case(
        do(lambda _, x: torch._weight_int8pack_mm(x, I8(8, 4), torch.ones(8))), lambda: X(3, 4), 96, 1
    ),
    "quantised lstm": Case(
        lambda: quantised(nn.Sequential(nn.LSTM(5, 3, 2, bidirectional=True)), nn.LSTM), lambda: X(4, 2, 5),
        2 * 8 * 12 * (8 + 9), 8,
    ),
    # functions of functions
    "vmap": Case(do(lambda m, x: torch.vmap(lambda row: torch.tanh(m.w @ row))(x), w=(3, 4)), lambda: X(5, 4), 60, 1),
    "vmap over weights": Case(do(lambda m, x: torch.vmap(lambda w: x @ w)(m.w), w=(3, 4, 5)), lambda: X(2, 4), 120, 1),
    "slope": Case(do(slope, w=(4, 6), v=(6, 2)), lambda: X(3, 4), 3 * 2 * (24 + 12), 2),
    "slope of a conv": Case(
        do(lambda m, x: torch.func.grad(lambda y: F.conv2d(y, m.w).sum())(x), w=(4, 3, 3, 3)), lambda: X(1, 3, 6, 6),
        2 * 4 * 16 * 27, 0,
    ),
    "loop": Case(do(threefold, w=(4, 4)), lambda: X(2, 4), 3 * 32, 3),
    "mapped": Case(do(mapped, w=(4, 4)), lambda: X(5, 2, 4), 5 * 32, 1),
    "branch": Case(do(either, w=(4, 4)), lambda: torch.ones(2, 4), 32, 1),
    # nothing multiplies
    "pooling": Case(lambda: nn.Sequential(nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1)), lambda: X(1, 2, 4, 4), 0, 0),
    "norms": Case(lambda: nn.Sequential(nn.BatchNorm1d(4), nn.LayerNorm(4), nn.RMSNorm(4)), lambda: X(3, 4), 0, 0),
    "activations": Case(lambda: nn.Sequential(nn.GELU(), nn.Softmax(-1), nn.SiLU()), lambda: X(3, 4), 0, 0),
}  # fmt: skip
