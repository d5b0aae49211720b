"""Healing: a plan's network learns from the original what its edits spoilt.

statistics    of batch norms, found anew on training rows
first round   block by block: each span that is left learns what the original did from where it begins to where the
              next one begins
then          answers, end to end, and hidden states where no span could be taught by itself

Batches come again after a few epochs: what the original answers is then known, to every plan that is healed, and
training costs what the smaller network costs. What was frozen in the original stays frozen.

Longer than the house's 250 lines by a few: who learns what from whom is read in one place.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from inspect import signature
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from shoal.core.base import Task
from shoal.core.errors import BadSetting, OutOfReach
from shoal.core.example import evaluating
from shoal.core.inputs import Inputs, count, placed, run_on
from shoal.core.part import Part
from shoal.core.spans import Span
from shoal.data import Dataset, Graph, Split
from shoal.kinds import COMPRESSORS
from shoal.net import Net
from shoal.shrinking.planning import Plan, Settle
from shoal.shrinking.tracks import Track
from shoal.training.augment import coloured
from shoal.training.engine import Objective
from shoal.training.evaluate import evaluate
from shoal.training.graphs import OnGraph, asked, read_of_graphs
from shoal.training.objectives._watched import reading
from shoal.training.objectives.blockwise import Blockwise, Lesson
from shoal.training.objectives.distil import Distil
from shoal.training.objectives.graph_free import GraphFree
from shoal.training.objectives.hints import Hints
from shoal.training.recipe import TrainingRecipe
from shoal.training.train import Run

SPARE = 0.1  # of the time left goes to measuring at most
SCORINGS = 5  # times the original's test part are scored behind a healing: of the final net, of controls, once more
TIMING = 60.0  # seconds behind it for all the rest
STATISTICS = 512  # training rows that the statistics of norms are taken from
VIEWS = 4  # epochs until batches come again: with fewer, images repeat sooner; with more, the teacher is asked longer
LONGEST = 30.0  # epochs, where nobody says how many and there is time
PAIRS = 6  # hidden states that are compared, evenly over the depth: each is copied in every step
HINTED = 0.3  # of the loss
SINGLE = ("1",)  # how a span is called that takes the stream alone


def recipe_for(
    recipe: TrainingRecipe | None, data: Dataset, left: float | None, runs: float, scoring: float = math.inf
) -> TrainingRecipe:
    """The recipe given, or a short one, longer where there is time for it; cut to an equal share for each of the runs
    of the time left, less what measuring will take where scoring the test part once takes so many seconds."""
    if recipe is None:
        epochs = min(20.0, max(1.0, round(600 * 64 / max(len(data.train), 1)))) if left is None else LONGEST
        colours = data.signature.task.name == "classification" and coloured(data.train.x)
        augment = ("flip", "crop") if colours else ()
        recipe = TrainingRecipe(lr=1e-3, batch=64, epochs=epochs, clip=1.0, ema=0.98, views=VIEWS, augment=augment)
    if left is None:
        return recipe
    share = (left - min(SPARE * left, TIMING + SCORINGS * scoring)) / runs
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
        if not norms or count(rows) < 2:
            return
        moved: list[tuple[Any, Any]] = [(norm, norm.momentum) for norm in norms]
        device = next(iter(module.buffers())).device
        with evaluating(module), torch.no_grad(), torch.random.fork_rng(devices=[]):
            for norm, _ in moved:
                norm.training, norm.momentum = True, 1.0
            try:
                run_on(module, placed(rows, device))
            finally:
                for norm, momentum in moved:
                    norm.momentum = momentum

    return settle


def objective_for(
    task: Task, teacher: nn.Module, plan: Plan, graph: Graph | None = None, answers: Objective | None = None
) -> Objective:
    """What a plan's network learns: that of a compressor that brings its own, else ``answers``; where these are not
    given, the teacher's answers and hidden states.

    ``teacher`` is the original, which may be folded; ``graph``: what it reads, where it reads one.
    """
    own = _own(plan)
    if graph is not None:
        assert isinstance(teacher, Net)
        return _of_graph(task, teacher, plan.module, graph, own)
    if own is not None:
        made: Objective = _objective(own)(task, teacher)
        return made
    if answers is not None:
        return answers
    pairs = pairs_of(plan.tracks)
    return Hints(task, teacher, pairs=pairs, share=HINTED) if pairs else Distil(task, teacher)


def _of_graph(task: Task, teacher: Net, net: nn.Module, graph: Graph, own: str | None) -> Objective:
    """What a net learns of one that reads edges: by an objective that holds the graph, where it reads none itself."""
    if not read_of_graphs(net):
        cls = GraphFree if own is None else _objective(own)
        made: Objective = (cls if "graph" in signature(cls).parameters else GraphFree)(task, teacher, graph)
        return made
    node = Split(graph.x[:1], graph.x.new_zeros(1), graph=graph, nodes=torch.zeros(1, dtype=torch.int64))
    forms = [isinstance(asked(one, node, torch.device("cpu"))[0], OnGraph) for one in (net, teacher)]
    if forms[0] != forms[1]:
        raise OutOfReach(
            "healing: of the original and the compressed net one reads the graph as it runs, the other beforehand; "
            "use the compressor gnn_to_mlp"
        )
    return Distil(task, OnGraph(teacher, graph) if forms[0] else teacher)


def blocks_for(
    task: Task,
    teacher: nn.Module,
    plan: Plan,
    spans: Sequence[Span],
    example: Inputs,
    graph: Graph | None = None,
) -> Objective | None:
    """The objective of the first round; None where no span of the network can be taught by itself.

    ``spans`` are those of the original, which runs on the example.
    """
    alone = graph is None and _own(plan) is None  # nodes are no rows by themselves
    lessons = lessons_of(teacher, plan.tracks, spans, example) if alone else ()
    fit = _as_wide(lessons, teacher, plan.module, example) if lessons else ()
    return Blockwise(task, teacher, lessons=fit) if fit else None


def _as_wide(lessons: Sequence[Lesson], teacher: nn.Module, net: nn.Module, example: Inputs) -> tuple[Lesson, ...]:
    """The lessons of spans that take and give what the teacher's do: the stream itself may have become narrower."""
    own, taught = [path for path, _, _, _ in lessons], [first for _, first, _, _ in lessons]
    with evaluating(net), evaluating(teacher), torch.no_grad():
        with reading(net, own) as given, reading(teacher, taught) as wanted:
            run_on(net, example)
            run_on(teacher, example)
        fit: list[Lesson] = []
        for one in lessons:
            x = given[one[0]]
            if x.shape == wanted[one[1]].shape and net.get_submodule(one[0])(x).shape == x.shape:
                fit.append(one)
    return tuple(fit)


def lessons_of(
    teacher: nn.Module, tracks: Sequence[Track], spans: Sequence[Span], example: Inputs
) -> tuple[Lesson, ...]:
    """What each span that is left is to do by itself: what the original's spans do from where it begins to where the
    next begins. Only where they alone do it, which is seen on the example."""
    order = [span.path for span in spans]
    single = {span.path for span in spans if span.form == SINGLE}
    with evaluating(teacher), torch.no_grad(), reading(teacher, order) as states:
        run_on(teacher, example)
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
            if state.shape != states[span.path].shape:
                return False
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


def unhealed(net: nn.Module, data: Dataset, recipe: TrainingRecipe, seed: int, task: Task, why: str) -> Run:
    """A network as it is, scored as one that was healed, and why it was not."""
    valid, test = (evaluate(net, part, task) for part in (data.valid, data.test))
    row = {"epoch": 0, "step": 0, "loss": None, "quality": valid.quality.value, "valid_loss": None, "seconds": 0.0}
    return Run(net, data.name, data.fingerprint, recipe, seed, (row,), 0, valid, test, 0.0, why)


def copied(module: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
    """A copy with other weights and statistics, all of them."""
    made = copy.deepcopy(module)
    with torch.no_grad():
        for name, value in [*made.named_parameters(), *made.named_buffers()]:
            value.copy_(weights[name])
    return made
