"""Checks of tasks: the loss goes down to a perfect output, scores and quality go up to it, teachers are matched."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from shoal.core.base import Task
from shoal.kinds import HEADS
from shoal.testing._samples import Subject, build, require

EXAMPLES, LENGTH = 40, 5
COUNTS = ("classes", "vocabulary")  # settings that say: the target is an integer below this


def loss_is_a_scalar(subject: Subject) -> None:
    """The loss is one finite number, at least zero, with finite gradients; smoothing is accepted."""
    task = build(subject)
    output, target, _ = _sample(subject, task)
    for smoothing in (0.0, 0.1):
        given = output.clone().requires_grad_()
        loss = task.loss(given, target, smoothing)
        require(loss.dim() == 0 and 0 <= float(loss.detach()) < torch.inf, f"the loss is {loss}")
        (slope,) = torch.autograd.grad(loss, given)
        require(bool(torch.isfinite(slope).all() and slope.any()), "the loss has no finite slope")


def loss_prefers_the_truth(subject: Subject) -> None:
    """A perfect output has a lower loss than a random one, and a step against the slope lowers it."""
    task = build(subject)
    output, target, perfect = _sample(subject, task)
    require(float(task.loss(perfect, target)) < float(task.loss(output, target)), "the loss prefers a random output")
    given = output.clone().requires_grad_()
    (slope,) = torch.autograd.grad(task.loss(given, target), given)
    require(float(task.loss(output - 0.01 * slope, target)) < float(task.loss(output, target)), "downhill goes up")


def scores_are_a_row(subject: Subject) -> None:
    """One number an example, without gradient needs; none is above that of a perfect output."""
    task = build(subject)
    output, target, perfect = _sample(subject, task)
    best = task.scores(perfect, target)
    require(tuple(best.shape) == (EXAMPLES,), f"scores have the shape {tuple(best.shape)}, not ({EXAMPLES},)")
    require(best.dtype == torch.float64, f"scores are {best.dtype}; sums of many need float64")
    for other in (output, torch.zeros_like(output), -perfect, 3 * output):
        require(bool((task.scores(other, target) <= best).all()), "some output scores above a perfect one")
    part = task.scores(output[:7], target[:7])
    require(torch.equal(part, task.scores(output, target)[:7]), "an example's score depends on the others")


def quality_prefers_the_truth(subject: Subject) -> None:
    """The quality of a perfect output is above that of a random one, and it is a plain number."""
    task = build(subject)
    output, target, perfect = _sample(subject, task)
    best, other = (task.quality(task.scores(each, target), target) for each in (perfect, output))
    require(isinstance(best, float) and best > other, f"quality {best} of a perfect output, {other} of a random one")


def distil_matches(subject: Subject) -> None:
    """The distance to a teacher is zero at the teacher, above zero elsewhere, and has a slope."""
    task = build(subject)
    teacher, _, _ = _sample(subject, task)
    for temperature in (1.0, 4.0):
        same = float(task.distil(teacher, teacher, temperature))
        require(abs(same) < 1e-9, f"a teacher is {same} away from itself")
        given = torch.randn_like(teacher).requires_grad_()
        loss = task.distil(given, teacher, temperature)
        require(loss.dim() == 0 and float(loss.detach()) > 1e-4, f"another output is {loss} away from the teacher")
        (slope,) = torch.autograd.grad(loss, given)
        require(bool(torch.isfinite(slope).all() and slope.any()), "the distance to a teacher has no finite slope")


def says_what_it_is(subject: Subject) -> None:
    """Metric, unit and head are said, the outputs are counted, and the head there is."""
    task = build(subject)
    require(bool(task.metric) and isinstance(task.unit, str), "the task does not say its metric and unit")
    require(task.outputs >= 1 and task.head in HEADS.names(), f"outputs {task.outputs}, head {task.head!r}")


def _sample(subject: Subject, task: Task) -> tuple[Tensor, Tensor, Tensor]:
    """A random output, a target, and a perfect output for it."""
    places = (LENGTH,) if task.head == "every" else ()
    output = torch.randn(EXAMPLES, *places, task.outputs, dtype=torch.float64)
    if not any(name in subject.part.settings for name in COUNTS):
        target = torch.randn_like(output)
        return output, target, target.clone()
    target = torch.randint(task.outputs, output.shape[:-1])
    return output, target, F.one_hot(target, task.outputs).double() * 100
