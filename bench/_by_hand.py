"""The residual conv net as anybody would write it in plain PyTorch: channels first, no shoal in it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shoal.net import Net


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
    """A stem, ``depth`` residual layers, a head; (batch, channels, height, width) -> (batch, outputs)."""

    def __init__(self, channels: int, depth: int, dim: int, outputs: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, dim, 3, padding=1)
        self.layers = nn.ModuleList(HandLayer(dim) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x.mean(dim=(2, 3))))


def net_and_hand(channels: int, depth: int, dim: int, outputs: int = 10) -> tuple[Net, HandNet]:
    """The native net and the one by hand, with the same random weights and batch statistics, in eval mode."""
    from shoal.core.spec import Spec

    torch.manual_seed(0)
    net = Net(Spec.parse(f"convolution[channels={channels}] | residual(conv) {depth}x{dim} | pool[outputs={outputs}]"))
    hand = HandNet(channels, depth, dim, outputs)
    mine, theirs = net.state_dict(), hand.state_dict()
    for name in mine:
        if name.endswith(("running_mean", "inner.bias")):
            mine[name].normal_(0, 0.1)
        elif name.endswith(("running_var", "inner.weight")):
            mine[name].uniform_(0.5, 1.5)
    pairs = {"stem": "stem.first", "norm": "head.norm", "head": "head.map"}
    for i in range(depth):
        block = f"stages.0.layers.{i}.block"
        parts = {"conv1": "first", "bn": "inner", "conv2": "second"}
        pairs |= {f"layers.{i}.{part}": f"{block}.{own}" for part, own in parts.items()}
    for name, value in theirs.items():
        module, _, leaf = name.rpartition(".")
        if leaf != "num_batches_tracked":
            value.copy_(mine[f"{pairs[module]}.{leaf}"])
    return net.eval(), hand.eval()
