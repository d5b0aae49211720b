"""Networks with parts that are seldom seen, as people write them by hand; see `families`."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class WindowBlock(nn.Module):
    """Swin's: attention within windows, which are shifted, with a table of biases by distance."""

    def __init__(self, dim: int, heads: int, shift: int, size: int = 4, window: int = 2) -> None:
        super().__init__()
        self.heads, self.shift, self.size, self.window = heads, shift, size, window
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))
        self.relative_position_bias_table = nn.Parameter(torch.randn((2 * window - 1) ** 2, heads) / 10)
        places = torch.stack(torch.meshgrid(*2 * [torch.arange(window)], indexing="ij")).flatten(1)
        apart = (places[:, :, None] - places[:, None, :] + window - 1).permute(1, 2, 0)
        self.register_buffer("index", apart[..., 0] * (2 * window - 1) + apart[..., 1])

    def forward(self, x: Tensor) -> Tensor:
        b, n, dim = x.shape
        g, w = self.size // self.window, self.window
        y = self.norm1(x).view(b, self.size, self.size, dim)
        y = torch.roll(y, (-self.shift, -self.shift), (1, 2)) if self.shift else y
        y = y.view(b, g, w, g, w, dim).permute(0, 1, 3, 2, 4, 5).reshape(-1, w * w, dim)
        q, k, v = self.qkv(y).reshape(len(y), w * w, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-2, -1) / (dim // self.heads) ** 0.5
        bias = self.relative_position_bias_table[self.index.view(-1)].view(w * w, w * w, -1)
        y = (scores + bias.permute(2, 0, 1).unsqueeze(0)).softmax(-1) @ v
        y = self.proj(y.transpose(1, 2).reshape(len(y), w * w, -1))
        y = y.view(b, g, g, w, w, dim).permute(0, 1, 3, 2, 4, 5).reshape(b, self.size, self.size, dim)
        y = torch.roll(y, (self.shift, self.shift), (1, 2)) if self.shift else y
        x = x + y.reshape(b, n, dim)
        return x + self.mlp(self.norm2(x))


class Swin(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches, self.norm, self.head = nn.Conv2d(3, 12, 2, 2), nn.LayerNorm(12), nn.Linear(12, 3)
        self.blocks = nn.ModuleList(WindowBlock(12, 3, shift) for shift in (0, 1, 0))

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(1))


class Video(nn.Module):
    """Convolutions in three axes, norms of each instance."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv3d(1, 6, 3, padding=1), nn.InstanceNorm3d(6, affine=True), nn.LeakyReLU(0.1), nn.MaxPool3d(2),
            nn.Conv3d(6, 12, 3, padding=1), nn.GroupNorm(3, 12), nn.SiLU(), nn.AdaptiveAvgPool3d(1),
        )  # fmt: skip
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).flatten(1))


class Generator(nn.Module):
    """From noise up: transposed convolutions, pixels shuffled, weights of known spectrum in between."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(6, 12 * 4)
        self.up = nn.Sequential(
            nn.BatchNorm2d(12), nn.ConvTranspose2d(12, 8, 2, 2), nn.PReLU(8),
            nn.utils.parametrizations.spectral_norm(nn.Conv2d(8, 16, 3, padding=1)), nn.PixelShuffle(2), nn.ELU(),
            nn.Conv2d(4, 1, 3, padding=1), nn.Tanh(),
        )  # fmt: skip

    def forward(self, z: Tensor) -> Tensor:
        return self.up(self.enter(z).view(-1, 12, 2, 2))


class OldNorm(nn.Module):
    """Weights normed in the way that torch had before parametrizations: a tensor of a run lies in the module."""

    def __init__(self) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.first = nn.utils.weight_norm(nn.Linear(10, 24))
            self.second = nn.utils.weight_norm(nn.Linear(24, 24))
        self.last = nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        return self.last(x + F.relu(self.second(x)))


class Straight(torch.autograd.Function):
    """The sign, with the slope of the identity."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # type: ignore[override]
        return x.sign()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        return grad


class Binary(nn.Module):
    """Activations and weights of one bit, by a function with a slope of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(10, 24), nn.BatchNorm1d(24)
        self.weight = nn.Parameter(torch.randn(24, 24) / 5)
        self.last = nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = Straight.apply(self.norm(self.first(x)))
        return self.last(F.linear(y, Straight.apply(self.weight)) / 24)


class Codebook(nn.Module):
    """The nearest of some vectors stands for each; the slope goes straight through."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(10, 16), nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 3))
        self.codes = nn.Embedding(8, 16)

    def forward(self, x: Tensor) -> Tensor:
        z = self.enter(x)
        nearest = torch.cdist(z, self.codes.weight).argmin(dim=-1)
        return self.leave(z + (self.codes(nearest) - z).detach())


class Ode(nn.Module):
    """Steps of Runge and Kutta through one field."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(10, 12), nn.Linear(12, 3)
        self.field = nn.Sequential(nn.Linear(13, 24), nn.Tanh(), nn.Linear(24, 12))

    def slope(self, t: float, x: Tensor) -> Tensor:
        return self.field(torch.cat([x, torch.full_like(x[:, :1], t)], dim=1))

    def forward(self, x: Tensor) -> Tensor:
        x, h = self.enter(x), 0.25
        for step in range(4):
            a = self.slope(step * h, x)
            b = self.slope((step + 0.5) * h, x + 0.5 * h * a)
            x = x + h * b
        return self.leave(x)


class Hyper(nn.Module):
    """One net makes the weights of another, for each row its own."""

    def __init__(self) -> None:
        super().__init__()
        self.maker = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 6 * 8 + 8))
        self.leave = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        made = self.maker(x[:, :4])
        weight, bias = made[:, :48].view(-1, 8, 6), made[:, 48:]
        return self.leave(F.relu(torch.bmm(weight, x[:, 4:, None]).squeeze(-1) + bias))


class Film(nn.Module):
    """A condition scales and shifts the channels of a convolution; branches in a dict of modules."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 10, 3, padding=1)
        self.branches = nn.ModuleDict({"thin": nn.Conv2d(10, 10, 1), "wide": nn.Conv2d(10, 10, 3, padding=1)})
        self.film, self.head = nn.Linear(3, 20), nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        scale, shift = self.film(x.mean((2, 3)))[:, :, None, None].chunk(2, dim=1)
        y = F.instance_norm(self.stem(x)) * (1 + scale) + shift
        y = y + sum(F.relu(branch(y)) for branch in self.branches.values())
        return self.head(F.adaptive_max_pool2d(y, 1)[:, :, 0, 0])


class ConvLSTM(nn.Module):
    """Gates by a convolution of the picture and the state, stepped over time."""

    def __init__(self, hidden: int = 6) -> None:
        super().__init__()
        self.hidden = hidden
        self.gates, self.head = nn.Conv2d(1 + hidden, 4 * hidden, 3, padding=1), nn.Linear(hidden, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(x.shape[0], self.hidden, *x.shape[-2:])
        c = torch.zeros_like(h)
        for picture in x.unbind(1):
            i, f, o, g = self.gates(torch.cat([picture.unsqueeze(1), h], dim=1)).split(self.hidden, dim=1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        return self.head(h.mean((2, 3)))


class Bags(nn.Module):
    """Words in bags, their pairs by a bilinear form."""

    def __init__(self) -> None:
        super().__init__()
        self.bags = nn.EmbeddingBag(11, 12, mode="mean")
        self.pairs, self.head = nn.Bilinear(12, 12, 10), nn.Linear(10, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.pairs(self.bags(ids[:, :3]), self.bags(ids[:, 3:])).tanh())


class Capsules(nn.Module):
    """Votes that agree are heard, in three rounds."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.votes = nn.Linear(10, 24), nn.Parameter(torch.randn(6, 3, 4, 5) / 3)

    def forward(self, x: Tensor) -> Tensor:
        u = torch.einsum("bid,ijde->bije", self.enter(x).view(-1, 6, 4), self.votes)
        b = torch.zeros_like(u[..., 0])
        for _ in range(3):
            s = (b.softmax(dim=2).unsqueeze(-1) * u).sum(dim=1)
            v = s * s.square().sum(-1, keepdim=True) / (1 + s.square().sum(-1, keepdim=True))
            b = b + (u * v.unsqueeze(1)).sum(-1)
        return v.norm(dim=-1)


class Scripted(nn.Module):
    """A part of it is a frozen text of instructions."""

    def __init__(self) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.inner = torch.jit.script(nn.Sequential(nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 12)))
        self.enter, self.leave = nn.Linear(10, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        return self.leave(x + self.inner(x))


class Frozen(nn.Module):
    """Features that were learned elsewhere and stay, and a head that learns."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 12, 3, 2, 1), nn.ReLU(), nn.Conv2d(12, 16, 3, 2, 1), nn.ReLU())
        self.body.requires_grad_(False)
        self.head = nn.Sequential(nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).flatten(1))


class Projected(nn.Module):
    """An LSTM whose states are projected, packed by lengths that it finds itself."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8, padding_idx=0)
        self.rnn, self.head = nn.LSTM(8, 16, batch_first=True, proj_size=6), nn.Linear(6, 3)

    def forward(self, ids: Tensor) -> Tensor:
        lengths = (ids > 0).sum(1).cpu()
        packed = nn.utils.rnn.pack_padded_sequence(self.embed(ids), lengths, batch_first=True, enforce_sorted=False)
        _, (h, _) = self.rnn(packed)
        return self.head(h[-1])


class Copying(nn.Module):
    """It keeps what it computed last, for whoever wants to look at it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(10, 32), nn.Linear(32, 3)
        self.seen: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.seen = F.relu(self.first(x))
        return self.last(self.seen)
