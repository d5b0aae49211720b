"""Compressing as a verb does it: model and data opened, compressed, told, saved with its report."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NamedTuple

from shoal.artifact import describe, save
from shoal.commands._folders import forget, unfinished
from shoal.commands._models import opened
from shoal.commands._talk import Talk, stdout_kept
from shoal.compressed import Compression
from shoal.compression import compress
from shoal.core.errors import (
    BadData,
    BadModel,
    BadSetting,
    Diverged,
    FloorNotMet,
    Interrupted,
    OutOfReach,
    ShoalError,
)
from shoal.evidence import UNPROMISED, Evidence, parse_promise
from shoal.report import page, tables
from shoal.report.format import metric
from shoal.shrinking.stages import written
from shoal.shrinking.unlabelled import opened as opened_data
from shoal.shrinking.warning import rows_wanted
from shoal.training import TrainingRecipe


class Order(NamedTuple):
    """What was asked for."""

    model: str
    data: str | None = None
    target: str | None = None
    base: str | None = None
    to: str = "latency<=50%"
    keep: str = "-1pt"
    within: float | None = None
    seed: int = 0
    runtime: str = "eager"
    batch: int = 1
    controls: bool = True
    settings: Any = None
    compressors: tuple[str, ...] | None = None
    checkpoint: Path | None = None
    resume: bool = False


def carried_out(talk: Talk, order: Order, folder: Path, *, overwrite: bool) -> int:
    """Compress, tell and save. What could be gone on with is kept until all is saved, also behind Ctrl-C.

    Where the order itself is wrong, nothing of what it began is left behind.
    """
    work = unfinished(folder)
    begun = work.is_dir()
    try:
        try:
            found = compressed(talk, order)
        except (BadSetting, BadData, BadModel, Diverged, OutOfReach):
            if not begun:
                forget(folder)
            raise
        return finish(talk, found, folder, overwrite=overwrite)
    except KeyboardInterrupt as end:
        if not work.is_dir():
            raise Interrupted("interrupted before anything was finished; nothing was written") from end
        raise Interrupted(f"interrupted; what is finished is in {work}: --resume goes on with it") from end


def compressed(talk: Talk, order: Order) -> Compression:
    """Open model and data and compress. What is wrong with them is raised before anything is said."""
    parse_promise(order.keep)
    recipe = None if order.settings is None else TrainingRecipe.from_json(order.settings)
    module, base, facts = opened(order.model, order.base)
    known = facts.get("data") or {}
    source = order.data or known.get("source")
    if source is None:
        raise BadSetting(f"compress {order.model}: no data to heal and test on: shoal compress {order.model} DATA")
    target = order.target or (known.get("target") if source == known.get("source") else None)
    with stdout_kept():
        data = opened_data(module, source, target, 0)
    if known.get("fingerprint") not in (None, data.fingerprint):
        talk.note(f"{source}: not the rows that {order.model} learned from; its test part may hold some of those")
    began = time.perf_counter()
    with stdout_kept(), talk.progress("compressing") as tick:

        def progress(text: str) -> None:
            if text.startswith("note: "):
                talk.note(text)
            tick(None if order.within is None else (time.perf_counter() - began) / order.within, text)

        return compress(
            module,
            data,
            to=order.to,
            keep=order.keep,
            within=order.within,
            seed=order.seed,
            base=base,
            recipe=recipe,
            controls=order.controls,
            runtime=order.runtime,
            batch=order.batch,
            compressors=order.compressors,
            checkpoint=order.checkpoint,
            resume=order.resume,
            progress=progress,
        )


def finish(talk: Talk, found: Compression, folder: Path, *, overwrite: bool) -> int:
    """Tell, save, and say where. Raises Interrupted, OutOfReach or FloorNotMet, once it is saved."""
    report = found.report
    tell(talk, report)
    with stdout_kept(), written(folder):
        save(found, folder, overwrite=overwrite, pages={"report.html": page(report)})
    talk.say(f"\nsaved   {folder} (open {folder / 'report.html'}; shoal show {folder})")
    _tell_transformers(talk, folder)
    talk.done({"folder": str(folder), "report": report})
    if found.interrupted:
        raise Interrupted(f"interrupted; the best so far is in {folder}: --resume goes on with the rest")
    forget(folder)
    problem = failure(report, folder)
    if problem is not None:
        raise problem
    return 0


def _tell_transformers(talk: Talk, folder: Path) -> None:
    """Whether the library of a model of transformers opens it again; nothing for any other."""
    told = describe(folder).get("huggingface", {})
    if "folder" in told:
        talk.say(f"        {folder / told['folder']} (transformers: from_pretrained)")
    elif told:
        talk.note(f"{folder}: there is no folder for from_pretrained: {told['missing']}")


def tell(talk: Talk, report: dict[str, Any]) -> None:
    """Before => after layer by layer, and in all; from the report alone."""
    for table in tables(report):
        talk.show(table)
        talk.say()


def failure(report: dict[str, Any], folder: Path) -> ShoalError | None:
    """What is to be said where a goal or the floor was not met."""
    missed = [goal for goal in report["goals"] if not goal["met"]]
    if missed:
        told = ", ".join(f"{goal['text']} at {metric(goal['metric'], goal['measured'])}" for goal in missed)
        return OutOfReach(f"not reached: {told}; the best so far is in {folder}: loosen the goal or give more time")
    floor = report["floor"]
    if floor["word"] not in ("pass", UNPROMISED):
        difference = Evidence.from_json(floor["difference"])
        rows = rows_wanted(difference, parse_promise(report["keep"]))
        more = "" if rows is None else f", about {rows:,} test rows"
        told = f"keep {report['keep']}: {floor['word']}, difference {difference}"
        return FloorNotMet(f"{told}; it is in {folder}: give more time to heal{more} or a looser --keep")
    return None
