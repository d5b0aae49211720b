"""The residual conv net as anybody would write it in plain PyTorch: channels first, no shoal in it."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shoal.core.spec import Spec
from shoal.net import Net

Stages = tuple[tuple[int, int], ...]  # (depth, dim) of each
SHAPES: dict[str, tuple[int, Stages, int]] = {  # what the nets are called -> channels, stages, side of the image
    "24x16, 8x8x1": (1, ((24, 16),), 8),
    "12x32, 32x32x3": (3, ((12, 32),), 32),
    "9x16-9x32-9x64, 32x32x3": (3, ((9, 16), (9, 32), (9, 64)), 32),
}


class HandLayer(nn.Module):
    """conv, batch norm, relu, conv."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(dim, dim, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(dim)
        self.conv2 = nn.Conv2d(dim, dim, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.bn(self.conv1(x))))


class HandNet(nn.Module):
    """A stem, stages of residual layers, a head; (batch, channels, height, width) -> (batch, outputs)."""

    def __init__(self, channels: int, stages: Stages, outputs: int) -> None:
        super().__init__()
        dims = [dim for _, dim in stages]
        self.stem = nn.Conv2d(channels, dims[0], 3, padding=1)
        self.stages = nn.ModuleList(nn.ModuleList(HandLayer(dim) for _ in range(depth)) for depth, dim in stages)
        self.joins = nn.ModuleList(nn.Conv2d(before, dim, 1) for before, dim in pairwise(dims))
        self.norm = nn.LayerNorm(dims[-1])
        self.head = nn.Linear(dims[-1], outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for i, stage in enumerate(self.stages):
            if i:
                x = self.joins[i - 1](F.avg_pool2d(x, 2))
            for layer in stage:
                x = layer(x)
        return self.head(self.norm(x.mean(dim=(2, 3))))


def net_and_hand(channels: int, stages: Stages, outputs: int = 10) -> tuple[Net, HandNet]:
    """The native net and the one by hand, with the same random weights and batch statistics, in eval mode."""
    torch.manual_seed(0)
    shape = "-".join(f"{depth}x{dim}" for depth, dim in stages)
    net = Net(Spec.parse(f"convolution[channels={channels}] | residual(conv) {shape} | pool[outputs={outputs}]"))
    hand = HandNet(channels, stages, outputs)
    mine, theirs = net.state_dict(), hand.state_dict()
    for name in mine:
        if name.endswith(("running_mean", "inner.bias")):
            mine[name].normal_(0, 0.1)
        elif name.endswith(("running_var", "inner.weight")):
            mine[name].uniform_(0.5, 1.5)
    pairs = {"stem": "stem.first", "norm": "head.norm", "head": "head.map"}
    pairs |= {f"joins.{i}": f"stages.{i + 1}.join.map" for i in range(len(stages) - 1)}
    parts = {"conv1": "first", "bn": "inner", "conv2": "second"}
    for i, (depth, _) in enumerate(stages):
        for j in range(depth):
            block = f"stages.{i}.layers.{j}.block"
            pairs |= {f"stages.{i}.{j}.{part}": f"{block}.{own}" for part, own in parts.items()}
    for name, value in theirs.items():
        module, _, leaf = name.rpartition(".")
        if leaf != "num_batches_tracked":
            value.copy_(mine[f"{pairs[module]}.{leaf}"].view_as(value))
    return net.eval(), hand.eval()
