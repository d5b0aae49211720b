"""Lessons: how a private copy of a scene's module is taught and asked, without a mark on the module or on chance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from shoal.core.errors import ShoalError
from shoal.core.example import arguments, failed, unmarked
from shoal.core.scene import Batch, Scene, answer, cut

ROWS = 64  # of a lesson, where a batch may be cut


@dataclass(frozen=True)
class Lesson:
    """Some rows and what the scene's module answers to them."""

    batch: Batch
    wanted: Tensor


def lessons(scene: Scene, rows: int = ROWS) -> tuple[Lesson, ...]:
    """The scene's rows in lessons of at most so many, in their order."""
    pieces = [
        cut(batch, rows, start) for batch in scene.batches for start in range(0, 1 if batch.whole else batch.rows, rows)
    ]
    with unmarked(scene.module), torch.no_grad():
        return tuple(Lesson(piece, called(scene.module, piece.example).clone()) for piece in pieces)


def called(module: nn.Module, example: Any, weights: Mapping[str, Tensor] | None = None) -> Tensor:
    """What a module answers to an example; with other weights in the place of some of its own. Raises BadModel where it
    does not run."""
    args, kwargs = arguments(example)
    try:
        if weights is None:
            return answer(module(*args, **kwargs))
        return answer(functional_call(module, dict(weights), args, kwargs))
    except ShoalError:
        raise
    except Exception as error:  # whatever a stranger's forward raises, the user must read it
        raise failed(module, error) from error


def loss(scene: Scene, lesson: Lesson, given: Tensor) -> Tensor:
    """The task's loss, where there is a task, and how far from the module's answers: |y - t|^2 / |t|^2."""
    far = F.mse_loss(given, lesson.wanted) / lesson.wanted.square().mean().clamp_min(1e-12)
    if scene.task is None or lesson.batch.target is None:
        return far
    return scene.task.loss(given, lesson.batch.target) + far


def score(scene: Scene, taught: Sequence[Lesson], module: nn.Module) -> float:
    """How good a module is on the rows, from 0 to 1: the task's quality where it is a share of right answers, else the
    mean cosine with what the scene's module answers."""
    marks: list[Tensor] = []
    with unmarked(module), torch.no_grad():
        for lesson in taught:
            given, target = called(module, lesson.batch.example), lesson.batch.target
            if scene.task is not None and target is not None and type(scene.task).unit == "%":
                marks.append(scene.task.scores(given, target).double())
            else:
                marks.append(F.cosine_similarity(given.flatten(1).double(), lesson.wanted.flatten(1).double(), dim=1))
    return float(torch.cat(marks).mean().clamp(0, 1))


def learnable(private: nn.Module) -> list[nn.Parameter]:
    """The weights of a copy that can be taught, frozen ones too: it is thrown away."""
    found = [weight for weight in private.parameters() if weight.is_floating_point()]
    for weight in found:
        weight.requires_grad_()
    return found


@contextmanager
def chance(seed: int) -> Iterator[None]:
    """Inside, what is drawn depends on the seed alone; afterwards chance goes on as if nothing had been drawn."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
