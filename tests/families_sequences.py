"""Networks for sequences, as people write them by hand, and models of transformers; see `families`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from strangers import Encoder


class Chomp(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, : -self.size].contiguous()


class TemporalBlock(nn.Module):
    """Dilated causal convolutions with normed weights, a skip with a projection."""

    def __init__(self, inputs: int, outputs: int, dilation: int) -> None:
        super().__init__()
        normed = nn.utils.parametrizations.weight_norm
        self.conv1 = normed(nn.Conv1d(inputs, outputs, 3, padding=2 * dilation, dilation=dilation))
        self.conv2 = normed(nn.Conv1d(outputs, outputs, 3, padding=2 * dilation, dilation=dilation))
        self.net = nn.Sequential(
            self.conv1, Chomp(2 * dilation), nn.ReLU(), nn.Dropout(0.1), self.conv2, Chomp(2 * dilation), nn.ReLU()
        )
        self.downsample = nn.Conv1d(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        res = x if self.downsample is None else self.downsample(x)
        return F.relu(self.net(x) + res)


class TCN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(*(TemporalBlock(8 if i else 3, 8, 2**i) for i in range(3)))
        self.linear = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.network(x.transpose(1, 2))[:, :, -1])


class WaveNet(nn.Module):
    """Gated dilated convolutions, the skips of all layers added."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv1d(3, 8, 1)
        self.filters = nn.ModuleList(nn.Conv1d(8, 16, 2, dilation=2**i) for i in range(3))
        self.residual = nn.ModuleList(nn.Conv1d(8, 8, 1) for _ in range(3))
        self.skips = nn.ModuleList(nn.Conv1d(8, 12, 1) for _ in range(3))
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x, heard = self.enter(x.transpose(1, 2)), 0
        for number, (both, residual, skip) in enumerate(zip(self.filters, self.residual, self.skips, strict=True)):
            a, b = both(F.pad(x, (2**number, 0))).chunk(2, dim=1)
            y = torch.tanh(a) * torch.sigmoid(b)
            heard = heard + skip(y)
            x = x + residual(y)
        return self.head(F.relu(heard).mean(-1))


class StackedLSTM(nn.Module):
    """Recurrent layers with skips between them, a norm behind each."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 10)
        self.rnns = nn.ModuleList(nn.LSTM(10, 10, batch_first=True) for _ in range(3))
        self.norms, self.head = nn.ModuleList(nn.LayerNorm(10) for _ in range(3)), nn.Linear(10, 3)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        for rnn, norm in zip(self.rnns, self.norms, strict=True):
            y, _ = rnn(x)
            x = norm(x + y)
        return self.head(x.mean(1))


class CellLoop(nn.Module):
    """A GRU cell of torch, stepped by a loop; the last state tells."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRUCell(5, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros(x.shape[0], 12)
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
        return self.head(h)


class NextWord(nn.Module):
    """A language model: a token at each place is foretold."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.rnn, self.head = nn.Embedding(11, 8), nn.GRU(8, 16, batch_first=True), nn.Linear(16, 11)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.rnn(self.embed(ids))[0])


class Pooled(nn.Module):
    """A body over tokens or places, and a head on their mean."""

    def __init__(self, body: nn.Module, width: int, *, of: int = 3) -> None:
        super().__init__()
        self.body, self.head = body, nn.Linear(width, of)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean(dim=1))


class MixerBlock(nn.Module):
    def __init__(self, places: int, dim: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.token_mix = nn.Sequential(nn.Linear(places, 12), nn.GELU(), nn.Linear(12, places))
        self.channel_mix = nn.Sequential(nn.Linear(dim, 24), nn.GELU(), nn.Linear(24, dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.token_mix(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channel_mix(self.norm2(x))


class MLPMixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 12, 2, 2)
        self.blocks, self.norm = nn.Sequential(*(MixerBlock(16, 12) for _ in range(3))), nn.LayerNorm(12)
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.patches(x).flatten(2).transpose(1, 2))).mean(1))


class SpatialGate(nn.Module):
    def __init__(self, dim: int, places: int) -> None:
        super().__init__()
        self.norm, self.proj = nn.LayerNorm(dim // 2), nn.Conv1d(places, places, 1)
        nn.init.constant_(self.proj.bias, 1.0)

    def forward(self, x: Tensor) -> Tensor:
        u, v = x.chunk(2, dim=-1)
        return u * self.proj(self.norm(v))


class GMLP(nn.Module):
    def __init__(self, dim: int, places: int) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(dim), nn.Linear(dim, 4 * dim), nn.Linear(2 * dim, dim)
        self.gate = SpatialGate(4 * dim, places)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(self.gate(F.gelu(self.up(self.norm(x)))))


def gmlp() -> nn.Module:
    return Pooled(nn.Sequential(nn.Linear(4, 10), *(GMLP(10, 6) for _ in range(3))), 10)


class SpectralConv(nn.Module):
    """FNO's layer: few modes, complex weights."""

    def __init__(self, width: int, modes: int) -> None:
        super().__init__()
        self.modes = modes
        self.weights = nn.Parameter(torch.randn(width, width, modes, dtype=torch.cfloat) / width)

    def forward(self, x: Tensor) -> Tensor:
        spectrum = torch.fft.rfft(x)
        out = torch.zeros_like(spectrum)
        out[:, :, : self.modes] = torch.einsum("bix,iox->box", spectrum[:, :, : self.modes], self.weights)
        return torch.fft.irfft(out, n=x.size(-1))


class FNO(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.p, self.q = nn.Linear(2, width), nn.Linear(width, 1)
        self.spectral = nn.ModuleList(SpectralConv(width, 4) for _ in range(3))
        self.w = nn.ModuleList(nn.Conv1d(width, width, 1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.p(x).permute(0, 2, 1)
        for spectral, w in zip(self.spectral, self.w, strict=True):
            x = x + F.gelu(spectral(x) + w(x))
        return self.q(x.permute(0, 2, 1))


class FNet(nn.Module):
    """Tokens mixed by a Fourier transform without weights."""

    def __init__(self, dim: int = 12) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.ff = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(x + torch.fft.fft(torch.fft.fft(x, dim=-1), dim=-2).real)
        return self.norm2(x + self.ff(x))


class LinearAttention(nn.Module):
    """Keys by values first; nothing is as long as the sequence twice."""

    def __init__(self, dim: int = 12, heads: int = 3) -> None:
        super().__init__()
        self.heads, self.norm = heads, nn.LayerNorm(dim)
        self.to_qkv, self.to_out = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = (t.view(b, n, self.heads, -1).transpose(1, 2) for t in self.to_qkv(self.norm(x)).chunk(3, dim=-1))
        q, k = q.softmax(dim=-1), k.softmax(dim=-2)
        out = torch.einsum("bhnd,bhde->bhne", q, torch.einsum("bhnd,bhne->bhde", k, v))
        return x + self.to_out(out.transpose(1, 2).reshape(b, n, -1))


class Perceiver(nn.Module):
    """Learned queries read the input by torch's attention, twice with the same weights."""

    def __init__(self) -> None:
        super().__init__()
        self.latents, self.enter = nn.Parameter(torch.randn(4, 12)), nn.Linear(4, 12)
        self.cross = nn.MultiheadAttention(12, 3, batch_first=True)
        self.own = nn.TransformerEncoderLayer(12, 3, 24, batch_first=True, norm_first=True, dropout=0.0)
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        memory, z = self.enter(x), self.latents.expand(len(x), -1, -1)
        for _ in range(2):
            z = self.own(z + self.cross(z, memory, memory, need_weights=False)[0])
        return self.head(z.mean(1))


class TorchTransformer(nn.Module):
    """nn.Transformer whole: an encoder, and a decoder that reads it."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(4, 12), nn.Linear(12, 3)
        self.body = nn.Transformer(12, 4, 2, 2, 24, dropout=0.1, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.enter(x)
        return self.leave(self.body(y, y[:, :3]).mean(1))


class SharedLayers(nn.Module):
    """As ALBERT: the same two layers stand in a list several times."""

    def __init__(self) -> None:
        super().__init__()
        first, second = Encoder(12), Encoder(12)
        self.enter, self.leave = nn.Linear(4, 12), nn.Linear(12, 3)
        self.layers = nn.ModuleList([first, second, first, second])

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        for layer in self.layers:
            x = layer(x)
        return self.leave(x.mean(1))


class RawTransformer(nn.Module):
    """All layers' matrices stacked in raw parameters."""

    def __init__(self, depth: int = 3, dim: int = 10) -> None:
        super().__init__()
        self.enter, self.leave = nn.Parameter(torch.randn(4, dim) / 2), nn.Parameter(torch.randn(dim, 3) / 3)
        self.qkv = nn.Parameter(torch.randn(depth, dim, 3 * dim) / 4)
        self.out = nn.Parameter(torch.randn(depth, dim, dim) / 4)
        self.up, self.down = (nn.Parameter(torch.randn(depth, *s) / 4) for s in ((dim, 2 * dim), (2 * dim, dim)))

    def forward(self, x: Tensor) -> Tensor:
        x = x @ self.enter
        for qkv, out, up, down in zip(self.qkv, self.out, self.up, self.down, strict=True):
            q, k, v = (F.layer_norm(x, x.shape[-1:]) @ qkv).chunk(3, dim=-1)
            x = x + F.scaled_dot_product_attention(q, k, v) @ out
            x = x + F.silu(F.layer_norm(x, x.shape[-1:]) @ up) @ down
        return x.mean(1) @ self.leave


SIZES = {"hidden_size": 12, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 24}
TEXT = {"vocab_size": 11, "max_position_embeddings": 12, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
GPT2 = {"n_embd": 12, "n_layer": 3, "n_head": 3, "n_positions": 12, "vocab_size": 11, "num_labels": 3}
T5 = {"d_model": 12, "d_kv": 4, "d_ff": 24, "num_layers": 3, "num_heads": 3, "vocab_size": 11}
DISTIL = {"dim": 12, "n_layers": 3, "n_heads": 3, "hidden_dim": 24, "num_labels": 3}


def hugging(name: str, config: str, **settings: Any) -> Callable[[], nn.Module]:
    """What makes a tiny model of transformers."""

    def make() -> nn.Module:
        transformers = pytest.importorskip("transformers", reason="needs the extra 'huggingface'")
        made: nn.Module = getattr(transformers, name)(getattr(transformers, config)(**settings))
        return made

    return make
