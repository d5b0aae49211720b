"""Show: what a run folder, a .pt2, a spec or a module of yours holds, what it costs, and who reads whom.

shoal show runs/demo
shoal show "residual(conv) 3x16-3x32"
shoal show "residual(mlp) 4x64" --like houses.csv --target price
shoal show my_model.py:make --like digits
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from shoal.artifact import load_program
from shoal.building import complete_spec
from shoal.commands._models import described, is_made, made
from shoal.commands._options import Json, Target
from shoal.commands._specs import show_spec
from shoal.commands._talk import Talk
from shoal.core.errors import BadSpec
from shoal.core.named import is_spec, read_spec
from shoal.costing import cost
from shoal.costing.table import short
from shoal.data import open_data
from shoal.report import tables
from shoal.shrinking.unlabelled import first_rows


def run(
    thing: Annotated[str, typer.Argument(help="A run folder, a .pt2, a spec as text, PATH.py:function or hf:FOLDER.")],
    like: Annotated[str | None, typer.Option(metavar="DATA", help="Count costs on a row of such data.")] = None,
    target: Target = None,
    as_json: Json = False,
) -> None:
    talk = Talk(as_json)
    if is_made(thing):
        talk.done(_module(talk, thing, like, target))
    elif Path(thing).suffix == ".pt2":
        talk.done(_program(talk, thing))
    elif Path(thing).exists():
        talk.done(_folder(talk, thing))
    elif is_spec(thing):
        data = open_data(like, target=target) if like else None
        talk.done(show_spec(talk, read_spec(thing) if data is None else complete_spec(thing, data), data))
    else:
        raise BadSpec(f"show {thing!r}: is no folder that is there, and no spec such as 'residual(mlp) 4x32'")


def _folder(talk: Talk, folder: str) -> dict[str, Any]:
    facts = described(folder)
    path = Path(folder) / "report.json"
    report = json.loads(path.read_text(encoding="utf-8")) if path.name in facts["files"] else {}
    talk.say(f"{folder}: {len(facts['files'])} files, each as it was saved (shoal {facts['versions']['shoal']})")
    talk.say(f"model   {facts['model']}")
    talk.say(f"weights {facts['weights']['numbers']:,} numbers, {facts['weights']['bytes']:,} bytes")
    for edit in facts["recipe"]["edits"]:
        talk.say(f"edit    {edit['name']} {json.dumps(edit['settings'])}")
    for name, program in facts["programs"].items():
        told = program.get("missing") or f"takes a batch of {program['batch']}, equal {program['equal']}"
        talk.say(f"{name}: {told}")
    if "huggingface" in facts:
        talk.say(f"huggingface: {facts['huggingface'].get('missing', 'from_pretrained of transformers opens it')}")
    for table in tables(report) if report else []:
        talk.say()
        talk.show(table)
    return {"folder": folder, "facts": facts, "report": report}


def _program(talk: Talk, file: str) -> dict[str, Any]:
    size = sum(parameter.numel() for parameter in load_program(file).parameters())
    talk.say(f"{file}: a program that torch opens, {short(size)} params; nothing in it can run foreign code")
    return {"type": "program", "params": size}


def _module(talk: Talk, place: str, like: str | None, target: str | None) -> dict[str, Any]:
    module = made(place)
    kind, size = type(module).__name__, sum(parameter.numel() for parameter in module.parameters())
    if like is None:
        talk.say(f"{place}: {kind}, {short(size)} params; --like DATA counts the rest on a row of it")
        return {"type": kind, "params": size}
    found = cost(module, first_rows(like, target, 1))
    talk.say(f"{place}: {kind}, {found} (on one row of {like})\n")
    rows = [(x.path, x.type, str(x.output_shape), x.params, x.macs) for x in found.calls if x.params or x.macs]
    talk.table(["layer", "type", "gives", "params", "macs"], rows)
    return {"type": kind, **found.to_json()}
