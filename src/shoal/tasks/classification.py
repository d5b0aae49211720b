"""Classification: one class of several for each example.

    loss = cross entropy;    score of an example = 1 where the largest output is the class;    quality = their mean

Shapes   output: (batch, classes);  target: (batch,) integers below classes
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from shoal.core.base import Task
from shoal.core.errors import BadSetting


class Classification(Task):
    """Settings: `classes`, how many there are."""

    metric, unit, head = "accuracy", "%", "pool"
    tiny = {"classes": 3}

    def __init__(self, *, classes: int) -> None:
        if classes < 2:
            raise BadSetting(f"task classification: classes={classes} leaves nothing to tell apart; give at least 2")
        self.classes = classes

    @property
    def outputs(self) -> int:
        return self.classes

    def loss(self, output: Tensor, target: Tensor, smoothing: float = 0.0) -> Tensor:
        return F.cross_entropy(output, target, label_smoothing=smoothing)

    def scores(self, output: Tensor, target: Tensor) -> Tensor:
        return (output.argmax(dim=-1) == target).double()

    def quality(self, scores: Tensor, target: Tensor) -> float:
        return float(scores.mean())

    def distil(self, output: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        wanted = F.log_softmax(teacher / temperature, dim=-1)
        given = F.log_softmax(output / temperature, dim=-1)
        return F.kl_div(given, wanted, reduction="batchmean", log_target=True) * temperature**2
