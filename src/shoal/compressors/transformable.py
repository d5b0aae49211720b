"""Transformable: the widths of layers and the depths of stages are distributions, and a gradient moves them to a cost.

    loss of a choice = loss of the net with widths and depths drawn + weight * cost
    cost  = log E[F] where E[F] > 1.05 R,  -log E[F] where E[F] < 0.95 R,  else 0;    R = target * F of the whole net

A Gumbel softmax draws two candidates of each; its temperature falls from 10 to 0.1. Weights learn on one half of the
lessons, choices on the other, turn by turn, on a private copy whose batch statistics stay. F counts the weights of the
layers, each as often as there are places where it is applied. In the end the most likely sizes are proposed: the widths
of a layer as one proposal, the last layers of a stage as another. It works on a Net.

The units of a trained net have an order, the heaviest first, and those beyond a candidate are masked, as they are once
narrowed. The paper trains anew, and there stretches narrow outputs to the width of wider ones: `align` says which.

Papers   network-pruning-via-transformable-architecture-search
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch

from shoal.compressors._choices import Choices
from shoal.compressors._lessons import called, chance, learnable, lessons, loss
from shoal.compressors._mixing import Align, left_early, priced
from shoal.compressors._proposing import possible
from shoal.core.base import Compressor, Proposal
from shoal.core.errors import BadSetting
from shoal.core.scene import Scene
from shoal.edits.drop import Drop
from shoal.edits.narrow import Narrow
from shoal.net import Net

HOT, COLD = 10.0, 0.1  # the temperature at the beginning and in the end
SLACK = 0.05  # of the target
TUNING = 1e-3  # the learning rate of the copy's weights


class Transformable(Compressor):
    """Settings: `shares` of a width that may stay; `target`, the share of the cost that is to stay; `weight` of the
    cost; `steps`, of which every second moves the choices; `lr` of the choices; `align`, mask or stretch."""

    tiny = {"steps": 6}

    def __init__(
        self,
        *,
        shares: tuple[float, ...] = (0.25, 0.5, 0.75),
        target: float = 0.5,
        weight: float = 2.0,
        steps: int = 120,
        lr: float = 0.1,
        align: Align = "mask",
    ) -> None:
        if not shares or not all(0 < share <= 1 for share in shares):
            raise BadSetting(f"compressor transformable: shares={shares} must be above 0 and at most 1")
        if not 0 < target < 1 or weight < 0:
            raise BadSetting(
                f"compressor transformable: target={target} must be below 1, and weight={weight} not below 0"
            )
        if steps < 2 or not lr > 0:
            raise BadSetting(f"compressor transformable: steps={steps}, lr={lr}; give at least 2 steps and lr above 0")
        self.shares, self.target, self.weight = shares, target, weight
        self.steps, self.lr, self.align = steps, lr, align

    def propose(self, scene: Scene) -> Iterator[Proposal]:
        if not isinstance(scene.module, Net) or not scene.anatomy.spans:
            return
        with chance(scene.seed):  # all of it before the first is given away: chance is not ours in between
            choices = self._learned(scene, scene.module)
        sizes = choices.chosen()
        for path in dict.fromkeys(one.units.path for one in choices.widths.values()):
            edits = tuple(
                Narrow(path=path, width=one.units.width, keep=tuple(sorted(one.order[: sizes[name]])))
                for name, one in choices.widths.items()
                if one.units.path == path and sizes[name] < one.units.count
            )
            if edits and possible(scene.module, proposal := Proposal(edits, (path,), into=path)):
                yield proposal
        for stage, depth in choices.depths.items():
            gone = [f"{stage}.layers.{layer}" for layer in range(sizes[stage], depth)]
            drops = tuple(Drop(path=path, branch=True) for path in reversed(gone))
            if gone and possible(scene.module, proposal := Proposal(drops, tuple(gone))):
                yield proposal

    def _learned(self, scene: Scene, net: Net) -> Choices:
        """The choices after all steps."""
        taught = lessons(scene)
        halves = (taught[::2], taught[1::2] or taught)
        private = copy.deepcopy(net).eval()
        choices = Choices(private, taught[0].batch.example, self.shares)
        if not choices.logits:
            return choices
        learners = (
            torch.optim.SGD(learnable(private), lr=TUNING),
            torch.optim.Adam(choices.logits.values(), lr=self.lr),
        )
        for step in range(self.steps):
            turn = step % 2
            lesson = halves[turn][step // 2 % len(halves[turn])]
            at = choices.draw(HOT + (COLD - HOT) * step / (self.steps - 1))
            with left_early(choices.stages(at)):
                given = called(private, lesson.batch.example, choices.weights(at, self.align))
            total = loss(scene, lesson, given)
            if turn:
                total = total + self.weight * priced(choices.expected(), self.target, SLACK)
            for learner in learners:
                learner.zero_grad()
            total.backward()
            learners[turn].step()
        return choices
