"""A small compression that tests interrupt, spoil and resume: its rows, its network, what is asked of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from shoal.compressed import Compression
from shoal.data import Dataset
from shoal.net import Net
from shoal.shrinking.stages import mark
from shoal.training import TrainingRecipe, train

SPEC = "residual(mlp) 6x8"
QUICK = TrainingRecipe(lr=2e-3, batch=32, epochs=3)
PAIRS = "flatten[together=[2],wide=[]]"  # small steps, so that several plans lead to the goal
ASKED: dict[str, Any] = {"to": "depth<=50%", "keep": "-40pt", "recipe": QUICK, "compressors": ("skip", PAIRS)}


def blobs(rows: int = 360) -> tuple[Tensor, Tensor]:
    """Three classes around places of their own."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(rows) % 3
    return torch.randn(rows, 6, generator=generator) + 2 * torch.eye(3, 6)[y], y


def trained(data: Dataset) -> Net:
    """A Net that tells them apart."""
    made = train(SPEC, data, TrainingRecipe(lr=5e-3, batch=32, epochs=4)).net
    assert isinstance(made, Net)
    return made


class Plain(nn.Module):
    """Layers of one width, as anybody writes them; ``change`` spoils what it answers."""

    def __init__(self, outputs: int = 3, change: Callable[[nn.Module, Tensor], Any] | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(6, 8)
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.Tanh()) for _ in range(5))
        self.last = nn.Linear(8, outputs)
        self.change = change or (lambda net, y: y)

    def forward(self, x: Tensor) -> Any:
        x = self.first(x)
        for layer in self.layers:
            x = x + 0.3 * layer(x)
        return self.change(self, self.last(x))


def same(one: Compression, other: Compression) -> bool:
    """Whether weights and the scores of controls are equal, bit for bit."""
    return mark(one.module) == mark(other.module) and [
        (each.name, each.result.scores.tolist()) for each in one.controls
    ] == [(each.name, each.result.scores.tolist()) for each in other.controls]
