"""Next token: at every place of a sequence, the token that comes next.

    loss = cross entropy over all places;    score of an example = its mean log-likelihood;    quality = the mean score

Shapes   output: (batch, length, vocabulary);  target: (batch, length) integers below vocabulary
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from shoal.core.base import Task


class NextToken(Task):
    """Settings: `vocabulary`, how many tokens there are."""

    metric, unit, head = "log-likelihood", "nats", "every"
    tiny = {"vocabulary": 5}

    def __init__(self, *, vocabulary: int) -> None:
        self.vocabulary = vocabulary

    @property
    def outputs(self) -> int:
        return self.vocabulary

    def loss(self, output: Tensor, target: Tensor, smoothing: float = 0.0) -> Tensor:
        return F.cross_entropy(output.flatten(0, -2), target.flatten(), label_smoothing=smoothing)

    def scores(self, output: Tensor, target: Tensor) -> Tensor:
        rows = F.cross_entropy(output.flatten(0, -2), target.flatten(), reduction="none")
        return -rows.reshape(target.shape).double().mean(dim=-1)

    def quality(self, scores: Tensor, target: Tensor) -> float:
        return float(scores.mean())

    def distil(self, output: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        given = F.log_softmax(output.flatten(0, -2) / temperature, dim=-1)
        wanted = F.log_softmax(teacher.flatten(0, -2) / temperature, dim=-1)
        return F.kl_div(given, wanted, reduction="batchmean", log_target=True) * temperature**2
