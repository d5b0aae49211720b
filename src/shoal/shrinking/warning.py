"""Warning: what is known to go wrong, or to stay unproven, said in a line before any training."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from scipy.stats import norm
from torch import Tensor, nn

from shoal.core.base import Task
from shoal.core.errors import BadData, BadModel, BadSetting
from shoal.core.example import evaluating
from shoal.data import Dataset
from shoal.evidence import Keep, floor
from shoal.goals import Goal
from shoal.shrinking.healing import frozen
from shoal.shrinking.planning import Candidate

CHANGED = 0.02  # of the answers, which even a good compression changes
LEVEL = 0.95


def check_floor(task: Task, keep: Keep | None) -> None:
    """Raises BadSetting where the floor is in words that the task's metric does not have."""
    if keep is None:
        return
    shares = type(task).unit == "%"
    if keep.points is None and shares:
        raise BadSetting(f"keep {keep}: {type(task).metric} is a share of right answers; say what may be lost, as -1pt")
    if keep.relative is None and not shares:
        raise BadSetting(f"keep {keep}: {type(task).metric} has no points; say how much the loss may grow, as +1%")


def check_answers(module: nn.Module, example: Tensor, data: Dataset, task: Task) -> None:
    """Raises BadData where the module's answers are not what the targets ask for, BadModel where it cannot learn."""
    name = type(module).__name__
    with evaluating(module):
        found = module(example)
    if not isinstance(found, Tensor):
        raise BadModel(f"{name}: gives a {type(found).__name__}; wrap it in a module that gives the tensor that counts")
    least, exact = task.outputs, data.test.y.is_floating_point()
    if found.dim() < 2 or found.shape[-1] < least or (exact and found.shape[-1] != least):
        raise BadData(
            f"{data.name}: asks for {least} numbers a row, {name} gives {tuple(found.shape[1:])}; "
            "give the data that it was trained for"
        )
    if not any(value.requires_grad for value in module.parameters()):
        raise BadModel(f"{name}: all its weights are frozen, so nothing could be healed; thaw some")


def foreseen(module: nn.Module, data: Dataset, task: Task, keep: Keep | None) -> Iterator[str]:
    """What stays as it is, and what the test part will not be able to show."""
    held = frozen(module)
    if held:
        every = len(list(module.parameters()))
        yield f"{len(held)} of {every} parameters are frozen ({held[0]} ...): they stay so, the others heal"
    if keep is None:
        yield "nothing is promised: the quality is measured and not held against a floor"
    elif keep.points is not None and np.isin(task.scores(*_first(module, data)).numpy(), (0, 1)).all():
        rows, wanted = len(data.test), rows_for(keep.points)
        same = np.ones(rows)
        if floor(same, same, keep).word != "pass":
            yield (
                f"keep {keep}: {rows} test rows cannot show it, even of equal answers; about {wanted:,} could where "
                f"{100 * CHANGED:g}% of the answers change"
            )
        elif rows < wanted:
            yield (
                f"keep {keep}: {rows} test rows show it only where less than "
                f"{100 * rows / wanted * CHANGED:.2g}% of the answers change; with {100 * CHANGED:g}%, about {wanted:,}"
            )


def _first(module: nn.Module, data: Dataset) -> tuple[Tensor, Tensor]:
    x, y = data.test.batch(slice(0, 32))
    with evaluating(module):
        return module(x).detach(), y


def rows_for(points: float) -> int:
    """Test rows that show, at 95%, that no more than so much is lost, where nothing is and some answers change."""
    z = float(norm.ppf(LEVEL))
    return math.ceil(z * z * CHANGED / max(points, 1e-6) ** 2)


def unreached(best: Candidate, goals: Sequence[Goal], before: Mapping[str, float]) -> str:
    """That the goals cannot be met, and how near the best plan comes."""
    missed = [goal for goal in goals if goal.metric in best.over]
    near = [f"{goal} at {100 * best.values[goal.metric] / before[goal.metric]:.1f}%" for goal in missed]
    return f"out of reach: the best that could be had is {', '.join(near)}; going on with it"
