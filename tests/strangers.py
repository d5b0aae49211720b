"""Modules as strangers write them, for the tests of anatomy, edits and compression."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class BasicBlock(nn.Module):
    """A post-activation residual block; in place, as many are."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.stride, self.pad = outputs // inputs, (outputs - inputs) // 2
        self.conv1 = nn.Conv2d(inputs, outputs, 3, self.stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)), inplace=True)))
        if self.stride > 1:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad))
        y += x
        return F.relu_(y)


class TinyResNet(nn.Module):
    """Two stages of blocks, channels first."""

    def __init__(self, blocks: int = 3) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(1, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8)
        self.layer1 = nn.Sequential(*(BasicBlock(8, 8) for _ in range(blocks)))
        self.layer2 = nn.Sequential(BasicBlock(8, 16), *(BasicBlock(16, 16) for _ in range(blocks - 1)))
        self.linear = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.conv(x)))
        return self.linear(self.layer2(self.layer1(x)).mean((2, 3)))


class Encoder(nn.Module):
    """A pre-norm transformer layer with its two sublayers as modules of their own."""

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = Attention(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.norm1(x)))
        return x + self.dropout(self.mlp(self.norm2(x)))


class Attention(nn.Module):
    """One head."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return self.out(F.scaled_dot_product_attention(q, k, v))


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module in float64 and eval with every weight and statistic drawn at random, norms included."""
    generator = torch.Generator().manual_seed(seed)
    module.double().eval()
    for name, value in module.state_dict().items():
        if value.is_floating_point():
            drawn = torch.randn(value.shape, generator=generator, dtype=torch.float64) / 3
            value.copy_(drawn.abs() + 0.5 if name.endswith("running_var") else drawn)
    return module
