"""Regression: numbers for each example.

    loss = mean squared error;    score of an example = minus its squared error;    quality = R2

Shapes   output, target: (batch, outputs)
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from shoal.core.base import Task


class Regression(Task):
    """Settings: `outputs`, how many numbers."""

    metric, unit, head = "R2", "", "pool"
    tiny = {"outputs": 2}

    def __init__(self, *, outputs: int = 1) -> None:
        self._outputs = outputs

    @property
    def outputs(self) -> int:
        return self._outputs

    def loss(self, output: Tensor, target: Tensor, smoothing: float = 0.0) -> Tensor:
        return F.mse_loss(output, target)

    def scores(self, output: Tensor, target: Tensor) -> Tensor:
        return -(output.double() - target.double()).square().mean(dim=-1)

    def quality(self, scores: Tensor, target: Tensor) -> float:
        spread = (target.double() - target.double().mean(dim=0)).square().mean()
        return float(1 + scores.mean() / spread)

    def distil(self, output: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        return F.mse_loss(output, teacher)
