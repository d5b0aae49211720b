"""Exits: every exit of a net learns its task, and from the last answer.

    loss = task loss(last) + sum of weight * ( (1 - share) * task loss(exit) + share * distance(exit, last) )

The last answer teaches and does not learn from the exits: no gradient goes through it there. The distance is the task's
own, as in `distil`.

Papers   dynamic-perceiver-for-efficient-visual-recognition
"""

from __future__ import annotations

from torch import Tensor, nn

from shoal.core.base import Task
from shoal.core.errors import BadModel, BadSetting
from shoal.net import Net


class Exits:
    """An objective for `fit`, and the one of nets with exits where none is given. Settings: `weights`, one an exit
    (0.5 where not said); `share`, of an exit's loss that the last answer teaches; `temperature`, how much answers are
    softened there; `smoothing`, of the task's share.

    It trains a Net whose spec has exits, and no other module.
    """

    def __init__(
        self,
        task: Task,
        *,
        weights: tuple[float, ...] | None = None,
        share: float = 0.5,
        temperature: float = 1.0,
        smoothing: float = 0.0,
    ) -> None:
        if weights is not None and not all(weight >= 0 for weight in weights):
            raise BadSetting(f"exits: weights={weights} must be at least 0")
        if not 0 <= share <= 1:
            raise BadSetting(f"exits: share={share} must be a share, from 0 to 1")
        if not temperature > 0:
            raise BadSetting(f"exits: temperature={temperature} must be above 0")
        self.task, self.weights, self.share = task, weights, share
        self.temperature, self.smoothing = temperature, smoothing

    def __call__(self, net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """The loss of a batch."""
        if not isinstance(net, Net) or not net.spec.exits:
            raise BadModel(f"exits: {type(net).__name__} has none; write them in a spec, as in ... | 0.3: pool")
        *early, last = net.answers(x)
        weights = (0.5,) * len(early) if self.weights is None else self.weights
        if len(weights) != len(early):
            raise BadSetting(f"exits: {len(weights)} weights for {len(early)} exits; give one for each")
        loss = self.task.loss(last, y, self.smoothing)
        for weight, given in zip(weights, early, strict=True):
            loss = loss + weight * self._of(given, last.detach(), y)
        return loss

    def _of(self, given: Tensor, teacher: Tensor, y: Tensor) -> Tensor:
        """The loss of one exit."""
        if given.shape != teacher.shape:
            raise BadModel(f"exits: one gives {tuple(given.shape)}, the head {tuple(teacher.shape)}; make them equal")
        if self.share == 1:
            return self.task.distil(given, teacher, self.temperature)
        loss = (1 - self.share) * self.task.loss(given, y, self.smoothing)
        return loss + self.share * self.task.distil(given, teacher, self.temperature) if self.share else loss
