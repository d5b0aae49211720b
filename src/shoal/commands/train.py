"""Train: a net on your data, scored beside simpler models; saves a run folder that loads anywhere.

shoal train digits
shoal train houses.csv --target price --within 2min
shoal train digits --spec "residual(conv) 6x16" --epochs 20 --out runs/six
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shoal.commands._folders import forget, place, unfinished
from shoal.commands._options import Json, Out, Overwrite, Quiet, RecipeFile, Seed, Target, Within, read_json, seconds
from shoal.commands._talk import Talk
from shoal.core.errors import ShoalError


def run(
    source: Annotated[str, typer.Argument(metavar="DATA", help="A name, a file, or PATH.py:function.")],
    target: Target = None,
    spec: Annotated[str | None, typer.Option(metavar="TEXT", help="The net; chosen by the data if not said.")] = None,
    task: Annotated[str | None, typer.Option(help="classification or regression, where the target misleads.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the training part.")] = None,
    within: Within = None,
    seed: Seed = 0,
    out: Out = None,
    overwrite: Overwrite = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where an interrupted training stopped.")] = False,
    recipe: RecipeFile = None,
    no_baselines: Annotated[bool, typer.Option("--no-baselines", help="Leave the simpler models out.")] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> int:
    talk = Talk(as_json, quiet)
    limit = seconds(within)
    settings = None if recipe is None else read_json(recipe, "--recipe")
    folder = place(out, Path(source.rpartition(":")[2]).name.split(".")[0], overwrite=overwrite, resume=resume)
    begun = unfinished(folder).is_dir()

    from shoal.commands._trained import Order
    from shoal.commands._training import save_trained, trained  # brings torch: what is cheap comes before

    order = Order(source, target, task, spec, settings, epochs, seed, limit, not no_baselines)
    try:
        found = trained(talk, order, checkpoint=unfinished(folder), resume=resume and begun)
    except ShoalError:
        if not begun:
            forget(folder)
        raise
    return save_trained(talk, found, folder, overwrite=overwrite or resume)
