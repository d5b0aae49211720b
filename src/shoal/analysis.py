"""Analyze: how any module uses its depth, from one page of numbers to one word a span.

found = analyze(net, data)
found.spans            a DataFrame: every visited span, its place, size, cost, time, harm and verdict
found.verdicts         a word and a reason a span
found.effective_depth  the fewest spans that keep the quality, and the curve that leads there
found.effects          every intervention at every place, with intervals
found.to_json()        all of it; found.to_html() the page that shows it

Longer than the house's 250 lines: what is found, the run that finds it and its table are read together.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from shoal.anatomy import anatomy
from shoal.core.base import Intervention, Measure, Task
from shoal.core.errors import BadData, BadModel, BadSetting
from shoal.core.example import tensors
from shoal.core.part import Part
from shoal.core.resuming import Resumable
from shoal.core.scene import Batch, Scene, answer, cut
from shoal.core.spans import Change, Span, Visit
from shoal.costing import Cost, cost, latency, per_span_ms
from shoal.data import Dataset, open_data
from shoal.evidence import Evidence, Floor, Keep, mean, parse_keep, proportion
from shoal.intervening import Array, Effect, Told, Trial, effect, placed, rows_meet, size_of_batch, split
from shoal.interventions.skip import Skip
from shoal.kinds import INTERVENTIONS, MEASURES, TASKS
from shoal.net import Net
from shoal.training.graphs import asked
from shoal.verdicts import SpanVerdict, kept, natures, verdicts

log = logging.getLogger("shoal.analysis")
Say = Callable[[str], None]

INTERVENED = ("skip", "loop", "swap", "parallel", "linear_map", "exit", "noise")
CHOSEN = 256  # rows on which other interventions are seen, and on which the greedy search chooses
WIDTH = 3  # spans that it tries at each step: those that did least harm before
FAILED = 3  # so often in a row below the floor there, and what comes after is judged on those rows alone
ROWS = 2  # rows on which the anatomy is read


@runtime_checkable
class Mapped(Protocol):
    """A measure that also holds spans against spans."""

    def map(self, scene: Scene) -> pd.DataFrame:
        """A square table."""
        ...


@dataclass(frozen=True)
class Depth:
    """A module with some spans left out: which, what is left, and what became of the quality."""

    skipped: tuple[Visit, ...]
    left: int
    floor: Floor
    quality: Evidence
    ms: float  # by the times of the spans left out, of the whole module

    def to_json(self) -> dict[str, Any]:
        """Its numbers; of what is left out, that which went last."""
        return {
            "left": self.left,
            "without": list(self.skipped[-1]) if self.skipped else None,
            "word": self.floor.word,
            "difference": self.floor.difference.to_json(),
            "quality": self.quality.to_json(),
            "ms": self.ms,
        }


@dataclass(frozen=True)
class Analysis:
    """What was found; every table is a DataFrame, every number has its interval where it is uncertain."""

    spans: pd.DataFrame
    effects: tuple[Effect, ...]
    verdicts: tuple[SpanVerdict, ...]
    curve: tuple[Depth, ...]  # nothing left out, then one span more each time
    measures: Mapping[str, pd.DataFrame]
    left: Mapping[str, str]
    quality: Evidence
    metric: str
    ms: float
    keep: Keep
    rows: int
    seconds: float
    unfinished: tuple[str, ...] = ()
    maps: Mapping[str, pd.DataFrame] = field(default_factory=dict)  # spans against spans, of measures that have it

    @property
    def effective_depth(self) -> Depth:
        """The shallowest on the curve whose quality is above the floor for certain; nothing left out where none is."""
        return [one for one in self.curve if one.floor.word == "pass" or not one.skipped][-1]

    def predicted(self, sets: Iterable[Sequence[Visit]]) -> list[float]:
        """How much the loss should grow where all spans of a set are left out: the sum of what each did alone."""
        alone = {one.spans[0].at: one.loss.value for one in self.effects if one.intervention == "skip"}
        return [sum(alone[at] for at in visits) for visits in sets]

    def to_json(self) -> dict[str, Any]:
        """All that was found, as JSON; the page is made of it."""
        points, relative = self.keep.points, self.keep.relative
        best = self.effective_depth
        open_ones = [one.left for one in self.curve if one.floor.word != "fail" and one.quality.n == self.rows]
        below = points if points is not None else abs(self.quality.value) * (relative or 0.0)
        comparable = points is not None or self.quality.unit != "%"  # a growth of the loss is none of a share
        return {
            "kind": "analysis",
            "keep": str(self.keep),
            "metric": {"name": self.metric, "unit": self.quality.unit},
            "quality": self.quality.to_json(),
            "floor": self.quality.value - below if comparable else None,
            "ms": self.ms,
            "rows": self.rows,
            "seconds": self.seconds,
            "effective_depth": {
                **best.to_json(),
                "skipped": [list(at) for at in best.skipped],
                "of": len(self.verdicts),
                "low": min(best.left, *open_ones),
            },
            "curve": [one.to_json() for one in self.curve],
            "spans": self.spans.to_dict("records"),
            "effects": [_effect(one) for one in self.effects],
            "measures": {name: _split(table) for name, table in self.measures.items()},
            "left": dict(self.left),
            "unfinished": list(self.unfinished),
            "maps": {
                name: {"labels": [str(each) for each in one.index], "values": one.to_numpy().tolist()}
                for name, one in self.maps.items()
            },
        }

    def to_html(self) -> str:
        """One page that asks nothing of the network: the same, drawn, mapped and in tables."""
        from shoal.report import analysis_page  # jinja2 is only needed here

        return analysis_page(self.to_json())


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
    floor_at = parse_keep(keep or ("-1pt" if task is None or task.unit == "%" else "+5%"))
    first = cut(batches[0], ROWS)
    found = anatomy(module, first.example)
    if not found.visits:
        raise BadModel(
            f"{type(module).__name__}: no part takes a tensor and gives one of its shape; nothing to look at"
        )
    scene = Scene(module, found, tuple(batches), task, seed).head(rows)
    scene = Scene(module, found, tuple(split(scene.batches, size_of_batch(scene, int(memory)))), task, seed)
    say(f"{len(found.visits)} spans, {sum(one.rows for one in scene.batches)} rows, {scene.batches[0].rows} at a time")

    trial, few, skip = Trial(scene), Trial(scene.head(CHOSEN)), Skip()
    skips = placed(scene, {"skip": skip}, int(memory))
    others = placed(scene, {name: one for name, one in chosen.items() if name != "skip"}, int(memory))
    base, told = trial.told([changes for _, _, changes in skips])
    skipped = {spans[0].at: one for (_, spans, _), one in zip(skips, told, strict=True)}
    unit = trial.judge.unit()
    effects = [effect("skip", spans, base, skipped[spans[0].at], unit) for _, spans, _ in skips]
    say(f"{len(effects)} spans skipped")
    own, found_of = few.told([changes for _, _, changes in others])
    effects += [effect(name, spans, own, one, unit) for (name, spans, _), one in zip(others, found_of, strict=True)]
    say(f"{len(others)} other interventions, on {len(own.loss)} rows")
    open_to = [  # what may pass, and is judged on all rows
        (spans, changes)
        for (name, spans, changes), one in zip(others, found_of, strict=True)
        if name == "parallel" and kept(floor_at, own, one).word != "fail"
    ]
    together = trial.told([changes for _, changes in open_to])[1] if open_to else []
    beside = {spans[0].at: (spans[1].at, one) for (spans, _), one in zip(open_to, together, strict=True)}
    words = verdicts(scene, floor_at, base, skipped, beside, natures(scene))
    whole, each = _times(module, first, found.visits)
    curve = _curve(trial, few, skip, floor_at, base, skipped, whole, each, int(memory), until)
    say(f"effective depth {[one for one in curve if one.floor.word == 'pass' or not one.skipped][-1].left}")
    unfinished = []
    tables: dict[str, pd.DataFrame] = {}
    maps: dict[str, pd.DataFrame] = {}
    for name, look in looks.items():
        if until is not None and time.perf_counter() > until:
            unfinished.append(name)
            continue
        tables[name] = look.table(scene)
        if isinstance(look, Mapped):
            maps[name] = look.map(scene)
        say(f"measure {name} done")
    quality = _quality(base.score, "%" if unit == "pt" else "")
    table = _table(module, first, scene, effects, words, each)
    return Analysis(
        table,
        tuple(effects),
        words,
        curve,
        tables,
        found.unvisited,
        quality,
        "score" if task is None else type(task).metric,
        whole,
        floor_at,
        len(base.loss),
        time.perf_counter() - began,
        tuple(unfinished),
        maps,
    )


def _quality(scores: Array, unit: str) -> Evidence:
    """The mean score; a share of ones where that is what the scores are."""
    return proportion(scores) if unit == "%" and np.isin(scores, (0, 1)).all() else mean(scores, unit=unit)


def batches_of(
    module: nn.Module, data: Any, rows: int, target: str | None, seed: int
) -> tuple[nn.Module, list[Batch], Task | None]:
    """The module as it takes the batches (a net of graphs with its graph before it), the batches to look at, and the
    task where there are targets. Raises BadData where there is no row."""
    if rows < 2:
        raise BadSetting(f"rows={rows}: an interval needs at least 2")
    if _is_batches(data):
        found = list(_taken(data, rows))
        if not found:
            raise BadData("batches: there is none; give an iterable that can still be gone through")
        if rows_meet(module, found[0]):
            found = [batch._replace(whole=True) for batch in found]
        return module, found, None if found[0].target is None else _task_for(found[0].target, module, found[0])
    dataset = (
        data
        if isinstance(data, Dataset)
        else open_data(data, target=target, seed=seed, as_given=not isinstance(module, Net))
    )
    task: Task = TASKS.make(dataset.signature.task)
    asked_of, split_of = asked(module, dataset.valid.take(rows, seed), torch.device("cpu"))
    return asked_of, [Batch(*split_of.batch(slice(None)))], task


def _is_batches(data: Any) -> bool:
    """Whether it is gone through batch by batch: a list, a generator, a loader; a tuple is (X, y)."""
    if isinstance(data, Dataset | str | tuple | pd.DataFrame | Tensor) or hasattr(data, "edge_index"):
        return False
    return isinstance(data, Iterable)


def _taken(data: Iterable[Any], rows: int) -> Iterable[Batch]:
    """Batches until there are enough rows."""
    had = 0
    for number, one in enumerate(data):
        batch = one if isinstance(one, Batch) else Batch(*one) if _is_pair(one) else Batch(one)
        if not tensors(batch.example):
            raise BadData(f"batch {number}: there is no tensor in it; give tensors, tuples or dicts of them, or (x, y)")
        if batch.target is not None and len(batch.target) != batch.rows:
            raise BadData(f"batch {number}: {batch.rows} rows and {len(batch.target)} targets; give one a row")
        yield batch
        had += batch.rows
        if had >= rows:
            return


def _is_pair(one: Any) -> bool:
    return isinstance(one, tuple | list) and len(one) == 2


def _task_for(target: Tensor, module: nn.Module, batch: Batch) -> Task:
    """Classification where targets are whole numbers, the next token where there is one at every place, else
    regression; as wide as the answers."""
    with Resumable(module, ()) as runs:
        width = answer(runs.record(cut(batch, 1).example).output).shape[-1]
    if target.is_floating_point():
        part = Part("regression", {"outputs": width})
    elif target.dim() > 1:
        part = Part("next_token", {"vocabulary": width})
    else:
        part = Part("classification", {"classes": width})
    made: Task = TASKS.make(part)
    return made


def _times(module: nn.Module, batch: Batch, spans: Sequence[Span]) -> tuple[float, dict[str, float]]:
    """Milliseconds of a run of one row, and of each part in it: all its visits. A whole batch goes as one."""
    paths = sorted({span.path for span in spans})
    one = cut(batch, 1).example
    return latency(module, one, seconds=0.5).median, per_span_ms(module, one, paths, seconds=0.5)


def _curve(
    trial: Trial,
    few: Trial,
    skip: Skip,
    keep: Keep,
    base: Told,
    skipped: Mapping[Visit, Told],
    whole: float,
    each: Mapping[str, float],
    memory: int,
    until: float | None,
) -> tuple[Depth, ...]:
    """Spans left out one after another, each time the one that harms least beside those that went before.

    Chosen on the first rows, among the few that did least harm before; judged on all of them, until it is clear that
    the floor is left behind.
    """
    spans = {span.at: span for span in trial.scene.spans}
    visits = Counter(span.path for span in trial.scene.spans)
    order = sorted(spans, key=lambda at: float(skipped[at].loss.mean()))
    gone: list[Visit] = []
    sets: list[Mapping[Visit, Change]] = []
    found: list[tuple[Told, Told]] = []  # the module as it is, and without what is gone, on the same rows
    failed = 0
    with few.holding(memory):
        while order and (until is None or time.perf_counter() < until):
            tries = [skip.changes(tuple(spans[at] for at in (*gone, one))) for one in order[:WIDTH]]
            own, told = few.told(tries)
            best = min(range(len(tries)), key=lambda i: float(told[i].loss.mean()))
            gone.append(order.pop(best))
            found.append((own, told[best]))
            if failed < FAILED:
                sets.append(tries[best])
                failed = failed + 1 if kept(keep, own, told[best]).word == "fail" else 0
    told = trial.told(sets)[1] if sets else []
    found[: len(sets)] = [(base, one) for one in told]
    unit = "%" if trial.judge.unit() == "pt" else ""
    curve = []
    for count, (before, after) in enumerate([(base, base), *found]):
        saved = sum(each[at.path] / visits[at.path] for at in gone[:count])
        quality = _quality(after.score, unit)
        curve.append(Depth(tuple(gone[:count]), len(spans) - count, kept(keep, before, after), quality, whole - saved))
    return tuple(curve)


def _table(
    module: nn.Module,
    batch: Batch,
    scene: Scene,
    effects: Sequence[Effect],
    words: Sequence[SpanVerdict],
    each: Mapping[str, float],
) -> pd.DataFrame:
    """One row a visited span."""
    row = cut(batch, 1)
    counted = cost(module, row.example, training=False)
    visits = Counter(span.path for span in scene.spans)
    harm = {one.spans[0].at: one for one in effects if one.intervention == "skip"}
    rows = []
    for span, said in zip(scene.spans, words, strict=True):
        one = harm[span.at]
        rows.append(
            {
                "path": span.path,
                "visit": span.visit,
                "kind": "branch" if span.branch else "stream",
                "siblings": sum(other.parent == span.parent for other in scene.spans) - 1,
                "inner": _inner(module.get_submodule(span.path)),
                "params": span.params,
                "macs": _macs(counted, span.path) // visits[span.path] // row.rows,
                "ms": each[span.path] / visits[span.path],
                "harm": one.loss.value,
                "harm_low": one.loss.low,
                "harm_high": one.loss.high,
                "quality": one.quality.value,
                "distance": one.distance.value,
                "verdict": said.word,
                "why": said.why,
            }
        )
    return pd.DataFrame(rows)


def _macs(counted: Cost, path: str) -> int:
    """Multiply-adds of a part and all in it, over all its visits."""
    return sum(call.macs for call in counted.calls if f"{call.path}.".startswith(f"{path}."))


def _inner(part: nn.Module) -> str:
    """The widths within: rows of its matrices, in order, as ``64,16``."""
    return ",".join(str(weight.shape[0]) for weight in part.parameters() if weight.dim() > 1)


def _effect(one: Effect) -> dict[str, Any]:
    """An effect as JSON."""
    numbers = {name: getattr(one, name).to_json() for name in ("loss", "quality", "distance")}
    return {"intervention": one.intervention, "places": [list(span.at) for span in one.spans], **numbers}


def _split(table: pd.DataFrame) -> dict[str, Any]:
    """A table as JSON: its columns and its rows."""
    parts = table.to_dict("split")
    return {"columns": [str(name) for name in parts["columns"]], "rows": parts["data"]}
