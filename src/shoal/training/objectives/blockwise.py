"""Blockwise: every span of the net learns by itself what a teacher does between two places.

    loss = mean over spans of  |w - f(u)|^2 / |w - u|^2        a branch: f(u) + u in the place of f(u)

u and w are states of the teacher's stream, read by the spans that begin there: a span that stands for several of the
teacher's is taught by where the first begins and where the next one begins that is left in the net. No gradient goes
from span to span, and no error either: each is given what the teacher's was given. 1 is as far as doing nothing is.

What lies between spans, and behind the last, is not run and stays as it is.

Papers   fitnets-hints-for-thin-deep-nets (there one hint, and what is before it learns as a whole)
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import suppress

import torch
from torch import Tensor, nn

from shoal.core.base import Task
from shoal.core.errors import BadModel, BadSetting
from shoal.core.inputs import Inputs, run_on
from shoal.core.spans import Left
from shoal.training.objectives._watched import reading

Lesson = tuple[str, str, str, bool]  # span of the net, where the teacher begins and ends, and whether it is a branch


class Blockwise:
    """An objective for `fit`. Settings: `lessons`, (span of the net, the teacher's span that reads u, that which reads
    w, whether the net's span is added to the stream by somebody else); spans take the state alone.

    It asks a frozen copy of the teacher, as `distil` does.
    """

    def __init__(self, task: Task, teacher: nn.Module, *, lessons: Sequence[Lesson]) -> None:
        if not lessons:
            raise BadSetting("blockwise: lessons is empty; name a span and what it stands for, or use hints")
        self.task, self.lessons = task, tuple(lessons)
        self.teacher = copy.deepcopy(teacher).eval().requires_grad_(False)

    def __call__(self, net: nn.Module, x: Inputs, y: Tensor) -> Tensor:
        """The loss of a batch."""
        places = [place for _, first, last, _ in self.lessons for place in (first, last)]
        with reading(self.teacher.to(y.device), places, leave=True) as states, suppress(Left), torch.no_grad():
            run_on(self.teacher, x)
        far: list[Tensor] = []
        for path, first, last, branch in self.lessons:
            if first not in states or last not in states or states[first].shape != states[last].shape:
                raise BadModel(f"blockwise: {first} and {last} read no states of one shape; pair spans of one stream")
            u, w = states[first], states[last]
            given: Tensor = net.get_submodule(path)(u.clone())
            made = given + u if branch else given
            far.append((w - made).square().sum() / (w - u).square().sum().clamp_min(1e-12))
        return torch.stack(far).mean()
