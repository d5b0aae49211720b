"""Compress: from a trained module, data and a goal to a shallower one that met it, with the evidence.

    1  measure the original
    2  weigh every proposal; make several plans by an integer program, carry each out, measure it
    3  heal the likeliest for a short while by distillation from the original: rankings flip; go on with the best
    4  heal it
    5  fold what is exact, measure everything again side by side with the original, test the floor on held-out rows
    6  controls: the same final shape from scratch, and random edits, both with the same healing

Longer than the house's 250 lines: the story is read from top to bottom; its steps stand in ``shrinking``.

Choosing looks at the valid part only, the verdict at the test part only.
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from shoal.anatomy import anatomy
from shoal.compressed import Compression, Control, Measured, Seen
from shoal.core.base import Compressor, Task
from shoal.core.errors import BadSetting, OutOfReach
from shoal.core.part import Part
from shoal.costing import latency
from shoal.evidence import Floor, Verdict, compare, floor, parse_promise
from shoal.goals import parse_goals
from shoal.kinds import COMPRESSORS, TASKS
from shoal.net import Net
from shoal.recipe import Recipe, edit_part
from shoal.shrinking.controls import drawn, fresh
from shoal.shrinking.folding import flat, folded
from shoal.shrinking.healer import Healer
from shoal.shrinking.healing import recipe_for, refrozen, settling, unhealed
from shoal.shrinking.planning import Candidate, Plan, Planner, shortlist, told
from shoal.shrinking.ranking import Placed, Ranking, agreement, cost_of
from shoal.shrinking.scale import Scale, counts_of
from shoal.shrinking.stages import Stages, mark, pack, pack_plans, unpack, unpack_plans
from shoal.shrinking.unlabelled import opened
from shoal.shrinking.warning import (
    check_answers,
    check_floor,
    check_loss,
    check_trains,
    copied,
    foreseen,
    nothing,
    unreached,
)
from shoal.shrinking.weighing import Weigher, why_wide
from shoal.training.evaluate import Result, evaluate
from shoal.training.graphs import read_of_graphs
from shoal.training.layout import lay_out
from shoal.training.recipe import TrainingRecipe

log = logging.getLogger("shoal")
USUAL = ("skip", "flatten", "channels", "low_rank", "linear")  # as far as there are compressors of these names
CALIBRATION = 256  # rows of the valid part that proposals are weighed on
SEARCH_SHARE = 0.35  # of the time within which all must be done
RANKED = 4  # plans that are healed for a short while
TIMED = 3.0  # seconds that the last latency of each contestant is measured for
Say = Callable[[str], None]
AnyTest = TypeVar("AnyTest", Floor, Verdict)


def compress(
    module: nn.Module,
    data: Any,
    *,
    to: str = "latency<=50%",
    keep: str | None = "-1pt",
    within: float | None = None,
    target: str | None = None,
    seed: int = 0,
    base: Recipe | str | None = None,
    recipe: TrainingRecipe | None = None,
    compressors: Sequence[str] | None = None,
    controls: bool = True,
    runtime: str = "eager",
    batch: int = 1,
    checkpoint: Path | str | None = None,
    resume: bool = False,
    progress: Say | None = None,
) -> Compression:
    """Make a trained module shallower until ``to`` is met, heal it, and test whether ``keep`` held.

    module       any nn.Module that is trained; it is never changed
    data         what ``open_data`` takes; for a module that is no Net, inputs are passed on as they are, a dict as its
                 keywords. Inputs alone (a tensor, a dict, batches that are no (x, y)): then its own answers are asked
                 for
    to, keep     the goals and the floor, as ``parse_goals`` and ``parse_keep`` read them; keep=None promises nothing
    within       seconds for all of it; None: as long as the healing recipe takes
    base         how the module is made (``file.py:function``, ``hf:FOLDER``), kept in the recipe; a Recipe where it was
                 edited before
    recipe       of the healing; None: a short one for such data
    compressors  names, with settings where wanted (``channels[share=0.5]``); None: the usual ones
    controls     whether to run the two controls, each as long as the healing
    runtime      where latency is measured: eager, compile or onnxruntime; ``batch`` rows at a time
    checkpoint   a folder in which every finished stage is kept; with ``resume``, goes on from there

    Ctrl-C ends it: what was taken so far is measured and returned as it is, without controls that had not ended.
    Raises BadSetting, BadData or BadModel before any work, OutOfReach where nothing can be taken or ``within`` is too
    short. A goal that was approached but not met is no error: see ``Compression.met``.
    """
    began = time.perf_counter()
    say, notes = progress or log.info, list[str]()

    def note(text: str) -> None:
        notes.append(text)
        say(f"note: {text}")

    if resume and checkpoint is None:
        raise BadSetting("resume: no folder to go on from; give checkpoint=FOLDER")
    goals, kept = parse_goals(to), parse_promise(keep)
    made = base if isinstance(base, Recipe) else Recipe(base)
    makers = _makers(compressors)
    dataset = opened(module, data, target, seed)
    task: Task = TASKS.make(dataset.signature.task)
    check_floor(task, kept)
    original = copied(module)
    check_answers(original, dataset, task)
    check_loss(original, dataset, task, kept)
    example = dataset.example(batch)
    found = anatomy(original, example)
    check_trains(original, dataset, seed)
    if controls:
        fresh(Plan(original, [], []), seed)  # what cannot be drawn anew is said now, not behind the healing
    order = {
        "model": mark(original),
        "data": dataset.fingerprint,
        "goals": [str(goal) for goal in goals],
        "compressors": list(makers),
        "recipe": None if recipe is None else recipe.to_json(),
        "seed": seed,
        "runtime": runtime,
        "batch": batch,
    }
    stages = Stages(checkpoint, order, resume=resume)
    for text in foreseen(original, dataset, task, kept):
        note(text)

    before = stages.get("original")
    graph = dataset.train.graph if isinstance(original, Net) and read_of_graphs(original) else None
    nodes = None if graph is None else dataset.train
    known = before.facts if before else {}
    scale = Scale(goals, original, example, runtime, known.get("values"), nodes, known.get("lays_out"))
    stages.put("original", {"values": scale.before, "lays_out": scale.lays_out})
    if all(scale.before[goal.metric] <= goal.limit(scale.before[goal.metric]) for goal in goals):
        raise BadSetting(f"goal {', '.join(map(str, goals))}: the original meets it already; ask for less")
    rows = dataset.valid.take(CALIBRATION, seed).batch(slice(None))
    few = None if graph is None else dataset.valid.take(CALIBRATION, seed)
    weigher = Weigher(rows, task, scale, seed, few)
    stop = math.inf if within is None else began + SEARCH_SHARE * within
    planner = Planner(original, weigher, makers, settling(dataset, seed), stop, say)
    say(f"original: {told(scale.before)}, {len(found.spans)} spans, valid loss {planner.base:.4f}")
    _plan(planner, stages)
    candidates = planner.candidates
    if not candidates and time.perf_counter() >= stop:
        raise OutOfReach(f"within {within:g} s: no time to weigh a single edit; give more, or a smaller batch")
    if not candidates:
        wide = why_wide(original, makers, example)
        raise OutOfReach(nothing(original, {**found.left, **weigher.refused, **wide}, goals))
    near = shortlist(candidates, 1)[0]
    if near.over:
        note(unreached(near, goals, scale.before))
    exact = not near.plan.steps  # the goals are met by what changes no answer: nothing is to heal
    if exact:
        note(f"{near.way}: the goals are met by it, so nothing was taken out, and there is nothing to heal or control")

    asked = time.perf_counter()
    first = evaluate(original, dataset.test, task)
    scoring = time.perf_counter() - asked
    left = None if within is None or exact else within - (time.perf_counter() - began)
    short = [] if planner.interrupted or exact else shortlist(candidates, RANKED)
    heal = recipe_for(recipe, dataset, left, (3 if controls else 1) + cost_of(len(short)), scoring)
    teacher = flat(original, example)
    lay_out(teacher, example)
    healer = Healer(task, teacher, found.spans, example, dataset, heal, seed, stages, graph)
    ranking = Ranking(healer.heal, stages, say)
    ranking.rank([replace(one, plan=refrozen(one.plan, original)) for one in short])
    placed = ranking.placed
    best = placed[0].candidate if placed else (short or [near])[0]
    plan = refrozen(best.plan, original)
    if planner.interrupted or ranking.interrupted or exact:  # what is there is what it will be
        there = placed[0].net if placed else plan.module
        why = "nothing to heal" if exact else "interrupt"
        healed = (placed[0].run if placed else None) or unhealed(there, dataset, heal, seed, task, why)
    else:
        say(f"healing {best.way}, {len(plan.steps)} edits, by distillation from the original, {_length(heal)}")
        begun, had = (replace(plan, module=placed[0].net), placed[0].share) if placed else (plan, 0.0)
        healed = healer.heal("healing", begun, 1 - had, had)
    settled = healed.net if exact else _settled(planner, healed.net)
    seals = scale.seals(settled)
    final = folded(settled, seals, example)

    last = evaluate(final, dataset.test, task)
    done = "measured" if exact else "healed"
    say(f"{done}: {type(task).metric} {last.quality} on the test part, the original {first.quality}")
    ran: list[Control] = []
    interrupted = planner.interrupted or ranking.interrupted or healed.stopped == "interrupt"
    if controls and not interrupted and not exact:
        shapes: dict[str, Callable[[], Plan]] = {
            "same shape from scratch": lambda: fresh(plan, seed),
            "random edits": lambda: drawn(planner.start, plan, weigher, makers, seed),
        }
        for number, (name, shape) in enumerate(shapes.items()):
            say(f"control: {name}, the same healing")
            control = healer.heal(f"control-{number}", shape())
            interrupted = control.stopped == "interrupt"
            if interrupted:
                break  # trained for less than the compressed one, it is no control
            margin = kept.points if kept is not None and kept.points is not None else 0.0
            result = evaluate(control.net, dataset.test, task)
            ran.append(Control(name, result, _in_points(task, compare(result.scores, last.scores, margin))))
    if interrupted:
        note("interrupted: this is as far as it came, and what had not ended is left out")
    side = scale.seals(original)
    aside = folded(original, side, example) if side else None
    after = _measured(final, scale, last, TIMED)
    assert after.latency.against is not None
    alone = replace(after.latency, **asdict(after.latency.against), against=None, ratio=None)
    originally = {**scale.before, "latency": after.latency.against.median}
    values = _values(after)
    met = tuple(values[goal.metric] <= goal.limit(originally[goal.metric]) for goal in goals)
    name = best.way if exact else f"{best.way}, healed"
    last_seen = Seen(name, "final", values, len(plan.edits), all(met), quality=healed.valid.quality)
    front = [*_front(planner, placed, evaluate(original, dataset.valid, task)), last_seen]
    return Compression(
        module=final,
        recipe=Recipe(final.spec) if isinstance(final, Net) else Recipe(made.base, (*made.edits, *plan.edits, *seals)),
        example=example,
        original=original,
        dataset=dataset,
        task=dataset.signature.task,
        goals=goals,
        limits=tuple(goal.limit(originally[goal.metric]) for goal in goals),
        values=tuple(values[goal.metric] for goal in goals),
        keep=kept,
        floor=_in_points(task, floor(first.scores, last.scores, kept)),
        before=Measured(first, scale.cost(original, training=True), alone),
        after=after,
        folded=_measured(aside, scale, first, TIMED / 3) if aside is not None else None,
        edits=tuple(edit_part(edit) for edit in (*plan.edits, *seals)),
        steps=tuple(plan.steps),
        spans=tuple(span.path for span in found.spans),
        tracks=tuple(plan.tracks),
        controls=tuple(ran),
        healing=healed,
        left={**found.left, **weigher.refused},
        front=tuple(front),
        agreement=_agreement(candidates, placed),
        notes=tuple(notes),
        interrupted=interrupted,
        environment={"seed": seed, "runtime": runtime, "batch": batch, "seconds": time.perf_counter() - began},
    )


def _makers(names: Sequence[str] | None) -> dict[str, Compressor]:
    there = set(COMPRESSORS.names())
    chosen = [name for name in USUAL if name in there] if names is None else list(names)
    if not chosen:
        raise BadSetting("compressors: none is named; name one, or leave it out for the usual ones")
    return {name: COMPRESSORS.make(Part.parse(name)) for name in chosen}


def _plan(planner: Planner, stages: Stages) -> None:
    """Search, or take what a stage holds."""
    saved = stages.get("plans")
    if saved is not None:
        planner.candidates = unpack_plans(saved, planner.start)
        planner.say(f"{len(planner.candidates)} plans are there from before")
        return
    weighed = stages.get("options")
    if weighed is not None:
        planner.options = unpack(weighed.facts["options"], weighed)
    planner.weigh()
    if not planner.over:
        planner.keep_unedited()
        return
    facts, tensors = pack(planner.options)
    stages.put("options", {"options": facts}, tensors)
    planner.search()
    if planner.candidates and not planner.interrupted:
        stages.put("plans", *pack_plans(planner.candidates))


def _settled(planner: Planner, net: nn.Module) -> nn.Module:
    """The healed network with the statistics of its norms taken anew, where that lowers the loss."""
    plan = planner.settled(Plan(copy.deepcopy(net), [], []))
    return plan.module


def _front(planner: Planner, placed: Sequence[Placed], own: Result) -> list[Seen]:
    """The original, every plan that was measured, and those that were healed for a while."""
    scale = planner.weigher.scale
    found = [Seen("original", "original", scale.before, 0, False, quality=own.quality)]
    for one in planner.candidates:
        came = next((each for each in placed if each.candidate.way == one.way), None)
        stage, quality = ("planned", None) if came is None else ("short", came.quality)
        edits = len(one.plan.edits)
        found.append(Seen(one.way, stage, one.values, edits, not one.over, one.foreseen, one.harm, quality))
    return found


def _agreement(candidates: Sequence[Candidate], placed: Sequence[Placed]) -> dict[str, float | None]:
    """How well harms were foreseen."""
    lost = [-one.early.value for one in placed]
    return {
        "harm": agreement([one.foreseen for one in candidates], [one.harm for one in candidates]),
        "healed": agreement([one.candidate.harm for one in placed], lost),
    }


def _measured(module: nn.Module, scale: Scale, result: Result, seconds: float) -> Measured:
    one, before = scale.standing(module), scale.standing(scale.original)
    times = latency(*one, before, runtime=scale.runtime, seconds=seconds)
    return Measured(result, scale.cost(module, training=True), times)


def _values(measured: Measured) -> dict[str, float]:
    """Each metric as the goals see it: counts, and the upper end of the latency."""
    time = measured.latency
    assert time.ratio is not None
    assert time.against is not None
    return {**counts_of(measured.cost), "latency": time.ratio.high * time.against.median}


def _in_points(task: Task, found: AnyTest) -> AnyTest:
    """A test's difference told in points where the metric is a share, also of scores other than zeros and ones."""
    return replace(found, difference=replace(found.difference, unit="pt")) if type(task).unit == "%" else found


def _length(recipe: TrainingRecipe) -> str:
    parts = [f"{recipe.epochs:g} epochs" if recipe.epochs else "", f"{recipe.seconds:.0f} s" if recipe.seconds else ""]
    return " or ".join(part for part in parts if part)
