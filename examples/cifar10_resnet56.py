"""A pretrained ResNet-56 for CIFAR-10, made shallower: a plain module, known to shoal by nothing but running.

    python examples/cifar10_resnet56.py                      prints a table as the README shows it
    shoal compress examples/cifar10_resnet56.py:model examples/cifar10_resnet56.py:data --to "latency<=30%" ...

Weights and images are read from $SHOAL_DATA (default ../shared/data): cifar10_resnet56.safetensors and cifar10_*.npz.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

import shoal
from shoal.report.tables import tables
from shoal.training import TrainingRecipe

FOLDER = Path(os.environ.get("SHOAL_DATA", Path(__file__).parents[2] / "shared" / "data"))


class Block(nn.Module):
    """Two convolutions and a skip; where the width doubles, the skip takes every second pixel and pads with zeros."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.stride, self.pad = outputs // inputs, (outputs - inputs) // 2
        self.conv1 = nn.Conv2d(inputs, outputs, 3, self.stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.stride > 1:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.pad, self.pad))
        return F.relu(x + y)


class ResNet(nn.Module):
    """The CIFAR ResNet of 6 n + 2 layers; takes bytes, (batch, 3, 32, 32)."""

    def __init__(self, blocks: int = 9) -> None:
        super().__init__()
        self.register_buffer("mean", 255 * torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1), persistent=False)
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(Block(16, 16) for _ in range(blocks)))
        self.layer2 = nn.Sequential(Block(16, 32), *(Block(32, 32) for _ in range(blocks - 1)))
        self.layer3 = nn.Sequential(Block(32, 64), *(Block(64, 64) for _ in range(blocks - 1)))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1((x - self.mean) / self.std)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean(dim=(2, 3)))


def model() -> nn.Module:
    """The pretrained network, 93.39% on the test images."""
    net = ResNet()
    net.load_state_dict(load_file(FOLDER / "cifar10_resnet56.safetensors"), strict=True)
    return net.eval()


def data() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training and test images as bytes, channels first, as the network takes them."""
    images = shoal.open_data("cifar10", as_given=True)
    train_x = torch.cat((images.train.x, images.valid.x)).movedim(-1, 1).contiguous()
    train_y = torch.cat((images.train.y, images.valid.y))
    return train_x, train_y, images.test.x.movedim(-1, 1).contiguous(), images.test.y


def main() -> None:
    """Compress, print the table, save the run folder."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--to", default="latency<=30%")
    options.add_argument("--keep", default="-3pt")
    options.add_argument("--epochs", type=float, default=1.0, help="of healing, and of each control")
    options.add_argument("--no-controls", action="store_true")
    options.add_argument("--out", default="runs/resnet56")
    asked = options.parse_args()
    began = time.perf_counter()
    found = shoal.compress(
        model(),
        data(),
        to=asked.to,
        keep=asked.keep,
        base="examples/cifar10_resnet56.py:model",
        recipe=TrainingRecipe(
            lr=2e-3, batch=128, epochs=asked.epochs, clip=1.0, ema=0.99, views=4, augment=("flip", "crop")
        ),
        controls=not asked.no_controls,
        progress=lambda line: print(f"[{time.perf_counter() - began:5.0f} s] {line}", flush=True),
    )
    console = Console(width=110)
    for table in tables(found.report):
        console.print(table)
    print("saved:", shoal.save(found, asked.out, overwrite=True))


if __name__ == "__main__":
    main()
