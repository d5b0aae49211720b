"""List: what there is: the kinds and their methods, named data, the papers they come from.

shoal list              every kind with its methods
shoal list blocks       one kind
shoal list data         data sets that can be opened by name
shoal list --papers     the ledger of papers, and what is built of it
"""

from __future__ import annotations

import ast
import csv
import itertools
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from shoal.commands._options import Json
from shoal.commands._talk import Talk, columns
from shoal.core.errors import BadSetting, UnknownName, suggest
from shoal.core.kind import Kind
from shoal.kinds import KINDS

HOME = Path(__file__).parent.parent
PAPERS = re.compile(r"^Papers   (.+(?:\n {9}.+)*)", re.MULTILINE)


def run(
    kind: Annotated[str | None, typer.Argument(help="A kind such as blocks; data; papers.")] = None,
    papers: Annotated[bool, typer.Option("--papers", help="The ledger of papers, and what is built of it.")] = False,
    as_json: Json = False,
) -> None:
    talk = Talk(as_json)
    if papers and kind not in (None, "papers"):
        raise BadSetting(f"list {kind} --papers: papers are listed whole; leave {kind} out")
    kind = "papers" if papers else kind
    result = {None: _everything, "data": _data, "papers": _papers}.get(kind, _one(kind))(talk)
    talk.done(result)


def _one(name: str | None) -> Any:
    """What lists the kind of that name, plural or singular."""

    def listed(talk: Talk) -> dict[str, Any]:
        kinds = {**{one.name: one for one in KINDS.values()}, **KINDS}
        if name not in kinds:
            known = [*KINDS, "data", "papers"]
            raise UnknownName(f"list: no kind {name!r}; {suggest(str(name), known)}")
        methods = _methods(kinds[name])
        talk.say(columns(["name", ""], [*methods.items()]))
        return {kinds[name].folder: methods}

    return listed


def _methods(kind: Kind) -> dict[str, str]:
    return {name: kind.summary(name) for name in kind.names()}


def _everything(talk: Talk) -> dict[str, Any]:
    found = {folder: _methods(kind) for folder, kind in KINDS.items()}
    width = max(len(name) for methods in found.values() for name in methods)
    for folder, methods in found.items():
        talk.say(f"{folder} ({len(methods)})")
        for name, does in methods.items():
            talk.say(f"  {name:{width}}  {does}")
        talk.say()
    total = sum(len(methods) for methods in found.values())
    talk.say(f"{total} methods of {len(found)} kinds; shoal list data, shoal list --papers")
    return found


def _data(talk: Talk) -> dict[str, Any]:
    """Names of the data sets and how many classes they have, read without importing what opens them."""
    tree = ast.parse((HOME / "data" / "named.py").read_text(encoding="utf-8"))
    [table] = [
        node.value
        for node in tree.body
        if isinstance(node, ast.AnnAssign)
        and ast.unparse(node.target) == "CLASSES"
        and isinstance(node.value, ast.Dict)
    ]
    names = [str(ast.literal_eval(key)) for key in table.keys if key is not None]
    for name in names:
        talk.say(name)
    return {"data": names}


def _papers(talk: Talk) -> dict[str, Any]:
    """The ledger, wave by wave: each paper with the methods that name it in their docstrings."""
    with (HOME / "papers.csv").open(encoding="utf-8", newline="") as file:
        ledger = sorted(csv.DictReader(file), key=lambda row: (row["wave"], row["role"], row["id"]))
    named: dict[str, list[str]] = {row["id"]: [] for row in ledger}
    for path in sorted(HOME.glob("*/**/[a-z]*.py")):
        doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        for section in PAPERS.findall(doc):
            for paper in re.findall(r"[a-z0-9][a-z0-9-]+", section):
                if paper in named:
                    named[paper].append(".".join(path.relative_to(HOME).with_suffix("").parts))
    papers = [{**row, "methods": named[row["id"]]} for row in ledger]
    for wave, rows in itertools.groupby(papers, key=lambda row: row["wave"]):
        own = list(rows)
        talk.say(f"wave {wave}: {sum(bool(row['methods']) for row in own)} of {len(own)} built")
        cells = [[row["role"], row["id"], ", ".join(row["methods"]) or "-"] for row in own]
        talk.say(columns(["role", "paper", "built as"], cells))
        talk.say()
    talk.say(f"{sum(map(bool, named.values()))} of {len(ledger)} papers built")
    return {"papers": papers}
