"""Healer: plans are healed alike, each as a stage; rivals have the same chances, and learn of one teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from shoal.core.base import Task
from shoal.core.inputs import Inputs, answer_to
from shoal.core.spans import Span
from shoal.data import Dataset, Graph
from shoal.shrinking.healing import blocks_for, objective_for, shorter
from shoal.shrinking.planning import Plan
from shoal.shrinking.stages import Stages
from shoal.shrinking.unlabelled import own_answers
from shoal.training.engine import Objective
from shoal.training.objectives.distil import Distil
from shoal.training.recipe import TrainingRecipe
from shoal.training.train import Run

SCORED = 2000  # rows of the valid part that score a short healing
ALONE = 0.15  # of the whole healing is its first round, block by block


@dataclass
class Healer:
    """Heals what was made of one original.

    teacher   the original, which may be folded; ``spans`` are its spans on the example, ``graph`` what it reads
    recipe    of the whole healing
    answers   the objective of answers alone; one for all, so that what the teacher answered is known to the next plan;
              where the targets are its answers, it is not asked at all
    """

    task: Task
    teacher: nn.Module
    spans: Sequence[Span]
    example: Inputs
    data: Dataset
    recipe: TrainingRecipe
    seed: int
    stages: Stages
    graph: Graph | None = None
    answers: Objective | None = None

    def __post_init__(self) -> None:
        if self.answers is None:
            known = own_answers(self.data) and not self.recipe.augment
            self.answers = self._targets if known else Distil(self.task, self.teacher)

    def _targets(self, net: nn.Module, x: Inputs, y: Tensor) -> Tensor:
        return self.task.loss(answer_to(net, x), y)

    def heal(self, name: str, plan: Plan, share: float = 1.0, had: float = 0.0) -> Run:
        """For a share of the whole healing: a first round block by block, where spans correspond, then end to end by
        answers; where none does, by hidden states too. What was healed for a while has had its first round."""
        net, short = plan.module, had + share < 1 - 1e-9
        fit = blocks_for(self.task, self.teacher, plan, self.spans, self.example, self.graph)
        if fit is not None and not had:
            recipe = shorter(self.recipe, ALONE * share)
            first = self.stages.train(f"{name}-blocks", net, self._scored(True), recipe, self.seed, fit)
            if first.stopped == "interrupt":
                return first
            net, share = first.net, (1 - ALONE) * share
        answers = None if fit is None else self.answers
        whole = objective_for(self.task, self.teacher, plan, self.graph, answers)
        return self.stages.train(name, net, self._scored(short), shorter(self.recipe, share), self.seed, whole)

    def _scored(self, short: bool) -> Dataset:
        """The data with as much to score as is of use: the test part is asked once, when all is done, and after a short
        healing some of the valid part tell enough."""
        valid = self.data.valid.take(SCORED, self.seed) if short else self.data.valid
        return replace(self.data, valid=valid, test=self.data.test.take(2, self.seed))
