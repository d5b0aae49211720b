"""Modules as strangers write them whose widths are coupled in all the ways there are."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from strangers import TinyResNet


class PlainCNN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 12, 3, padding=1), nn.BatchNorm2d(12), nn.GELU(), nn.AdaptiveAvgPool2d(1),
        )  # fmt: skip
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).flatten(1))


class DenseCat(nn.Module):
    """What was there is kept beside what is new; pooled to 2 x 2 and flattened."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.second = nn.Conv2d(6, 4, 3, padding=1)
        self.third = nn.Conv2d(10, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(18)
        self.head = nn.Linear(18 * 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        a = F.relu(self.first(x))
        b = torch.cat([a, F.relu(self.second(a))], dim=1)
        c = torch.cat([b, F.relu(self.third(b))], dim=1)
        return self.head(F.adaptive_avg_pool2d(self.norm(c), 2).flatten(1))


class Grouped(nn.Module):
    """Few large groups, then many small ones."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.up = nn.Conv2d(3, 16, 1)
        self.within = nn.Conv2d(16, 16, 3, padding=1, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.down = nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.relu(self.norm(self.within(F.relu(self.up(x)))))).mean((2, 3))


class Separable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.norm0 = nn.Conv2d(3, 8, 1, bias=False), nn.BatchNorm2d(8)
        self.depth, self.norm1 = nn.Conv2d(8, 16, 3, padding=1, groups=8), nn.BatchNorm2d(16)
        self.squeeze, self.excite = nn.Linear(16, 4), nn.Linear(4, 16)
        self.down = nn.Conv2d(16, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.hardswish(self.norm1(self.depth(F.relu6(self.norm0(self.up(x))))))
        gate = self.excite(F.relu(self.squeeze(y.mean((2, 3))))).sigmoid()
        return (x + self.down(y * gate[:, :, None, None])).flatten(2).sum(-1)


class FusedAttention(nn.Module):
    """One matrix for queries, keys and values; ``way``: how they are taken apart."""

    def __init__(self, way: str, dim: int = 12, heads: int = 4, size: int = 5) -> None:
        super().__init__()
        self.way, self.heads, self.size, self.inner = way, heads, size, heads * size
        self.scale = size**-0.5
        self.norm = nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * self.inner), nn.Linear(self.inner, dim)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        y = self.qkv(self.norm(x))
        if self.way == "view":
            q, k, v = y.view(b, n, 3, self.heads, self.size).permute(2, 0, 3, 1, 4)
        elif self.way == "chunk":
            q, k, v = (part.reshape(b, n, self.heads, -1).transpose(1, 2) for part in y.chunk(3, dim=-1))
        else:
            q, k, v = y.view(b, n, self.heads, 3 * self.size).transpose(1, 2).split(self.size, dim=-1)
        if self.way == "chunk":
            z = F.scaled_dot_product_attention(q, k, v)
        else:
            z = ((q @ k.transpose(-2, -1)) * self.scale).softmax(dim=-1) @ v
        return x + self.out(z.transpose(1, 2).reshape(b, n, self.inner))


class SharedKeys(nn.Module):
    """Grouped queries: two heads of queries read one of keys."""

    def __init__(self, fused: bool, dim: int = 12) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.size, self.fused = 6, 3, 4, fused
        self.q, self.k, self.v = (nn.Linear(dim, n * 4, bias=False) for n in (6, 3, 3))
        self.o = nn.Linear(24, dim)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q = self.q(x).view(b, n, self.heads, self.size).transpose(1, 2)
        k, v = (each(x).view(b, n, self.kv_heads, self.size).transpose(1, 2) for each in (self.k, self.v))
        if self.fused:
            z = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        else:
            times = self.heads // self.kv_heads
            k, v = (each.repeat_interleave(times, dim=1) for each in (k, v))
            z = (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(-1) @ v
        return x + self.o(z.transpose(1, 2).reshape(b, n, -1))


class TorchAttention(nn.Module):
    def __init__(self, batch_first: bool = True) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(12, 4, batch_first=batch_first)
        self.batch_first = batch_first

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.batch_first else x.transpose(0, 1)
        y = self.attention(y, y, y, need_weights=False)[0]
        return x + (y if self.batch_first else y.transpose(0, 1))


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], layers: int = 1, both: bool = False) -> None:
        super().__init__()
        self.rnn = kind(5, 6, num_layers=layers, bidirectional=both, batch_first=True)
        self.head = nn.Linear(12 if both else 6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0][:, -1])


class ByHand(nn.Module):
    """An LSTM cell of two matrices, stepped by a loop."""

    def __init__(self) -> None:
        super().__init__()
        self.x, self.h, self.hidden = nn.Linear(5, 24), nn.Linear(6, 24, bias=False), 6
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = c = x.new_zeros(len(x), self.hidden)
        for step in x.unbind(1):
            i, f, g, o = (self.x(step) + self.h(h)).chunk(4, dim=-1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        return self.head(h)


class Raw(nn.Module):
    """Matrices that are no modules."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.shift = nn.Parameter(torch.randn(5, 9)), nn.Parameter(torch.randn(9))
        self.down = nn.Parameter(torch.randn(9, 3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bi,io->bo", F.silu(x @ self.up + self.shift), self.down)


class Tied(nn.Module):
    """One matrix there and back, and one module in two places."""

    def __init__(self) -> None:
        super().__init__()
        self.there, self.mid = nn.Linear(5, 8), nn.Linear(8, 8)
        self.again = self.mid
        self.bias = nn.Parameter(torch.randn(5))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.there(x))
        y = y + F.relu(self.again(F.relu(self.mid(y))))
        return F.linear(y, self.there.weight.t(), self.bias)


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(5, 14), nn.Linear(7, 5)
        self.glu = nn.Sequential(nn.Linear(5, 10), nn.GLU(), nn.Linear(5, 5))

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.up(x).chunk(2, dim=-1)
        return self.glu(x + self.down(F.silu(a) * b))


class Mixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(6), nn.LayerNorm(6)
        self.tokens = nn.Sequential(nn.Linear(7, 10), nn.GELU(), nn.Linear(10, 7))
        self.channels = nn.Sequential(nn.Linear(6, 14), nn.GELU(), nn.Linear(14, 6))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norm2(x))


class Splines(nn.Module):
    """A KAN in few lines: bumps on a grid, one coefficient an edge and bump, and a SiLU beside them."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.inputs, self.outputs = inputs, outputs
        self.coefficients = nn.Parameter(torch.randn(outputs, inputs, 4))
        self.base = nn.Parameter(torch.randn(outputs, inputs))
        self.register_buffer("grid", torch.linspace(-1, 1, 4).expand(inputs, 4).clone())

    def forward(self, x: Tensor) -> Tensor:
        bumps = torch.exp(-((x.unsqueeze(-1) - self.grid) ** 2))
        return F.linear(F.silu(x), self.base) + torch.einsum("bik,oik->bo", bumps, self.coefficients)


class Spectral(nn.Module):
    def __init__(self, inputs: int, outputs: int, modes: int = 3) -> None:
        super().__init__()
        self.outputs, self.modes = outputs, modes
        self.weight = nn.Parameter(torch.randn(inputs, outputs, modes, dtype=torch.complex128))

    def forward(self, x: Tensor) -> Tensor:
        f = torch.fft.rfft(x)
        y = torch.zeros(len(x), self.outputs, f.shape[-1], dtype=f.dtype)
        y[:, :, : self.modes] = torch.einsum("bix,iox->box", f[:, :, : self.modes], self.weight)
        return torch.fft.irfft(y, n=x.shape[-1])


class FNO(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lift, self.down = nn.Conv1d(2, 6, 1), nn.Conv1d(6, 1, 1)
        self.spectral = nn.ModuleList(Spectral(6, 6) for _ in range(2))
        self.plain = nn.ModuleList(nn.Conv1d(6, 6, 1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.lift(x)
        for spectral, plain in zip(self.spectral, self.plain, strict=True):
            x = F.gelu(spectral(x) + plain(x))
        return self.down(x)


class Shuffled(nn.Module):
    """Grouped convolutions whose channels change groups in between."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 12, 1, groups=2)
        self.second = nn.Conv2d(12, 6, 1, groups=2)
        self.groups = 2

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.first(x))
        b, c, h, w = y.shape
        y = y.view(b, self.groups, c // self.groups, h, w).transpose(1, 2).reshape(b, c, h, w)
        return self.second(y)


class GraphNet(nn.Module):
    """Messages summed at nodes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 10), nn.Linear(10, 3)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        y = F.relu(self.first(x))
        heard = torch.zeros_like(y).index_add(0, edges[1], y[edges[0]])
        return self.second(heard + y)


class TokenModel(nn.Module):
    """An embedding, positions, an nn.TransformerEncoder and the embedding again to read out."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.places = nn.Embedding(11, 12), nn.Parameter(torch.randn(1, 7, 12))
        layer = nn.TransformerEncoderLayer(12, 4, 20, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.bias = nn.Parameter(torch.randn(11))

    def forward(self, ids: Tensor) -> Tensor:
        return F.linear(self.encoder(self.embed(ids) + self.places), self.embed.weight, self.bias)


class Normed(nn.Module):
    """Hidden units that a layer norm, a softmax or a pick by number sees all together."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.up, self.down = nn.Linear(5, 8), nn.Linear(8, 3)
        self.norm = nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.up(x)
        if self.way == "norm":
            y = self.norm(y)
        elif self.way == "softmax":
            y = y.softmax(dim=-1)
        elif self.way == "pick":
            y = y * y[:, :1] + y[:, 3:4]
        elif self.way == "unknown":
            y = torch.linalg.matrix_exp(torch.diag_embed(y)).diagonal(dim1=-2, dim2=-1)
        return self.down(y)


class UNet(nn.Module):
    """Down, up by a transposed convolution, and beside what was there; group norms."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.down = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 8, 3, 2, 1)
        self.norm, self.up = nn.GroupNorm(4, 8), nn.ConvTranspose2d(8, 6, 2, 2)
        self.mix, self.leave = nn.Conv2d(12, 5, 3, padding=1), nn.Conv2d(5, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = F.relu(self.enter(x))
        b = F.relu(self.norm(self.down(a)))
        return self.leave(F.leaky_relu(self.mix(torch.cat([a, self.up(b)], dim=1))))


class ShuffleUnit(nn.Module):
    """One half goes on, the other through a branch; then the channels are shuffled."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.leave = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)
        self.branch = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1, groups=4))

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.stem(x).chunk(2, dim=1)
        y = torch.cat([a, self.branch(b)], dim=1)
        n, c, h, w = y.shape
        return self.leave(y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w))


class Reader(nn.Module):
    """A torch decoder layer: attention to itself and to what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = nn.TransformerDecoderLayer(12, 4, 20, batch_first=True)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        return self.decoder(x, memory)


class TextCNN(nn.Module):
    """Convolutions of several lengths over words, the largest of each, side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(20, 8), nn.Linear(12, 2)
        self.filters = nn.ModuleList(nn.Conv1d(8, 6, size) for size in (2, 3))

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids).transpose(1, 2)
        return self.head(torch.cat([F.relu(each(x)).max(-1)[0] for each in self.filters], dim=1))


class Enlarged(nn.Module):
    """Channels laid out into pixels; weights normed in a parametrization."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.shuffle = nn.Conv2d(3, 16, 3, padding=1), nn.PixelShuffle(2)
        self.normed = nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 5, 1))
        self.last = nn.Conv2d(5, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.softplus(self.normed(self.shuffle(self.first(x)))))


def rows(*shape: int) -> Tensor:
    return torch.randn(2, *shape, dtype=torch.float64)


IMAGE = (3, 8, 8)
ZOO: dict[str, tuple[Callable[[], nn.Module], Callable[[], Any], dict[str, int]]] = {
    "cnn": (PlainCNN, lambda: rows(*IMAGE), {"body.0.weight": 8, "body.4.weight": 12}),
    "resnet": (
        lambda: TinyResNet(2),
        lambda: rows(1, 8, 8),
        {"conv.weight": 8, "layer1.0.conv1.weight": 8, "layer1.1.conv1.weight": 8, "layer2.0.conv1.weight": 16,
         "layer2.0.conv2.weight": 4, "layer2.1.conv1.weight": 16},
    ),
    "dense": (DenseCat, lambda: rows(*IMAGE), {"first.weight": 6, "second.weight": 4, "third.weight": 8}),
    "two groups": (lambda: Grouped(2), lambda: rows(*IMAGE), {"up.weight": 8, "within.weight": 8}),
    "eight groups": (lambda: Grouped(8), lambda: rows(*IMAGE), {"up.weight": 8}),
    "separable": (Separable, lambda: rows(*IMAGE), {"up.weight": 8, "squeeze.weight": 4}),
    "qkv view": (lambda: FusedAttention("view"), lambda: rows(7, 12), {"qkv.weight": 4}),
    "qkv chunk": (lambda: FusedAttention("chunk"), lambda: rows(7, 12), {"qkv.weight": 4}),
    "qkv by head": (lambda: FusedAttention("heads"), lambda: rows(7, 12), {"qkv.weight": 4}),
    "shared keys": (lambda: SharedKeys(False), lambda: rows(7, 12), {"q.weight": 3}),
    "shared keys fused": (lambda: SharedKeys(True), lambda: rows(7, 12), {"q.weight": 3}),
    "torch attention": (TorchAttention, lambda: rows(7, 12), {"attention.in_proj_weight": 4}),
    "torch attention, batch second": (
        lambda: TorchAttention(False), lambda: rows(7, 12), {"attention.in_proj_weight": 4},
    ),
    "lstm": (lambda: Recurrent(nn.LSTM), lambda: rows(6, 5), {"rnn.weight_ih_l0": 6}),
    "gru": (lambda: Recurrent(nn.GRU), lambda: rows(6, 5), {"rnn.weight_ih_l0": 6}),
    "rnn": (lambda: Recurrent(nn.RNN), lambda: rows(6, 5), {"rnn.weight_ih_l0": 6}),
    "lstm both ways": (lambda: Recurrent(nn.LSTM, 2, True), lambda: rows(6, 5), {"rnn.weight_ih_l0": 6}),
    "lstm by hand": (ByHand, lambda: rows(6, 5), {"x.weight": 6}),
    "raw": (Raw, lambda: rows(5), {"up": 9}),
    "tied": (Tied, lambda: rows(5), {"there.weight": 8}),
    "gated": (Gated, lambda: rows(5), {"up.weight": 7, "glu.0.weight": 5}),
    "mixer": (Mixer, lambda: rows(7, 6), {"tokens.0.weight": 10, "channels.0.weight": 14}),
    "kan": (
        lambda: nn.Sequential(Splines(4, 6), Splines(6, 3)), lambda: rows(4), {"0.base": 6, "0.coefficients": 4},
    ),
    "fno": (FNO, lambda: rows(2, 16), {"lift.weight": 6, "spectral.0.weight": 6, "spectral.1.weight": 6}),
    "shuffled": (Shuffled, lambda: rows(4, 5, 5), {"first.weight": 3}),
    "graph": (
        GraphNet,
        lambda: (torch.randn(9, 4, dtype=torch.float64), torch.randint(0, 9, (2, 20))),
        {"first.weight": 10},
    ),
    "unet": (
        UNet, lambda: rows(*IMAGE), {"enter.weight": 6, "down.weight": 4, "up.weight": 6, "mix.weight": 5},
    ),
    "shuffle unit": (ShuffleUnit, lambda: rows(3, 4, 4), {"stem.weight": 4}),
    "reader": (
        Reader,
        lambda: (rows(5, 12), rows(7, 12)),
        {"decoder.self_attn.in_proj_weight": 4, "decoder.multihead_attn.in_proj_weight": 4,
         "decoder.linear1.weight": 20},
    ),
    "text cnn": (
        TextCNN,
        lambda: torch.randint(0, 20, (2, 9)),
        {"embed.weight": 8, "filters.0.weight": 6, "filters.1.weight": 6},
    ),
    "enlarged": (
        Enlarged,
        lambda: rows(3, 4, 4),
        {"first.weight": 4, "normed.parametrizations.weight.original0": 5},
    ),
    "tokens": (
        TokenModel,
        lambda: torch.randint(0, 11, (2, 7)),
        {f"encoder.layers.{i}.{name}": n for i in range(2)
         for name, n in (("self_attn.in_proj_weight", 4), ("linear1.weight", 20))},
    ),
}  # fmt: skip
