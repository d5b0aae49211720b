"""Distil: the net learns to answer as a teacher does, beside its task.

    loss = weight * distance(net(x), teacher(x)) + (1 - weight) * task loss

The distance is the task's own: for classes the divergence of softened answers (times temperature squared), for numbers
the squared difference.
"""

from __future__ import annotations

from torch import Tensor, nn

from shoal.core.base import Task
from shoal.core.errors import BadModel, BadSetting
from shoal.core.inputs import Inputs, answer_to
from shoal.training.objectives._teacher import Teacher


class Distil:
    """An objective for `fit`. Settings: `temperature`, how much answers are softened; `weight`, the teacher's share of
    the loss; `smoothing`, of the task's share.

    It asks a frozen copy of the teacher, which remembers what it answered. Objectives that are given one and the same
    `Teacher` share what it knows.
    """

    def __init__(
        self,
        task: Task,
        teacher: nn.Module | Teacher,
        *,
        temperature: float = 4.0,
        weight: float = 0.9,
        smoothing: float = 0.0,
    ) -> None:
        if not temperature > 0:
            raise BadSetting(f"distil: temperature={temperature} must be above 0")
        if not 0 <= weight <= 1:
            raise BadSetting(f"distil: weight={weight} must be a share, from 0 to 1")
        self.task, self.temperature, self.weight, self.smoothing = task, temperature, weight, smoothing
        self.teacher = teacher if isinstance(teacher, Teacher) else Teacher(teacher)

    def __call__(self, net: nn.Module, x: Inputs, y: Tensor) -> Tensor:
        """The loss of a batch."""
        return self.against(answer_to(net, x), self.teacher.answer(x, y.device), y)

    def against(self, given: Tensor, wanted: Tensor, y: Tensor) -> Tensor:
        """The loss of answers where the teacher's are known."""
        if given.shape != wanted.shape:
            raise BadModel(
                f"distil: the net gives {tuple(given.shape)}, the teacher {tuple(wanted.shape)}; make them equal"
            )
        loss = self.weight * self.task.distil(given, wanted, self.temperature)
        if self.weight < 1:
            loss = loss + (1 - self.weight) * self.task.loss(given, y, self.smoothing)
        return loss
