"""Export: a model out of a run folder as one file, checked against its hash.

shoal export runs/demo/compressed --format onnx --out net.onnx
"""

from __future__ import annotations

import shutil
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from shoal.commands._options import Json
from shoal.commands._talk import Talk
from shoal.core.errors import BadModel, BadSetting


class Format(StrEnum):
    """The files that a run folder holds a model in."""

    pt2 = "pt2"
    onnx = "onnx"
    safetensors = "safetensors"


def run(
    folder: Annotated[str, typer.Argument(help="A run folder.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The file to write.")],
    form: Annotated[Format, typer.Option("--format", help="pt2 opens with torch, onnx with onnxruntime.")] = Format.pt2,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it is there.")] = False,
    as_json: Json = False,
) -> None:
    talk = Talk(as_json)
    if out.exists() and (out.is_dir() or not overwrite):
        raise BadSetting(f"--out {out}: exists already; choose another file, or replace it with --overwrite")

    from shoal.artifact.files import new_file  # brings torch: what is cheap comes before
    from shoal.commands._models import described

    facts = described(folder)
    name = f"model.{form.value}"
    program = facts["programs"].get(name, {})
    if name not in facts["files"]:
        raise BadModel(
            f"{folder}: holds no {name}: {program.get('missing', 'it was not written')}; try another --format"
        )
    with new_file(out) as beside:
        shutil.copyfile(Path(folder) / name, beside)
    takes = "" if form is Format.safetensors else f", takes a batch of {program['batch']}, equal {program['equal']}"
    talk.say(f"{out}: {out.stat().st_size:,} bytes{takes}")
    talk.done({"file": str(out), "bytes": out.stat().st_size, "format": form.value, **program})
