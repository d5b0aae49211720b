"""Hints: what the net's spans read is drawn to what a teacher's spans read, beside the answers.

    loss = share * mean over pairs of  min over r |u - r(v)|^2 / |u|^2  +  (1 - share) * loss of `distil`

u and v are what a span of the teacher and its partner in the net are given: the state of the stream before them. Where
the two agree in shape, r is the identity; else it is the best affine map from the net's channels to the teacher's on
the batch, the same at every place. The best one has no slope of its own, so the slope of the loss is what it is with r
held still, and there is no regressor to be trained and thrown away. Fewer rows and places than the net has channels can
always be fitted, and teach nothing: larger batches do.

With ``share`` 1 a run ends where the last hint is read. What stands behind is not run and stays as it is.

Papers   fitnets-hints-for-thin-deep-nets (there the regressor is trained, and |u - r(v)|^2 / 2 is the loss)
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, suppress

import torch
from torch import Tensor, nn

from shoal.anatomy import anatomy
from shoal.core.base import Task
from shoal.core.errors import BadModel, BadSetting
from shoal.core.inputs import Inputs, answer_to, run_on, taken
from shoal.core.scene import rows_of
from shoal.core.spans import Left
from shoal.training.objectives._watched import reading
from shoal.training.objectives.distil import Distil

RIDGE = 1e-6  # on the diagonal of the squares, as a share of their mean: the best map is then always one
ROWS = 2  # of a batch are run to find the spans


class Hints:
    """An objective for `fit`. Settings: `pairs`, (path in the net, path in the teacher) of spans, None for the middle
    span of each; `share`, of the loss that is hints; `temperature`, `weight` and `smoothing` as `distil` has them.

    It asks a frozen copy of the teacher, anew every time: states are too many to be remembered.
    """

    def __init__(
        self,
        task: Task,
        teacher: nn.Module,
        *,
        pairs: Sequence[tuple[str, str]] | None = None,
        share: float = 0.5,
        temperature: float = 4.0,
        weight: float = 0.9,
        smoothing: float = 0.0,
    ) -> None:
        if not 0 <= share <= 1:
            raise BadSetting(f"hints: share={share} must be a share, from 0 to 1")
        if pairs is not None and not pairs:
            raise BadSetting("hints: pairs is empty; name a span of the net and one of the teacher, or use distil")
        self.answers = Distil(task, teacher, temperature=temperature, weight=weight, smoothing=smoothing)
        self.pairs = None if pairs is None else tuple((net, taught) for net, taught in pairs)
        self.share = share

    def __call__(self, net: nn.Module, x: Inputs, y: Tensor) -> Tensor:
        """The loss of a batch."""
        if self.pairs is None:
            self.pairs = ((_middle(net, x), _middle(self.answers.teacher.to(y.device), x)),)
        paths, taught = zip(*self.pairs, strict=True)
        alone, teacher = self.share == 1, self.answers.teacher.to(y.device)
        rest: Tensor | None = None
        with ExitStack() as stack:
            given = stack.enter_context(reading(net, paths, leave=alone))
            wanted = stack.enter_context(reading(teacher, taught, leave=alone))
            if alone:
                with suppress(Left):
                    run_on(net, x)
                with suppress(Left), torch.no_grad():
                    run_on(teacher, x)
            else:
                with torch.no_grad():
                    answers = answer_to(teacher, x)
                rest = self.answers.against(answer_to(net, x), answers, y)
        for path, read in ((paths, given), (taught, wanted)):
            unread = [one for one in path if one not in read]
            if unread:
                raise BadModel(f"hints: {unread[0]} was not run, so it reads nothing; name a span that always runs")
        hints = torch.stack([_far(given[one], wanted[other]) for one, other in self.pairs]).mean()
        return hints if rest is None else self.share * hints + (1 - self.share) * rest


def stages(
    task: Task,
    teacher: nn.Module,
    *,
    pairs: Sequence[tuple[str, str]] | None = None,
    temperature: float = 3.0,
    steps: int = 4,
) -> tuple[Hints | Distil, ...]:
    """Objectives to be trained with one after another: hints alone, then answers, on which the teacher's weight against
    the task's falls from 4 to 1 in so many steps."""
    if steps < 2:
        raise BadSetting(f"hints: steps={steps}; the weight falls from 4 to 1 in at least 2")
    falling = [4 - 3 * step / (steps - 1) for step in range(steps)]
    answers = [Distil(task, teacher, temperature=temperature, weight=one / (1 + one)) for one in falling]
    return (Hints(task, teacher, pairs=pairs, share=1.0), *answers)


def _middle(module: nn.Module, x: Inputs) -> str:
    """The span in the middle of those that run, by path."""
    spans = anatomy(module, taken(x, slice(ROWS))).visits
    if not spans:
        raise BadModel(f"hints: {type(module).__name__} has no span to be hinted at; name pairs, or use distil")
    return spans[len(spans) // 2].path


def _far(v: Tensor, u: Tensor) -> Tensor:
    """How far the net's state is from the teacher's, once it is mapped to it; 0 is there, 1 as far as nothing is."""
    u = u.detach()
    near = v if v.shape == u.shape else _regressed(v, u)
    wanted = u if v.shape == u.shape else rows_of(u, _axis(v, u))
    return (wanted - near).square().sum() / wanted.square().sum().clamp_min(1e-12)


def _regressed(v: Tensor, u: Tensor) -> Tensor:
    """The net's rows through the affine map that brings them nearest to the teacher's; the map is a constant."""
    axis = _axis(v, u)
    rows = rows_of(v, axis)
    with torch.no_grad():  # in double: squares lose half of the digits, and mixed precision leaves it alone
        given, wanted = rows.double(), rows_of(u, axis).double()
        given = torch.cat((given, given.new_ones(len(given), 1)), dim=1)
        square = given.T @ given
        square.diagonal().add_(RIDGE * square.diagonal().mean())
        best = torch.linalg.solve(square, given.T @ wanted).to(rows.dtype)
    return rows @ best[:-1] + best[-1]


def _axis(v: Tensor, u: Tensor) -> int:
    """The one axis in which the two differ: that of their channels. Raises BadModel where there are more."""
    unlike = [axis for axis in range(v.dim()) if v.dim() == u.dim() and v.shape[axis] != u.shape[axis]]
    if len(unlike) != 1 or unlike == [0]:
        shapes = f"{tuple(v.shape)} and {tuple(u.shape)}"
        raise BadModel(f"hints: the states are {shapes}; pair spans that differ in their channels alone")
    return unlike[0]
