"""Compress: a trained model, made shallower until a goal is met on this machine, with the evidence.

shoal compress runs/digits --to "latency<=50%" --keep "-1pt"
shoal compress my_model.py:trained my_model.py:batches --within 10min
shoal compress hf:models/minilm my_texts.py:batches --to "depth<=55%" --keep "-2pt"
shoal compress runs/houses --to "params<=30%,depth<=4" --keep "+1%" --out runs/small
shoal compress runs/digits --compressor skip --compressor flatten --keep none --resume

A function of data gives (X, y), batches (x, y), or inputs alone: then the original's answers are asked for. An input is
a tensor, or a dict of the module's arguments by their names. hf:FOLDER is a model of transformers; what is saved of it
holds a folder that from_pretrained opens, where that format can say what is left: --compressor "skip[whole=true]" takes
whole layers alone.

Exit code 0: goals met and quality kept. 3: quality not shown to be kept. 4: a goal was not reached.
The best that was found is saved in any case, also behind Ctrl-C (exit code 130). --resume goes on with what was begun
and not finished, killed or interrupted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shoal.commands._folders import place, unfinished
from shoal.commands._options import Json, Out, Overwrite, Quiet, RecipeFile, Seed, Target, Within, read_json, seconds
from shoal.commands._talk import Talk
from shoal.core.errors import BadSetting
from shoal.goals import parse_goals


def run(
    model: Annotated[
        str, typer.Argument(metavar="TARGET", help="A run folder, PATH.py:function or hf:FOLDER: a trained module.")
    ],
    data: Annotated[str | None, typer.Argument(help="As for train; that of the run folder if not said.")] = None,
    named: Annotated[str | None, typer.Option("--data", metavar="DATA", help="The same, said by name.")] = None,
    target: Target = None,
    to: Annotated[
        str, typer.Option(metavar="GOALS", help="latency, params, macs, bytes, depth or memory.")
    ] = "latency<=50%",
    keep: Annotated[
        str, typer.Option(metavar="FLOOR", help="What may be lost: -1pt, or +1% of the loss; none promises nothing.")
    ] = "-1pt",
    within: Within = None,
    seed: Seed = 0,
    out: Out = None,
    overwrite: Overwrite = False,
    runtime: Annotated[str, typer.Option(help="eager, compile or onnxruntime.")] = "eager",
    batch: Annotated[int, typer.Option(min=1, help="Rows at a time where latency is measured.")] = 1,
    no_controls: Annotated[bool, typer.Option("--no-controls", help="Leave the control runs out.")] = False,
    compressor: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="What may propose, several times; the usual if not said.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where an interrupted one stopped.")] = False,
    recipe: RecipeFile = None,
    base: Annotated[
        str | None, typer.Option(metavar="MODEL", help="What a folder's model was: PATH.py:function or hf:FOLDER.")
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> int:
    talk = Talk(as_json, quiet)
    limit = seconds(within)
    parse_goals(to)
    if data is not None and named is not None:
        raise BadSetting(f"--data {named}: {data} is given already; say one of them")
    if runtime not in ("eager", "compile", "onnxruntime"):
        raise BadSetting(f"--runtime {runtime!r}: is none; give eager, compile or onnxruntime")
    settings = None if recipe is None else read_json(recipe, "--recipe")
    name = f"{Path(model.rpartition('.py:')[0] or model.removeprefix('hf:')).name}-compressed"
    folder = place(out, name, overwrite=overwrite, resume=resume)

    from shoal.commands._compressing import Order, carried_out  # brings torch: what is cheap comes before

    order = Order(
        model,
        named if data is None else data,
        target,
        base,
        to,
        keep,
        limit,
        seed,
        runtime,
        batch,
        not no_controls,
        settings,
        tuple(compressor) if compressor else None,
        unfinished(folder),
        resume,
    )
    return carried_out(talk, order, folder, overwrite=overwrite or resume)
