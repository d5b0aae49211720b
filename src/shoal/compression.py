"""Compress: from a trained module, data and a goal to a shallower one that met it, with the evidence.

    1  measure the original
    2  weigh every proposal, take the cheapest that do not touch each other, until most of what is missing is gained;
       measure again; repeat until the goals are met or nothing is left to propose
    3  heal by distillation from the original
    4  fold what is exact, measure everything again side by side with the original, test the floor on held-out rows
    5  controls: the same final shape from scratch, and random edits, both with the same healing

Longer than the house's 250 lines: search, healing, controls and verdict are one story, read from top to bottom.

Choosing looks at the valid part only, the verdict at the test part only.
"""

from __future__ import annotations

import copy
import logging
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

from shoal.anatomy import anatomy
from shoal.compressed import Compression, Control, Measured, Step
from shoal.core.base import Compressor, Edit, Task
from shoal.core.errors import BadModel, BadSetting, OutOfReach, Refused
from shoal.core.part import Part
from shoal.costing import cost, latency
from shoal.data import Dataset, open_data
from shoal.edits.fold import Fold
from shoal.evidence import Keep, compare, floor, parse_keep
from shoal.goals import Goal, parse_goals
from shoal.kinds import COMPRESSORS, TASKS
from shoal.net import Net
from shoal.recipe import Recipe, done, edit_part, edited, replayed
from shoal.training.evaluate import Result, evaluate
from shoal.training.objectives.distil import Distil
from shoal.training.recipe import TrainingRecipe
from shoal.training.train import train
from shoal.weighing import Scale, Track, Weighed, Weigher, compatible, order_of, tracked

log = logging.getLogger("shoal")
CALIBRATION = 384  # rows of the valid part that proposals are weighed on
SEARCH_SHARE = 0.35  # of the time within which all must be done
SPARE = 0.85  # of the time left goes to healing and controls; the rest to measuring
SHARE = 0.35  # of the whole way to the goals is gone in a round: harms do not add up, so the rest is weighed again
TOGETHER = 2.0  # times the sum of what each costs alone is what proposals may cost when they are taken together
SLACK = 0.02  # of the loss of a net that says nothing, which they may cost beyond that
TOLERANCE = 1e-3  # how far folding may move an output in float32, relative to the largest
Say = Callable[[str], None]


def compress(
    module: nn.Module,
    data: Any,
    *,
    to: str = "latency<=50%",
    keep: str = "-1pt",
    within: float | None = None,
    target: str | None = None,
    seed: int = 0,
    base: str | None = None,
    recipe: TrainingRecipe | None = None,
    compressors: Sequence[str] = ("skip", "flatten"),
    controls: bool = True,
    runtime: str = "eager",
    batch: int = 1,
    progress: Say | None = None,
) -> Compression:
    """Make a trained module shallower until ``to`` is met, heal it, and test whether ``keep`` held.

    module       any nn.Module that is trained; it is never changed
    data         what ``open_data`` takes; for a module that is no Net, inputs are passed on as they are
    to, keep     the goals and the floor, as ``parse_goals`` and ``parse_keep`` read them
    within       seconds for all of it; None: as long as the healing recipe takes
    base         how the module is made (``file.py:function``), kept in the recipe
    recipe       of the healing; None: a short one for such data
    controls     whether to run the two controls, each as long as the healing
    runtime      where latency is measured: eager, compile or onnxruntime; ``batch`` rows at a time

    Ctrl-C ends searching or healing; what was taken so far is measured and returned, without controls.
    Raises BadSetting, BadData or BadModel before any work, OutOfReach where nothing can be taken or ``within`` is too
    short. A goal that was approached but not met is no error: see ``Compression.met``.
    """
    began = time.perf_counter()
    say = progress or log.info
    goals, kept = parse_goals(to), parse_keep(keep)
    makers: dict[str, Compressor] = {name: COMPRESSORS.make(Part(name)) for name in compressors}
    dataset = open_data(data, target=target, seed=seed, as_given=not isinstance(module, Net))
    task: Task = TASKS.make(dataset.signature.task)
    _check(task, kept)
    original = copy.deepcopy(module).eval()
    example = dataset.example(batch)
    found = anatomy(original, example)
    rows = dataset.valid.take(CALIBRATION, seed).batch(slice(None))
    weigher = Weigher(rows, task, Scale(goals, original, example, runtime))
    loss = weigher.loss(original)
    say(f"original: {_metrics(weigher.scale.before)}, {len(found.spans)} spans, valid loss {loss:.4f}")

    stop = math.inf if within is None else began + SEARCH_SHARE * within
    plan = _search(original, weigher, makers, stop, say)
    if not plan.steps and time.perf_counter() >= stop:
        raise OutOfReach(f"within {within:g} s: no time to weigh a single edit; give more, or a smaller batch")
    if not plan.steps:
        raise OutOfReach(_nothing(original, found.left, goals))
    left = None if within is None else within - (time.perf_counter() - began)
    heal = _healing(recipe, dataset, left, 3 if controls else 1)
    teach = Distil(task, _flat(original, example))  # folded, it says the same and says it sooner
    say(f"healing {len(plan.steps)} edits by distillation from the original, {_length(heal)}")
    healed = train(plan.module, dataset, heal, seed=seed, objective=teach)
    folds = _folds(healed.net, example)
    final = _folded(healed.net, folds, example)

    before, after = evaluate(original, dataset.test, task), evaluate(final, dataset.test, task)
    say(f"healed: {type(task).metric} {after.quality} on the test part, the original {before.quality}")
    ran: list[Control] = []
    if controls and not plan.interrupted and healed.stopped != "interrupt":
        shapes = {
            "same shape from scratch": _fresh(plan.module, seed),
            "random edits": _random(original, plan, weigher, makers, seed),
        }
        for name, shape in shapes.items():
            say(f"control: {name}, the same healing")
            control = train(shape, dataset, heal, seed=seed, objective=teach)
            if control.stopped == "interrupt":
                break  # trained for less than the compressed one, it is no control
            margin = kept.points if kept.points is not None else 0.0
            ran.append(Control(name, control.test, compare(control.test.scores, after.scores, margin)))
    side = _folds(original, example)
    folded = _folded(original, side, example) if side else None
    last = _measured(final, original, after, example, runtime, 3.0)
    assert last.latency.against is not None
    alone = replace(last.latency, **asdict(last.latency.against), against=None, ratio=None)
    shown = Measured(before, cost(original, example), alone)
    originally = {**weigher.scale.before, "latency": last.latency.against.median}
    values = _values(last)
    return Compression(
        module=final,
        recipe=Recipe(final.spec) if isinstance(final, Net) else Recipe(base, (*plan.edits, *folds)),
        example=example,
        original=original,
        dataset=dataset,
        task=dataset.signature.task,
        goals=goals,
        limits=tuple(goal.limit(originally[goal.metric]) for goal in goals),
        values=tuple(values[goal.metric] for goal in goals),
        keep=kept,
        floor=floor(before.scores, after.scores, kept),
        before=shown,
        after=last,
        folded=_measured(folded, original, before, example, runtime, 1.0) if folded is not None else None,
        edits=tuple(edit_part(edit) for edit in (*plan.edits, *folds)),
        steps=tuple(plan.steps),
        spans=tuple(span.path for span in found.spans),
        tracks=tuple(plan.tracks),
        controls=tuple(ran),
        healing=healed,
        left=found.left,
        environment={"seed": seed, "runtime": runtime, "batch": batch, "seconds": time.perf_counter() - began},
    )


@dataclass
class _Plan:
    """The module so far, what was done to it, and where the spans of the original went."""

    module: nn.Module
    steps: list[Step]
    tracks: list[Track]
    interrupted: bool = False

    @property
    def edits(self) -> tuple[Edit, ...]:
        return tuple(edit for step in self.steps for edit in step.weighed.proposal.edits)

    def taking(self, chosen: Sequence[Weighed], number: int) -> _Plan:
        """The plan with proposals done that touch nothing in common, the last place first: a Net numbers its layers
        anew."""
        module, tracks, steps = self.module, self.tracks, list(self.steps)
        for one in sorted(chosen, key=lambda w: order_of(w.proposal.paths[0]), reverse=True):
            module = done(module, one.proposal)
            tracks = tracked(tracks, one.proposal, module)
            steps.append(Step(one, number))
        return _Plan(module, steps, tracks)


def _search(original: nn.Module, weigher: Weigher, makers: Mapping[str, Compressor], stop: float, say: Say) -> _Plan:
    """Rounds of weighing and taking, until the goals are met, nothing is left to propose, or the time is up."""
    scale = weigher.scale
    paths = [span.path for span in anatomy(original, scale.example).spans]
    plan = _Plan(original, [], [Track(path, (path,)) for path in paths])
    now, number = scale.measure(_flat(original, scale.example)), 0  # what folds is folded in the end: it counts now
    way = scale.excess(now)
    try:
        while (over := scale.excess(now)) and time.perf_counter() < stop:
            weighed = weigher.weigh(plan.module, weigher.proposals(plan.module, makers), now, over)
            steps = (min(1.0, SHARE * way.get(metric, missing) / missing) for metric, missing in over.items())
            chosen = _cheapest(weighed, sum(steps))
            if not chosen:
                break
            number += 1
            before, plan = plan, _together(plan, chosen, number, weigher)
            now = scale.measure(_flat(plan.module, scale.example))
            took, loss = len(plan.steps) - len(before.steps), weigher.loss(plan.module)
            say(f"round {number}: took {took} of {len(weighed)} weighed; {_metrics(now)}, valid loss {loss:.4f}")
    except KeyboardInterrupt:
        if not plan.steps:
            raise
        say("interrupted: going on with what was taken so far")
        plan.interrupted = True
    return plan


def _cheapest(weighed: Sequence[Weighed], wanted: float) -> list[Weighed]:
    """The cheapest proposals that touch nothing in common, until together they gain as much as wanted."""
    chosen: list[Weighed] = []
    for one in weighed:
        if sum(w.gain for w in chosen) >= wanted:
            break
        if compatible(chosen, one):
            chosen.append(one)
    return chosen


def _together(plan: _Plan, chosen: Sequence[Weighed], number: int, weigher: Weigher) -> _Plan:
    """The plan with the proposals done; with the cheaper half of them, and so on, where together they cost far more
    than one by one: all layers of a stage may be spared singly and not at once."""
    base = weigher.loss(plan.module)
    while True:
        taken = plan.taking(chosen, number)
        allowed = TOGETHER * sum(max(one.harm, 0.0) for one in chosen) + SLACK * weigher.silence
        if len(chosen) == 1 or weigher.loss(taken.module) - base <= allowed:
            return taken
        chosen = chosen[: len(chosen) // 2]


def _check(task: Task, keep: Keep) -> None:
    shares = type(task).unit == "%"
    if keep.points is None and shares:
        raise BadSetting(f"keep {keep}: {type(task).metric} is a share of right answers; say what may be lost, as -1pt")
    if keep.relative is None and not shares:
        raise BadSetting(f"keep {keep}: {type(task).metric} has no points; say how much the loss may grow, as +1%")


def _nothing(original: nn.Module, left: Mapping[str, str], goals: Sequence[Goal]) -> str:
    why = "; ".join(f"{path}: {reason}" for path, reason in list(left.items())[:3])
    return (
        f"{type(original).__name__}: nothing was found that can be taken out to reach {', '.join(map(str, goals))} "
        f"({why or 'it has no spans'}); loosen the goal or give a module with layers that keep their shape"
    )


def _healing(recipe: TrainingRecipe | None, data: Dataset, left: float | None, runs: int) -> TrainingRecipe:
    """The recipe given, or a short one; cut to an equal share of the time left for each of the runs."""
    if recipe is None:
        epochs = min(20.0, max(1.0, round(600 * 64 / max(len(data.train), 1))))
        recipe = TrainingRecipe(lr=1e-3, batch=64, epochs=epochs, clip=1.0, ema=0.98)
    if left is None:
        return recipe
    share = SPARE * left / runs
    if share < 1:
        raise OutOfReach(f"within: {left:.0f} s are left for healing and {runs - 1} controls; give more time")
    return replace(recipe, seconds=min(share, recipe.seconds or share))


def _folds(module: nn.Module, example: Any) -> tuple[Edit, ...]:
    """The one fold that takes in all that can be folded exactly; none where nothing can."""
    if not isinstance(module, Net):
        pairs = anatomy(module, example).folds
        return (Fold(pairs=pairs),) if pairs else ()
    try:
        edited(module, Fold())
    except Refused as why:
        log.info("%s", why)
        return ()
    return (Fold(),)


def _flat(module: nn.Module, example: Any) -> nn.Module:
    """The module as it will be in the end, with all that folds folded."""
    return replayed(module, _folds(module, example)).eval()


def _folded(module: nn.Module, folds: Sequence[Edit], example: Any) -> nn.Module:
    """The folded module in eval mode, checked on the example against the one that was folded."""
    folded = replayed(module, folds).eval()
    with torch.inference_mode():
        wanted, got = module.eval()(example), folded(example)
    if (wanted - got).abs().max() > TOLERANCE * wanted.abs().max():
        raise BadModel(f"{type(module).__name__}: folding moved its outputs; report the module with this message")
    return folded


def _fresh(module: nn.Module, seed: int) -> nn.Module:
    """The same shape with weights as newly made. Raises BadModel where a part does not say how it is initialised."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if isinstance(module, Net):
            return Net(module.spec)
        fresh = copy.deepcopy(module)
        for path, part in fresh.named_modules():
            reset = getattr(part, "reset_parameters", None)
            if reset is not None:
                reset()
            elif any(True for _ in part.parameters(recurse=False)):
                raise BadModel(
                    f"control: {path} ({type(part).__name__}) has weights and no reset_parameters(), so the same shape "
                    "cannot be made afresh; give it one, or compress without controls"
                )
        return fresh


def _random(
    original: nn.Module, plan: _Plan, weigher: Weigher, makers: Mapping[str, Compressor], seed: int
) -> nn.Module:
    """As many edits of each compressor as the plan took, at places drawn at random."""
    chance, module = random.Random(seed), original
    for step in plan.steps:
        alike = [one for name, one in weigher.proposals(module, makers) if name == step.weighed.compressor]
        if alike:
            module = done(module, chance.choice(alike))
    return module


def _measured(
    module: nn.Module, original: nn.Module, result: Result, example: Any, runtime: str, seconds: float
) -> Measured:
    return Measured(result, cost(module, example), latency(module, example, original, runtime=runtime, seconds=seconds))


def _values(measured: Measured) -> dict[str, float]:
    """Each metric as the goals see it: counts, and the upper end of the latency."""
    values = {name: float(getattr(measured.cost, name)) for name in ("params", "macs", "bytes", "depth")}
    time = measured.latency
    assert time.ratio is not None
    assert time.against is not None
    return {**values, "latency": time.ratio.high * time.against.median}


def _metrics(values: Mapping[str, float]) -> str:
    words = [f"{values['latency']:.2f} ms"] if "latency" in values else []
    return ", ".join([*words, f"{values['params'] / 1e3:.1f}k weights", f"depth {values['depth']:.0f}"])


def _length(recipe: TrainingRecipe) -> str:
    parts = [f"{recipe.epochs:g} epochs" if recipe.epochs else "", f"{recipe.seconds:.0f} s" if recipe.seconds else ""]
    return " or ".join(part for part in parts if part)
