"""Warning: what is known to go wrong, or to stay unproven, said in a line before any training."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import norm
from torch import Tensor, nn

from shoal.core.base import Task
from shoal.core.errors import BadData, BadModel, BadSetting, Diverged, ShoalError
from shoal.core.example import copy_of, evaluating, failed, tensors
from shoal.core.inputs import Inputs, answer_to, count
from shoal.data import Dataset
from shoal.evidence import Evidence, Keep, floor
from shoal.goals import Goal
from shoal.shrinking.healing import frozen
from shoal.shrinking.planning import Candidate
from shoal.tasks.fidelity import Fidelity
from shoal.training.loop import fit
from shoal.training.recipe import TrainingRecipe

CHANGED = 0.02  # of the answers, which even a good compression changes
MOVED = 0.2  # of itself is what the loss of a row changes by, even in a good compression
LEVEL = 0.95
NONE = 1e-9  # of the targets' mean square: a loss that is but rounding
HALVES = (torch.float16, torch.bfloat16)
TRIED = 256  # rows that a module must run on at once: as many as it is weighed on
STEP = 32  # rows of the one step of training that it must be able to make


def copied(module: nn.Module) -> nn.Module:
    """A copy in eval mode: what is given is never changed. Raises BadModel where there can be none."""
    try:
        return copy_of(module).eval()
    except Exception as error:  # whatever its attributes raise, the user must read it
        fix = "keep only weights, buffers and plain values in it (no open files, no locks)"
        raise failed(module, error, "cannot be copied", fix) from error


def check_floor(task: Task, keep: Keep | None) -> None:
    """Raises BadSetting where the floor is in words that the task's metric does not have."""
    if keep is None:
        return
    shares = type(task).unit == "%"
    if keep.points is None and shares:
        raise BadSetting(f"keep {keep}: {type(task).metric} is a share of right answers; say what may be lost, as -1pt")
    if keep.relative is None and not shares:
        raise BadSetting(f"keep {keep}: {type(task).metric} has no points; say how much the loss may grow, as +1%")


def check_answers(module: nn.Module, data: Dataset, task: Task) -> None:
    """Raises BadModel where the module does not run on the data, or has nothing that could heal; BadData where its
    answers are not what the targets ask for."""
    name = type(module).__name__
    if not any(True for _ in module.parameters()):
        raise BadModel(f"{name}: has no weights, so there is nothing to make smaller; give a module that has learned")
    if not any(value.requires_grad for value in module.parameters()):
        raise BadModel(f"{name}: all its weights are frozen, so nothing could be healed; thaw some")
    rows, _ = data.valid.batch(slice(0, TRIED))
    found = _answers(module, rows, data.name)
    least, exact = task.outputs, data.test.y.is_floating_point()
    if found.dim() < 2 or found.shape[-1] < least or (exact and found.shape[-1] != least):
        raise BadData(
            f"{data.name}: asks for {least} numbers a row, {name} gives {tuple(found.shape[1:])}; "
            "give the data that it was trained for"
        )
    if len(found) != count(rows):
        raise BadModel(f"{name}: answers {count(rows)} rows with {len(found)}; give a module that answers each row")
    if not found.isfinite().all():
        raise BadModel(
            f"{name}: its answers to {data.name} are not finite; give a module that has learned, or its data"
        )


def _answers(module: nn.Module, rows: Inputs, name: str) -> Tensor:
    shapes = ", ".join(f"{tuple(each.shape[1:])} {str(each.dtype).removeprefix('torch.')}" for each in tensors(rows))
    with evaluating(module), torch.no_grad():
        try:
            return answer_to(module, rows)
        except BadModel as error:
            fix = "wrap it in a module that gives the tensor that counts"
            raise failed(module, error, f"does not answer rows of {name}", fix) from error
        except Exception as error:  # whatever a stranger's forward raises, the user must read it
            fix = "give data of the shapes and types that its forward takes"
            raise failed(module, error, f"does not run on {count(rows)} rows of {name}, {shapes}", fix) from error


def check_trains(module: nn.Module, data: Dataset, seed: int) -> None:
    """Raises BadModel where a copy of the module cannot make one step of training: healing would make many."""
    recipe = TrainingRecipe(epochs=1, batch=max(1, min(STEP, len(data.train))))
    steps = fit(copy_of(module), data, recipe, seed=seed)
    try:
        next(steps)
    except Diverged:
        return  # of its own loss; healing has another
    except ShoalError:
        raise
    except Exception as error:  # whatever a stranger's forward raises, the user must read it
        fix = "let its forward in training mode answer as in eval mode, with a gradient"
        raise failed(module, error, "cannot be trained, so nothing could be healed", fix) from error
    finally:
        steps.close()


def check_loss(module: nn.Module, data: Dataset, task: Task, keep: Keep | None) -> None:
    """Raises BadSetting where the floor is a share of the original's loss, and that is zero."""
    if keep is None or keep.relative is None:
        return
    y = data.valid.y
    size = float(y.double().square().mean()) if y.is_floating_point() else 1.0
    if not -_scores(module, data, task).mean() > NONE * size:
        raise BadSetting(
            f"keep {keep}: the loss of {type(module).__name__} on {data.name} is 0, of which there is no share; give "
            "the inputs alone, so that its answers are the targets, or promise nothing (none)"
        )


def foreseen(module: nn.Module, data: Dataset, task: Task, keep: Keep | None) -> Iterator[str]:
    """What stays as it is, and what the test part will not be able to show."""
    held = frozen(module)
    if held:
        every = len(list(module.parameters()))
        yield f"{len(held)} of {every} parameters are frozen ({held[0]} ...): they stay so, the others heal"
    half = next((value.dtype for value in module.parameters() if value.dtype in HALVES), None)
    if half is not None:
        yield f"its weights are {half}: small steps of healing are lost in them; give it in float32 (module.float())"
    if isinstance(task, Fidelity):
        yield _followed(task, data)
    if keep is None:
        yield "nothing is promised: the quality is measured and not held against a floor"
        return
    if isinstance(task, Fidelity):
        return  # how much answers will differ, and so what the rows can show, is known afterwards
    rows, scores = len(data.test), _scores(module, data, task)
    if keep.relative is not None:
        wanted = losses_for(keep.relative, -scores)
        if rows < wanted:
            yield (
                f"keep {keep}: {rows} test rows show it only where the loss of a row changes by less than "
                f"{100 * MOVED * math.sqrt(rows / wanted):.2g}% of itself; with {100 * MOVED:g}%, about {wanted:,}"
            )
    elif keep.points is not None and np.isin(scores, (0, 1)).all():
        wanted, same = rows_for(keep.points), np.ones(rows)
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


def _followed(task: Task, data: Dataset) -> str:
    """What fidelity is, and what the same answer to everything has of it: answers may all point one way."""
    mean, (_, y) = data.train.y.mean(dim=0, keepdim=True), data.test.batch(slice(0, TRIED))
    share = float(task.scores(mean.expand_as(y), y).mean())
    return (
        f"100% {type(task).metric} is to answer as the original does; its mean answer, given to every row, has "
        f"{100 * share:.1f}%"
    )


def _scores(module: nn.Module, data: Dataset, task: Task) -> NDArray[np.float64]:
    """Those of some rows of the valid part."""
    x, y = data.valid.batch(slice(0, TRIED))
    found: NDArray[np.float64] = task.scores(_answers(module, x, data.name), y).double().numpy()
    return found


def rows_for(points: float) -> int:
    """Test rows that show, at 95%, that no more than so much is lost, where nothing is and some answers change."""
    z = float(norm.ppf(LEVEL))
    return math.ceil(z * z * CHANGED / max(points, 1e-6) ** 2)


def losses_for(relative: float, losses: NDArray[np.float64]) -> int:
    """Test rows that show, at 95%, that the loss has grown by no more than this share of it, where it has not and that
    of each row has changed by some of itself."""
    spread, middle = MOVED * float(np.sqrt(np.mean(losses**2))), float(losses.mean())
    z = float(norm.ppf(LEVEL))
    return math.ceil((z * spread / (max(relative, 1e-6) * max(middle, 1e-12))) ** 2)


def rows_wanted(difference: Evidence, keep: Keep | None) -> int | None:
    """Test rows that would show a floor to be kept, if they differ as those did that left it open; None where the
    difference itself is below the floor, or nothing is left open."""
    if keep is None:
        return None
    if keep.points is not None:
        room, half = keep.points + difference.value, difference.value - difference.low
    else:
        room, half = (keep.relative or 0.0) - difference.value, difference.high - difference.value
    return math.ceil(difference.n * (half / room) ** 2) if 0 < room <= half else None


def unreached(best: Candidate, goals: Sequence[Goal], before: Mapping[str, float]) -> str:
    """That the goals cannot be met, and how near the best plan comes."""
    missed = [goal for goal in goals if goal.metric in best.over]
    near = [f"{goal} at {100 * best.values[goal.metric] / before[goal.metric]:.1f}%" for goal in missed]
    return f"out of reach: the best that could be had is {', '.join(near)}; going on with it"


def nothing(module: nn.Module, left: Mapping[str, str], goals: Sequence[Goal]) -> str:
    """That nothing can be taken out, with the reason at each place; places of one reason are told together."""
    places: dict[str, list[str]] = {}
    for place, reason in left.items():
        places.setdefault(reason, []).append(place)
    why = "; ".join(f"{', '.join(each)}: {reason}" for reason, each in places.items())
    return (
        f"{type(module).__name__}: nothing was found that can be taken out to reach {', '.join(map(str, goals))} "
        f"({why or 'it has no spans'}); loosen the goal or give a module with layers that keep their shape"
    )
