"""Analyze: how any module uses its depth, from one page of numbers to one word a span.

found = analyze(net, data)
found.spans            a DataFrame: every visited span, its place, size, cost, time, harm and verdict
found.verdicts         a word and a reason a span
found.effective_depth  the fewest spans that keep the quality, and the curve that leads there
found.effects          every intervention at every place, with intervals
found.held             how well predicted harms held where several spans were left out together
found.to_json()        all of it; found.to_html() the page that shows it
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import pandas as pd
import torch
from torch import nn

from shoal.analyzed import Analysis, deepest
from shoal.anatomy import anatomy
from shoal.core.base import Intervention, Measure, Task
from shoal.core.errors import BadModel, BadSetting
from shoal.core.part import Part
from shoal.core.scene import Batch, Scene, cut
from shoal.core.spans import Span, Visit
from shoal.costing import latency, per_span_ms
from shoal.data import Dataset, open_data
from shoal.data.batches import batches_in, is_batches
from shoal.depth_curve import Alone, depth_curve, mean_quality
from shoal.evidence import Keep, parse_keep
from shoal.intervening import (
    Changes,
    Told,
    Trial,
    effect,
    kept,
    out_of_reach,
    placed,
    size_of_batch,
    split,
)
from shoal.interventions.skip import Skip
from shoal.kinds import INTERVENTIONS, MEASURES, TASKS
from shoal.net import Net
from shoal.span_table import span_table
from shoal.training.graphs import OnGraph, OnNodes, asked
from shoal.verdicts import SpanVerdict, alone, may_merge, merged, natures

log = logging.getLogger("shoal.analysis")
Say = Callable[[str], None]

INTERVENED = ("skip", "loop", "swap", "parallel", "linear_map", "exit", "noise")
CHOSEN = 128  # rows on which other interventions are seen, and on which the greedy search chooses
ROWS = 2  # rows on which the anatomy is read


@runtime_checkable
class Mapped(Protocol):
    """A measure that also holds spans against spans."""

    def map(self, scene: Scene) -> pd.DataFrame:
        """A square table."""
        ...


def analyze(
    module: nn.Module,
    data: Any,
    *,
    keep: str | None = None,
    measures: Sequence[str] = (),
    interventions: Sequence[str] = INTERVENED,
    rows: int = 2000,
    within: float | None = None,
    memory: float = 512e6,
    target: str | None = None,
    seed: int = 0,
    progress: Say | None = None,
) -> Analysis:
    """How a module uses its depth, on data that it was not trained on.

    module       any nn.Module; it is as it was afterwards
    data         what ``open_data`` takes (the validation part is used), or an iterable of batches: (x, y), or inputs
                 alone (a tensor, a tuple or a dict of arguments); without targets its own answers are asked for
    keep         the floor under the quality; -1pt where it is a share, else +5% of the loss
    rows         at most so many examples        memory   bytes that a run may keep
    within       seconds; what is not done by then is named in ``unfinished``

    Raises BadData, BadModel or BadSetting before any work; BadModel where there is no span to look at.
    """
    began = time.perf_counter()
    until = None if within is None else began + within
    say = progress or log.info
    chosen: dict[str, Intervention] = {name: INTERVENTIONS.make(Part.parse(name)) for name in interventions}
    looks: dict[str, Measure] = {name: MEASURES.make(Part.parse(name)) for name in measures}
    module, batches, task = batches_of(module, data, rows, target, seed)
    keep_at = parse_keep(keep or ("-1pt" if task is None or task.unit == "%" else "+5%"))
    scene = _scene(module, batches, task, rows, int(memory), seed)
    first = cut(batches[0], ROWS)
    say(f"{len(scene.spans)} spans, {sum(one.rows for one in scene.batches)} rows, {scene.batches[0].rows} at a time")

    trial, few = Trial(scene), Trial(scene.head(CHOSEN))
    unit = trial.judge.unit()
    skips = placed(scene, {"skip": Skip()}, int(memory))
    base, told = trial.told([changes for _, _, changes in skips])
    skipped = {spans[0].at: one for (_, spans, _), one in zip(skips, told, strict=True)}
    alone_effects = [effect("skip", spans, base, skipped[spans[0].at], unit) for _, spans, _ in skips]
    say(f"{len(skips)} spans skipped")
    others = placed(scene, {name: one for name, one in chosen.items() if name != "skip"}, int(memory))
    own, found = few.told([changes for _, _, changes in others])
    effects = [effect(name, spans, own, one, unit) for (name, spans, _), one in zip(others, found, strict=True)]
    say(f"{len(others)} other interventions, on {len(own.loss)} rows")
    said = alone(scene, keep_at, base, skipped, natures(scene))
    beside = [
        (spans, changes, one) for (name, spans, changes), one in zip(others, found, strict=True) if name == "parallel"
    ]
    words = _merged(trial, said, keep_at, own, base, beside)
    whole, ms = _times(module, first, scene.spans)
    harm = {one.spans[0].at: one.loss.value for one in alone_effects}
    curve, pairs = depth_curve(trial, few, base, keep_at, Alone(harm, ms), whole, int(memory), until)
    say(f"effective depth {deepest(curve, len(base.loss)).left}")
    tables, maps, unfinished = _measured(scene, looks, until, say)
    return Analysis(
        span_table(scene, first, alone_effects, words, ms),
        (*alone_effects, *effects),
        words,
        curve,
        tables,
        scene.anatomy.unvisited,
        mean_quality(base.score, "%" if unit == "pt" else ""),
        "score" if task is None else type(task).metric,
        whole,
        keep_at,
        len(base.loss),
        time.perf_counter() - began,
        pairs,
        unfinished,
        maps,
    )


def _scene(module: nn.Module, batches: Sequence[Batch], task: Task | None, rows: int, memory: int, seed: int) -> Scene:
    """The module in front of so many rows, in pieces whose runs fit into the memory, with a second one beside."""
    found = anatomy(module, cut(batches[0], ROWS).example)
    if not found.visits:
        raise BadModel(
            f"{type(module).__name__}: no part takes a tensor and gives one of its shape; nothing to look at"
        )
    scene = Scene(module, found, tuple(batches), task, seed).head(rows)
    return Scene(module, found, tuple(split(scene.batches, size_of_batch(scene, memory // 2))), task, seed)


def _merged(
    trial: Trial,
    said: dict[Visit, SpanVerdict],
    keep: Keep,
    own: Told,
    base: Told,
    beside: Sequence[tuple[tuple[Span, ...], Changes, Told]],
) -> tuple[SpanVerdict, ...]:
    """The verdicts; what may be mergeable by the first rows is judged on all of them."""
    open_to = [
        (spans, changes)
        for spans, changes, one in beside
        if may_merge(said, spans) and kept(keep, own, one).word != "fail"
    ]
    told = trial.told([changes for _, changes in open_to], out_of_reach(keep))[1] if open_to else []
    return merged(said, keep, base, {spans[0].at: one for (spans, _), one in zip(open_to, told, strict=True)})


def _measured(
    scene: Scene, looks: dict[str, Measure], until: float | None, say: Say
) -> tuple[dict[str, pd.DataFrame], dict[str, pd.DataFrame], tuple[str, ...]]:
    """The tables of the measures, their maps, and those for which there was no time."""
    tables: dict[str, pd.DataFrame] = {}
    maps: dict[str, pd.DataFrame] = {}
    unfinished = []
    for name, look in looks.items():
        if until is not None and time.perf_counter() > until:
            unfinished.append(name)
            continue
        tables[name] = look.table(scene)
        if isinstance(look, Mapped):
            maps[name] = look.map(scene)
        say(f"measure {name} done")
    return tables, maps, tuple(unfinished)


def batches_of(
    module: nn.Module, data: Any, rows: int, target: str | None, seed: int
) -> tuple[nn.Module, list[Batch], Task | None]:
    """The module as it takes the batches (a net of graphs with its graph before it), the batches to look at, and the
    task where there are targets. Raises BadData where there is no row."""
    if rows < 2:
        raise BadSetting(f"rows={rows}: an interval needs at least 2")
    if is_batches(data):
        return module, *batches_in(module, data, rows)
    dataset = (
        data
        if isinstance(data, Dataset)
        else open_data(data, target=target, seed=seed, as_given=not isinstance(module, Net))
    )
    task: Task = TASKS.make(dataset.signature.task)
    asked_of, split_of = asked(module, dataset.valid.take(rows, seed), torch.device("cpu"))
    shown = OnNodes(asked_of) if isinstance(asked_of, OnGraph) else asked_of
    return shown, [Batch(*split_of.batch(slice(None)))], task


def _times(module: nn.Module, batch: Batch, spans: Sequence[Span]) -> tuple[float, dict[Visit, float]]:
    """Milliseconds of a run of one row, and of each visit in it. A whole batch goes as one."""
    visits = Counter(span.path for span in spans)
    one = cut(batch, 1).example
    each = per_span_ms(module, one, sorted(visits), seconds=0.5)
    return latency(module, one, seconds=0.5).median, {span.at: each[span.path] / visits[span.path] for span in spans}
