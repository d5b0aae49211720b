"""Training as a verb does it: data opened, net trained, scored beside simpler models, saved with its report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from shoal.artifact import save
from shoal.building import complete_spec
from shoal.commands._folders import forget
from shoal.commands._talk import Talk, stdout_kept
from shoal.commands._trained import Order, Trained
from shoal.data import open_data
from shoal.report import page, tables
from shoal.training import Step, TrainingRecipe, baselines, default_recipe, train

INTERRUPTED = 130
WORDS = {
    "better": "better than",
    "worse": "worse than",
    "equivalent": "as good as",
    "unclear": "neither clearly better nor worse than",
}


def trained(talk: Talk, order: Order, checkpoint: Path | None = None, resume: bool = False) -> Trained:
    """Open the data and train. What is wrong with spec, recipe or data is raised before anything is said."""
    given = None if order.settings is None else TrainingRecipe.from_json(order.settings)
    with stdout_kept():
        data = open_data(order.source, target=order.target, task=order.task)
    if order.spec is not None:
        complete_spec(order.spec, data)
    recipe = given
    if order.epochs is not None:
        recipe = replace(given or default_recipe(data), epochs=order.epochs)
    with talk.progress(f"training on {data.name}") as tick:

        def progress(step: Step) -> None:
            share = step.index / step.total if step.total else 0.0
            if order.within is not None:
                share = max(share, min(1.0, step.seconds / order.within))
            tick(share, f"epoch {step.epoch + 1}, loss {step.loss:.3f}")

        run = train(
            order.spec,
            data,
            recipe,
            seed=order.seed,
            within=order.within,
            progress=progress,
            checkpoint=checkpoint,
            resume=resume,
        )
    table = not data.signature.places and data.signature.vocabulary is None
    others = baselines(data, seed=order.seed) if table and order.baselines else []
    return Trained(order, run, data, tuple(others))


def tell(talk: Talk, found: Trained, report: dict[str, Any]) -> None:
    """What was found in the data, how good the net is beside the others, what it costs."""
    run, data = found.run, found.dataset
    talk.say(f"data {data.name}")
    for note in data.notes:
        talk.say(f"- {note}")
    talk.say(f"{len(run.history) - 1} epochs in {run.seconds:.0f} s; the weights of epoch {run.best} are kept\n")
    for table in tables(report):
        talk.show(table)
    for row in report["baselines"]:
        talk.say(f"the net is {WORDS.get(row['word'], row['word'])} {row['name']}")


def save_trained(talk: Talk, found: Trained, folder: Path, *, overwrite: bool) -> int:
    """Say what came of it, save the run folder and say where; the exit code, another where it was interrupted."""
    report = found.report
    tell(talk, found, report)
    with stdout_kept():
        save(found, folder, overwrite=overwrite, pages={"report.html": page(report)})
    talk.done({"folder": str(folder), "report": report})
    if found.run.stopped == "interrupt":
        talk.say(f"\ninterrupted: the best so far is in {folder}; --resume goes on")
        return INTERRUPTED
    forget(folder)
    talk.say(f"\nsaved   {folder} (open {folder / 'report.html'}; shoal show {folder})")
    return 0
