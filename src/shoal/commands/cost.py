"""Cost: what a model executes, layer by layer, how long it takes, and how far it is from this machine's roof.

shoal cost runs/demo/compressed
shoal cost "convolution[channels=1] | residual(conv) 24x16 | pool[outputs=10]" --input 1x8x8x1
shoal cost "residual(conv) 3x16" --data digits --batch 64
shoal cost net.onnx --no-time
shoal cost my_model.py:make --input 1x16:int64 --json

MACs are multiply-adds as executed for the whole input, its batch included. The roof is what this machine was just
measured to do at best: multiply-adds of large float32 matrix products, and bytes moved to and from memory and caches.
"of roof" is how near a layer comes to it; "bound by" says what takes the most of the time at the roof. Layers are timed
in a run that is followed call by call, so small ones look some microseconds longer than they are.
"""

from __future__ import annotations

from typing import Annotated

import typer

from shoal.commands._options import Json, Quiet, Target
from shoal.commands._talk import Talk


def run(
    thing: Annotated[
        str,
        typer.Argument(
            metavar="TARGET", help="Spec, run folder, .pt2, .onnx, PATH.py:function, package:function, hf:FOLDER."
        ),
    ],
    given: Annotated[
        list[str] | None, typer.Option("--input", metavar="SHAPE", help="Such as 1x8x8x1 or 1x16:int64; one for each.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="Completes a spec and gives the input; as for train.")] = None,
    target: Target = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Rows, where the input does not say; 1.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="To time with; as many as torch takes.")] = None,
    no_time: Annotated[bool, typer.Option("--no-time", help="Count only: at once.")] = False,
    every: Annotated[bool, typer.Option("--all", help="All layers, however small.")] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    talk = Talk(as_json, quiet)

    from shoal.commands._costing import costed  # brings torch: what is cheap comes before
    from shoal.commands._inputs import Given, read_input

    inputs = tuple(read_input(each) for each in given or ())
    costed(talk, thing, Given(inputs, data, target, batch), threads, every=every, timed=not no_time)
