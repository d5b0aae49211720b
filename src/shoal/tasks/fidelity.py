"""Fidelity: what another network answers is what is asked for; nothing else need be known of the data.

    loss = |y - t|^2 / |t|^2;    score of an example = cosine(y, t);    quality = mean score

Shapes   output, target: (batch, ..., outputs), an example taken as one vector
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from shoal.core.base import Task
from shoal.core.errors import BadSetting


class Fidelity(Task):
    """Settings: `outputs`, how many numbers the network gives (at a place)."""

    metric, unit, head = "cosine", "%", "pool"
    tiny = {"outputs": 3}

    def __init__(self, *, outputs: int) -> None:
        if outputs < 1:
            raise BadSetting(f"task fidelity: outputs={outputs} is no answer; give at least 1")
        self._outputs = outputs

    @property
    def outputs(self) -> int:
        return self._outputs

    def loss(self, output: Tensor, target: Tensor, smoothing: float = 0.0) -> Tensor:
        return (output - target).square().sum() / target.square().sum().clamp_min(1e-12)

    def scores(self, output: Tensor, target: Tensor) -> Tensor:
        return F.cosine_similarity(output.flatten(1).double(), target.flatten(1).double(), dim=1).clamp(max=1.0)

    def quality(self, scores: Tensor, target: Tensor) -> float:
        return float(scores.mean())

    def distil(self, output: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        return self.loss(output, teacher)
