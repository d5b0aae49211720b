"""Compress: a trained model, made shallower until a goal is met on this machine, with the evidence.

shoal compress runs/digits --to "latency<=50%" --keep "-1pt"
shoal compress my_model.py:trained --data my_model.py:batches --within 10min
shoal compress runs/houses --to "params<=30%,depth<=4" --keep "+1%" --out runs/small

Exit code 0: goals met and quality kept. 3: quality not shown to be kept. 4: a goal was not reached.
The best that was found is saved in any case.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shoal.commands._folders import place
from shoal.commands._options import Json, Out, Overwrite, Quiet, RecipeFile, Seed, Target, Within, read_json, seconds
from shoal.commands._talk import Talk
from shoal.core.errors import BadSetting
from shoal.goals import parse_goals


def run(
    model: Annotated[str, typer.Argument(help="A run folder, or PATH.py:function that gives the trained module.")],
    data: Annotated[str | None, typer.Option(help="As for train; that of the run folder if not said.")] = None,
    target: Target = None,
    to: Annotated[str, typer.Option(metavar="GOALS", help="latency, params, macs, bytes or depth.")] = "latency<=50%",
    keep: Annotated[str, typer.Option(metavar="FLOOR", help="What may be lost: -1pt, or +1% of the loss.")] = "-1pt",
    within: Within = None,
    seed: Seed = 0,
    out: Out = None,
    overwrite: Overwrite = False,
    runtime: Annotated[str, typer.Option(help="eager, compile or onnxruntime.")] = "eager",
    batch: Annotated[int, typer.Option(min=1, help="Rows at a time where latency is measured.")] = 1,
    no_controls: Annotated[bool, typer.Option("--no-controls", help="Leave the control runs out.")] = False,
    recipe: RecipeFile = None,
    base: Annotated[str | None, typer.Option(metavar="PATH.py:function", help="What a folder's model was.")] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> int:
    talk = Talk(as_json, quiet)
    limit = seconds(within)
    parse_goals(to)
    if runtime not in ("eager", "compile", "onnxruntime"):
        raise BadSetting(f"--runtime {runtime!r}: is none; give eager, compile or onnxruntime")
    settings = None if recipe is None else read_json(recipe, "--recipe")
    name = f"{Path(model.rpartition('.py:')[0] or model).name}-compressed"
    folder = place(out, name, overwrite=overwrite)

    from shoal.commands._compressing import Order, compressed, finish  # brings torch: what is cheap comes before

    order = Order(model, data, target, base, to, keep, limit, seed, runtime, batch, not no_controls, settings)
    found = compressed(talk, order)
    return finish(talk, found, folder, overwrite=overwrite)
