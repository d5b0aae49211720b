"""Analyzing as a verb does it: target and data opened, looked at, told, and written down with the page."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import nn

from shoal import __version__
from shoal.analysis import INTERVENED, analyze
from shoal.artifact.files import new_folder, plain, render
from shoal.commands._models import is_code
from shoal.commands._open_target import IN_PACKAGE
from shoal.commands._open_trained import open_trained
from shoal.commands._packages import made_by
from shoal.commands._talk import Talk, stdout_kept
from shoal.core.errors import BadData, BadSetting
from shoal.data import Dataset, open_data
from shoal.data.loaders import call
from shoal.evidence import parse_keep
from shoal.net import Net
from shoal.report import analysis_page, analysis_tables


class Order(NamedTuple):
    """What was asked for."""

    thing: str
    data: str | None = None
    column: str | None = None
    weights: Path | None = None
    keep: str | None = None
    rows: int = 2000
    measures: Sequence[str] = ()
    interventions: Sequence[str] | None = None
    within: float | None = None
    memory: float = 512e6
    seed: int = 0


def analyzed(talk: Talk, order: Order) -> dict[str, Any]:
    """Open and look; the report. What is wrong with target or data is raised before anything is said."""
    if order.keep is not None:
        parse_keep(order.keep)
    module, facts = open_trained(order.thing, order.weights)
    data, name = _data(talk, order, module, facts.get("data") or {})
    began = time.perf_counter()
    with stdout_kept(), talk.progress("analyzing") as tick:

        def progress(text: str) -> None:
            tick(None if order.within is None else (time.perf_counter() - began) / order.within, text)

        found = analyze(
            module,
            data,
            keep=order.keep,
            measures=order.measures,
            interventions=INTERVENED if order.interventions is None else order.interventions,
            rows=order.rows,
            within=order.within,
            memory=order.memory,
            seed=order.seed,
            progress=progress,
        )
    environment = {
        "seed": order.seed,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "shoal": __version__,
        "processor": platform.processor() or platform.machine(),
    }
    return {**found.to_json(), "model": order.thing, "data": name, "environment": environment}


def finish(talk: Talk, report: dict[str, Any], folder: Path) -> int:
    """Tell, write, and say where."""
    for table in analysis_tables(report):
        talk.show(table)
        talk.say()
    with new_folder(folder, overwrite=False) as beside:
        (beside / "report.json").write_text(render(plain(report)), encoding="utf-8")
        (beside / "report.html").write_text(analysis_page(report), encoding="utf-8")
    talk.say(f"saved   {folder} (open {folder / 'report.html'})")
    talk.done({"folder": str(folder), "report": report})
    return 0


def _data(talk: Talk, order: Order, module: nn.Module, known: dict[str, Any]) -> tuple[Any, str]:
    """What to look at, and what it is called: that which was said, else what the run folder learned from."""
    source = order.data or known.get("source")
    if source is None:
        raise BadSetting(f"analyze {order.thing}: on what? say a data set after it: a name, a path, PATH.py:function")
    column = order.column or (known.get("target") if source == known.get("source") else None)
    with stdout_kept():
        opened = _made(source, column, module)
    if isinstance(opened, Dataset) and known.get("fingerprint") not in (None, opened.fingerprint):
        talk.note(f"{source}: not the rows that {order.thing} learned from; it may hold some of those that it did")
    return opened, opened.name if isinstance(opened, Dataset) else source


def _made(source: str, column: str | None, module: nn.Module) -> Any:
    """A data set that is split, or the batches that a function gives."""
    if not is_code(source) and not IN_PACKAGE.fullmatch(source):
        return open_data(source, target=column, as_given=not isinstance(module, Net))
    made = call(source) if is_code(source) else made_by(source)
    if isinstance(made, str | Path):
        raise BadData(f"{source}: returned {made!r}; return (X, y), a DataFrame, or batches")
    if isinstance(made, Iterable) and not isinstance(made, tuple | pd.DataFrame | torch.Tensor):
        return made
    return open_data(made, target=column, as_given=not isinstance(made, pd.DataFrame))
