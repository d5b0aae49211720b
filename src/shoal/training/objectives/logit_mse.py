"""Logit MSE: the net's outputs are drawn to a teacher's, number by number, beside the task.

    loss = weight * mean (net(x) - teacher(x))^2 + (1 - weight) * task loss

Nothing is softened: the outputs before any softmax are what is matched, so they must be as many.

With a ``token`` the rows are rows of tokens, and both are asked for changed ones too, which the teacher alone labels:
each word is hidden by the token with a chance of 0.1; of one row in four, only a run of 1 to 5 words is left.

Papers   distilling-task-specific-knowledge-from-bert (its words are also replaced by others of their kind)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shoal.core.base import Task
from shoal.core.errors import BadModel, BadSetting
from shoal.core.inputs import Inputs, answer_to
from shoal.training.objectives._teacher import Teacher

HIDDEN, CUT, LONGEST = 0.1, 0.25, 5  # chance that a word is hidden, that a row is cut, words that then stay at most


class LogitMSE:
    """An objective for `fit`. Settings: `weight`, the teacher's share of the loss; `smoothing`, of the task's share;
    `token`, the one that hides words, None to leave rows as they are.

    It asks a frozen copy of the teacher, which remembers what it answered.
    """

    def __init__(
        self,
        task: Task,
        teacher: nn.Module,
        *,
        weight: float = 1.0,
        smoothing: float = 0.0,
        token: int | None = None,
    ) -> None:
        if not 0 <= weight <= 1:
            raise BadSetting(f"logit_mse: weight={weight} must be a share, from 0 to 1")
        if token is not None and token < 0:
            raise BadSetting(f"logit_mse: token={token} is none; give the number of the one that hides words")
        self.task, self.weight, self.smoothing, self.token = task, weight, smoothing, token
        self.teacher = Teacher(teacher)

    def __call__(self, net: nn.Module, x: Inputs, y: Tensor) -> Tensor:
        """The loss of a batch."""
        given = answer_to(net, x)
        loss = self.weight * self._far(given, self.teacher.answer(x, given.device))
        if self.token is not None:
            changed = hidden(x, self.token)
            with torch.no_grad():  # what chance has changed does not come again, so it is not remembered
                wanted = answer_to(self.teacher.to(given.device), changed)
            loss = loss + self.weight * self._far(answer_to(net, changed), wanted)
        if self.weight < 1:
            loss = loss + (1 - self.weight) * self.task.loss(given, y, self.smoothing)
        return loss

    def _far(self, given: Tensor, wanted: Tensor) -> Tensor:
        """How far the outputs are from the teacher's."""
        if given.shape != wanted.shape:
            raise BadModel(
                f"logit_mse: the net gives {tuple(given.shape)}, the teacher {tuple(wanted.shape)}; make them equal"
            )
        return F.mse_loss(given, wanted)


def hidden(x: Inputs, token: int) -> Tensor:
    """Rows of tokens, (batch, length), some words hidden, and some rows cut to a short run of words."""
    if isinstance(x, dict):
        raise BadModel(f"logit_mse: {', '.join(x)} are inputs by names, not one tensor of tokens; leave token out")
    if x.dim() != 2 or x.is_floating_point():
        raise BadModel(f"logit_mse: {x.dtype} of shape {tuple(x.shape)} holds no rows of tokens; leave token out")
    rows, length = x.shape
    places = torch.arange(length, device=x.device)
    some = torch.randint(1, min(LONGEST, length) + 1, (rows, 1), device=x.device)
    first = (torch.rand(rows, 1, device=x.device) * (length - some + 1)).long()
    outside = (places < first) | (places >= first + some)
    gone = torch.where(torch.rand(rows, 1, device=x.device) < CUT, outside, places < 0)
    return x.masked_fill(gone | (torch.rand(rows, length, device=x.device) < HIDDEN), token)
