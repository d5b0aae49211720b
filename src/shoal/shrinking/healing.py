"""Healing: a plan's network learns from the original what its edits spoilt.

statistics    of batch norms, found anew on training rows
first round   block by block: each span that is left learns what the original did from where it begins to where the
              next one begins
then          answers and hidden states, end to end

What was frozen in the original stays frozen.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from shoal.core.base import Task
from shoal.core.errors import BadSetting, OutOfReach
from shoal.core.example import evaluating
from shoal.core.part import Part
from shoal.core.spans import Span
from shoal.data import Dataset
from shoal.kinds import COMPRESSORS
from shoal.shrinking.planning import Plan, Settle
from shoal.shrinking.tracks import Track
from shoal.training.engine import Objective
from shoal.training.objectives._watched import reading
from shoal.training.objectives.blockwise import Blockwise, Lesson
from shoal.training.objectives.distil import Distil
from shoal.training.objectives.hints import Hints
from shoal.training.recipe import TrainingRecipe

SPARE = 0.85  # of the time left goes to healing and controls; the rest to measuring
STATISTICS = 512  # training rows that the statistics of norms are taken from
PAIRS = 6  # hidden states that are compared, evenly over the depth: each is copied in every step
HINTED = 0.3  # of the loss
SINGLE = ("1",)  # how a span is called that takes the stream alone


def recipe_for(recipe: TrainingRecipe | None, data: Dataset, left: float | None, runs: float) -> TrainingRecipe:
    """The recipe given, or a short one; cut to an equal share of the time left for each of the runs."""
    if recipe is None:
        epochs = min(20.0, max(1.0, round(600 * 64 / max(len(data.train), 1))))
        recipe = TrainingRecipe(lr=1e-3, batch=64, epochs=epochs, clip=1.0, ema=0.98)
    if left is None:
        return recipe
    share = SPARE * left / runs
    if share < 1:
        raise OutOfReach(f"within: {left:.0f} s are left for healing and controls; give more time")
    return replace(recipe, seconds=min(share, recipe.seconds or share))


def shorter(recipe: TrainingRecipe, share: float) -> TrainingRecipe:
    """The same for a share of its length."""
    epochs = None if recipe.epochs is None else share * recipe.epochs
    return replace(recipe, epochs=epochs, seconds=None if recipe.seconds is None else share * recipe.seconds)


def settling(data: Dataset, seed: int) -> Settle:
    """What brings the statistics of a module's batch norms up to date, on training rows, in place.

    All rows go in one batch, so each norm is left with the mean and variance of what it then reads, exactly.
    """
    rows, _ = data.train.take(STATISTICS, seed).batch(slice(None))

    def settle(module: nn.Module) -> None:
        norms = [part for part in module.modules() if isinstance(getattr(part, "running_mean", None), Tensor)]
        if not norms or len(rows) < 2:
            return
        moved: list[tuple[Any, Any]] = [(norm, norm.momentum) for norm in norms]
        device = next(iter(module.buffers())).device
        with evaluating(module), torch.no_grad(), torch.random.fork_rng(devices=[]):
            for norm, _ in moved:
                norm.training, norm.momentum = True, 1.0
            try:
                module(rows.to(device))
            finally:
                for norm, momentum in moved:
                    norm.momentum = momentum

    return settle


def objective_for(task: Task, teacher: nn.Module, plan: Plan) -> Objective:
    """What a plan's network learns: that of a compressor that brings its own, else answers and hidden states.

    ``teacher`` is the original, which may be folded.
    """
    own = _own(plan)
    if own is not None:
        made: Objective = _objective(own)(task, teacher)
        return made
    pairs = pairs_of(plan.tracks)
    return Hints(task, teacher, pairs=pairs, share=HINTED) if pairs else Distil(task, teacher)


def blocks_for(task: Task, teacher: nn.Module, plan: Plan, spans: Sequence[Span], example: Tensor) -> Objective | None:
    """The objective of the first round; None where no span of the network can be taught by itself.

    ``spans`` are those of the original, which runs on the example.
    """
    lessons = lessons_of(teacher, plan.tracks, spans, example) if _own(plan) is None else ()
    return Blockwise(task, teacher, lessons=lessons) if lessons else None


def lessons_of(
    teacher: nn.Module, tracks: Sequence[Track], spans: Sequence[Span], example: Tensor
) -> tuple[Lesson, ...]:
    """What each span that is left is to do by itself: what the original's spans do from where it begins to where the
    next begins. Only where they alone do it, which is seen on the example."""
    order = [span.path for span in spans]
    single = {span.path for span in spans if span.form == SINGLE}
    with evaluating(teacher), torch.no_grad(), reading(teacher, order) as states:
        teacher(example)
    lessons: list[Lesson] = []
    for track, after in pairwise(tracks):
        first, last = order.index(track.origins[0]), order.index(after.origins[0])
        run = spans[first:last]
        if run and all(span.path in single for span in run) and _alone(teacher, run, states, order[last]):
            lessons.append((track.path, order[first], order[last], run[0].branch))
    return tuple(lessons)


def _alone(teacher: nn.Module, run: Sequence[Span], states: Mapping[str, Tensor], last: str) -> bool:
    """Whether spans, one after another, make of the state before the first the state before another one."""
    state = states[run[0].path]
    with evaluating(teacher), torch.no_grad():
        for span in run:
            made = teacher.get_submodule(span.path)(state.clone())
            if made.shape != state.shape:
                return False
            state = state + made if span.branch else made
    wanted = states[last]
    return state.shape == wanted.shape and torch.allclose(state, wanted, rtol=1e-3, atol=1e-4)


def pairs_of(tracks: Sequence[Track]) -> tuple[tuple[str, str], ...]:
    """(span of the network, span of the original) of which each should read what the other reads: where one begins
    that stayed, all before it has been answered for. The first span of all reads the same anyway."""
    pairs = [(track.path, track.origins[0]) for track in tracks[1:]]
    if len(pairs) <= PAIRS:
        return tuple(pairs)
    return tuple(pairs[round((i + 1) * len(pairs) / PAIRS) - 1] for i in range(PAIRS))


def _own(plan: Plan) -> str | None:
    """The objective that the first compressor brings which brings one."""
    names = dict.fromkeys(Part.parse(step.weighed.compressor).name for step in plan.steps)
    return next((wanted for name in names if (wanted := COMPRESSORS.get(name).objective) is not None), None)


def _objective(name: str) -> Any:
    """The class of an objective, by the name of its file. Raises BadSetting where there is none."""
    try:
        module = import_module(f"shoal.training.objectives.{name}")
    except ModuleNotFoundError:
        raise BadSetting(f"objective {name!r}: no such file in training/objectives; correct the compressor") from None
    return next(value for key, value in vars(module).items() if key.lower() == name.replace("_", ""))


def frozen(module: nn.Module) -> tuple[str, ...]:
    """The parameters that are not to be trained, by name."""
    return tuple(name for name, value in module.named_parameters() if not value.requires_grad)


def refrozen(plan: Plan, original: nn.Module) -> Plan:
    """The plan with what is frozen in the original frozen in its module, in place; what was merged is frozen where
    all that went into it was."""
    held = {name: value.requires_grad for name, value in original.named_parameters()}
    if all(held.values()):
        return plan
    for name, value in plan.module.named_parameters():
        origins = _origins(name, plan.tracks)
        known = [held[one] for one in origins if one in held]
        if known and not any(known):
            value.requires_grad_(False)
    return plan


def _origins(name: str, tracks: Sequence[Track]) -> list[str]:
    """What a parameter is called in the original; several where it was merged of them."""
    for track in tracks:
        if name.startswith(track.path + "."):
            return [origin + name[len(track.path) :] for origin in track.origins]
    return [name]


def copied(module: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
    """A copy with other weights and statistics, all of them."""
    made = copy.deepcopy(module)
    with torch.no_grad():
        for name, value in [*made.named_parameters(), *made.named_buffers()]:
            value.copy_(weights[name])
    return made
