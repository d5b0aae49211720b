"""Students: what a module with some edits done is worth, after a few steps of teaching."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, islice

import torch
from torch import nn

from shoal.compressors._lessons import called, learnable, lessons, loss, score
from shoal.core.base import Edit
from shoal.core.errors import BadModel, Refused
from shoal.core.scene import Scene
from shoal.recipe import replayed

TEACHING = 1e-3  # the learning rate of students


class Trial:
    """Makes students of a scene's module and says what they are worth; the module itself is never touched."""

    def __init__(self, scene: Scene, steps: int) -> None:
        self.scene, self.steps = scene, steps
        self.taught = lessons(scene)
        self.size = sum(weight.numel() for weight in scene.module.parameters())
        self.quality = score(scene, self.taught, scene.module)

    def reward(self, edits: Sequence[Edit]) -> float:
        """What the student with these edits is worth."""
        try:
            student = replayed(self.scene.module, edits).train()
            self._teach(student)
            quality = score(self.scene, self.taught, student)
        except (Refused, BadModel):
            return -1.0
        less = 1 - sum(weight.numel() for weight in student.parameters()) / self.size
        return worth(less, quality / self.quality if self.quality > 0 else 1.0)

    def _teach(self, student: nn.Module) -> None:
        """Some steps towards the module's answers; a student that has no weights left cannot learn."""
        weights = learnable(student)
        if not weights:
            return
        optimizer = torch.optim.Adam(weights, lr=TEACHING)
        for lesson in islice(cycle(self.taught), self.steps):
            optimizer.zero_grad()
            loss(self.scene, lesson, called(student, lesson.batch.example)).backward()
            optimizer.step()


def worth(less: float, quality: float) -> float:
    """The reward for a share of weights that is gone and a share of quality that is left."""
    return less * (2 - less) * quality
