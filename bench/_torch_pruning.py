"""The same network narrowed by Torch-Pruning and changed by shoal's plans, all healed by the same steps.

Torch-Pruning narrows the inner width of every block. The widths of the stream it is told to leave: this network pads
its shortcuts with as many zeros as it has always done, which a narrowed stream would not fit (it stops in its forward).
Healing is shoal's for both: block by block and end to end, as `shoal.compress` heals. A tenth of the steps tells which
of three rates is the best on the valid part, and at that rate which of several plans, where shoal brings more than one
for a goal. The exact edits in the end are the same for both too: norms are folded, and in eager mode the channels come
last where that takes less time.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch_pruning
from _compressing import RUNTIMES, Row
from torch import nn
from torch.nn import functional as F

from shoal.anatomy import anatomy
from shoal.core.base import Task
from shoal.costing import cost, latency
from shoal.data import Dataset
from shoal.goals import parse_goals
from shoal.kinds import TASKS
from shoal.shrinking.folding import flat
from shoal.shrinking.healer import Healer
from shoal.shrinking.healing import settling
from shoal.shrinking.planning import Plan
from shoal.shrinking.scale import Scale
from shoal.shrinking.stages import Stages
from shoal.shrinking.tracks import Track
from shoal.training import TrainingRecipe
from shoal.training.evaluate import Result, evaluate
from shoal.training.train import Run

RATES, SEARCHED = (5e-4, 2e-3, 5e-3), 0.1  # of healing; the share of the steps after which one is chosen
DEMAND = 1.5
ROWS, PIECE = 512, 64  # that gradients are taken of
TIMED = parse_goals("latency<=50%")  # with any goal on latency a scale finds out which layout takes less time


@dataclass(frozen=True)
class Healed:
    """A network after healing, as it is in the end in each runtime, with what it is worth and how long it takes against
    the original."""

    name: str
    nets: Mapping[str, nn.Module]
    result: Result
    row: Row


def narrowed(net: nn.Module, data: Dataset, how: str, ratio: float) -> nn.Module:
    """The network with so many of the inner units of each block taken away by Torch-Pruning."""
    made = copy.deepcopy(net).eval()
    for weight in made.parameters():
        weight.requires_grad_(True)
    inner = {f"{path}.conv1" for path, part in made.named_modules() if hasattr(part, "conv2")}
    left = [part for path, part in made.named_modules() if path not in inner and not list(part.children())]
    left = [part for part in left if isinstance(part, nn.Conv2d | nn.Linear)]
    importance = {
        "magnitude": torch_pruning.importance.MagnitudeImportance(p=2, group_reduction="first"),
        "group norm": torch_pruning.importance.GroupMagnitudeImportance(p=2),
        "taylor": torch_pruning.importance.GroupTaylorImportance(),
    }[how]
    pruner = torch_pruning.pruner.BasePruner(
        made, data.example(1), importance=importance, pruning_ratio=ratio, ignored_layers=left
    )
    if how == "taylor":
        rows = data.train.take(ROWS, 0)
        for x, y in rows.batches(PIECE):
            F.cross_entropy(made(x), y).backward()  # the sum over all pieces
    pruner.step()
    made.zero_grad()
    return made


def healed(plans: Mapping[str, Plan], healer: Healer) -> tuple[str, nn.Module, float]:
    """Which plan was best, its network after healing, and the rate. The rate is chosen on the first plan, the plan at
    that rate: both after a tenth of the steps."""

    def run(name: str, lr: float, share: float) -> Run:
        return replace(healer, recipe=replace(healer.recipe, lr=lr)).heal("", plans[name], share)

    def worth(run: Run) -> tuple[float, float]:
        return run.valid.quality.value, -run.valid.loss

    first = next(iter(plans))
    rates = {lr: worth(run(first, lr, SEARCHED)) for lr in RATES}
    lr = max(rates, key=rates.__getitem__)
    worths = {name: rates[lr] if name == first else worth(run(name, lr, SEARCHED)) for name in plans}
    best = max(worths, key=worths.__getitem__)
    return best, run(best, lr, 1.0).net, lr


def against_torch_pruning(
    net: nn.Module,
    data: Dataset,
    ours: Mapping[str, Mapping[str, Plan]],
    importances: Sequence[str],
    ratios: Sequence[float],
    how: TrainingRecipe,
    say: Callable[[str], None],
) -> tuple[list[Row], list[Row]]:
    """All networks, and for each of Torch-Pruning's the fastest of shoal's that is at least as accurate. ``ours``: for
    each goal the plans by name, one of which is healed to the end."""
    task: Task = TASKS.make(data.signature.task)
    example, spans = data.example(1), anatomy(net, data.example(1)).spans
    teacher, settle = flat(net, example), settling(data, 0)
    healer = Healer(task, teacher, spans, example, data, how, 0, Stages(None, {}, resume=False))
    tracks = [Track(span.path, (span.path,)) for span in spans]
    every: list[Healed] = []
    candidates = dict(ours)
    for name in importances:
        for ratio in ratios:
            made = narrowed(net, data, name, ratio)
            settle(made)
            candidates[f"Torch-Pruning, {name}, {ratio:g}"] = {f"{how.epochs:g} epochs": Plan(made, [], tracks)}
    for goal, plans in candidates.items():
        way, found, lr = healed(plans, healer)
        name = f"{goal}, {way}"
        ends = {runtime: Scale(TIMED, found, example, runtime).ended(found) for runtime in RUNTIMES}
        result = evaluate(ends["onnxruntime"], data.test, task)
        row: Row = {"network": name, "accuracy": f"{result.quality}", "rate": f"{lr:g}"}
        row["params"] = cost(ends["onnxruntime"], example, training=False).params
        for runtime in RUNTIMES:
            times = latency(ends[runtime], example, net, runtime=runtime, seconds=3.0)
            row[runtime] = f"{times.ratio.value:.3f} [{times.ratio.low:.3f}, {times.ratio.high:.3f}]"  # type: ignore[union-attr]
        say(f"{name}: {result.quality}, {', '.join(f'{each} {row[each]}' for each in RUNTIMES)}")
        every.append(Healed(name, ends, result, row))
    theirs = [one for one in every if one.name.startswith("Torch-Pruning")]
    mine = [one for one in every if one not in theirs]
    return [one.row for one in every], [_against(one, mine, example, runtime) for runtime in RUNTIMES for one in theirs]


def _against(their: Healed, mine: Sequence[Healed], example: Any, runtime: str) -> Row:
    """The fastest of shoal's networks that is at least as accurate, beside one of Torch-Pruning's."""
    row: Row = {"case": f"{their.name}, {runtime}", "theirs": f"{their.result.quality}"}
    equal = [one for one in mine if one.result.quality.value >= their.result.quality.value]
    if not equal:
        return {**row, "shoal": "none as accurate", "shoal's": "-", "times as fast": "-", "met": False}
    with torch.inference_mode():
        times = {
            one.name: latency(their.nets[runtime], example, one.nets[runtime], runtime=runtime, seconds=3.0).ratio
            for one in equal
        }
    best = max(equal, key=lambda one: times[one.name].value)  # type: ignore[union-attr]
    ratio = times[best.name]
    assert ratio is not None
    row |= {"shoal": best.name, "shoal's": f"{best.result.quality}"}
    row["times as fast"] = f"{ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"
    return {**row, "met": ratio.value >= DEMAND}
