"""Analyze: how a trained network uses its depth: a word for every layer, the depth it needs, and a page that shows it.

shoal analyze runs/digits
shoal analyze my_model.py:trained my_model.py:rows --keep "-1pt"
shoal analyze package.module:make digits --weights net.safetensors
shoal analyze net.pt2 cifar10 --interventions "skip,loop[times=3]" --within 3min
shoal analyze hf:models/minilm my_texts.py:batches --measures influence,similarity

TARGET is a run folder, a .pt2, a function in a file or in a package that gives a module, or hf:FOLDER, a model of
transformers in a local folder. Data that shoal splits is looked at in its validation part. A function may also give
batches, (x, y) or inputs alone, as tensors, tuples or dicts of arguments: all of them are looked at, up to --rows.
Without targets the network's own answers are what is to be kept. The network is not changed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shoal.commands._folders import place
from shoal.commands._listed import listed, size
from shoal.commands._options import Json, Out, Quiet, Seed, Within, seconds
from shoal.commands._options import Target as Column
from shoal.commands._talk import Talk
from shoal.core.errors import BadSetting


def run(
    thing: Annotated[
        str, typer.Argument(metavar="TARGET", help="Run folder, .pt2, PATH.py:function, package:function, hf:FOLDER.")
    ],
    data: Annotated[str | None, typer.Argument(help="As for compress; that of the run folder if not said.")] = None,
    target: Column = None,
    weights: Annotated[Path | None, typer.Option(metavar="FILE.safetensors", help="For what a function makes.")] = None,
    keep: Annotated[
        str | None, typer.Option(metavar="FLOOR", help="-1pt, or +5% of the loss; by what is asked.")
    ] = None,
    rows: Annotated[int, typer.Option(min=2, help="At most so many examples.")] = 2000,
    measures: Annotated[str, typer.Option(metavar="A,B", help="Also these: shoal list measures.")] = "",
    interventions: Annotated[
        str | None, typer.Option(metavar="A,B", help="Beside skip: shoal list interventions.")
    ] = None,
    within: Within = None,
    memory: Annotated[str, typer.Option(metavar="SIZE", help="What a run may keep: 64MB, 2GB.")] = "512MB",
    seed: Seed = 0,
    out: Out = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> int:
    talk = Talk(as_json, quiet)
    limit, room = seconds(within), size(memory, "--memory")
    looks = listed(measures, "--measures")
    changes = None if interventions is None else listed(interventions, "--interventions")
    if out is not None and out.is_dir() and any(out.iterdir()):
        raise BadSetting(f"--out {out}: exists already; choose another folder")
    folder = place(out, f"{Path(thing.rpartition('.py:')[0] or thing).name}-analysis")

    from shoal.commands._analyzing import Order, analyzed, finish  # brings torch: what is cheap comes before

    order = Order(thing, data, target, weights, keep, rows, looks, changes, limit, room, seed)
    return finish(talk, analyzed(talk, order), folder)
