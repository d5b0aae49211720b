"""List: what there is: the kinds and their methods, named data, the papers they come from.

shoal list              every kind with its methods
shoal list blocks       one kind
shoal list data         data sets that can be opened by name
shoal list papers       the papers that methods name
"""

from __future__ import annotations

import ast
import csv
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from shoal.commands._options import Json
from shoal.commands._talk import Talk, columns
from shoal.core.errors import UnknownName, suggest
from shoal.core.kind import Kind
from shoal.kinds import KINDS

HOME = Path(__file__).parent.parent
PAPERS = re.compile(r"^Papers   (.+(?:\n {9}.+)*)", re.MULTILINE)


def run(
    kind: Annotated[str | None, typer.Argument(help="A kind such as blocks; data; papers.")] = None,
    as_json: Json = False,
) -> None:
    talk = Talk(as_json)
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
    talk.say(f"{total} methods of {len(found)} kinds; shoal list data, shoal list papers")
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
    """The papers that the docstrings of methods name, with who names them."""
    with (HOME / "papers.csv").open(encoding="utf-8", newline="") as file:
        titles = {row["id"]: row["title"] for row in csv.DictReader(file)}
    named: dict[str, list[str]] = {}
    for path in sorted(HOME.glob("*/**/[a-z]*.py")):
        doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        for section in PAPERS.findall(doc):
            for paper in re.findall(r"[a-z0-9][a-z0-9-]+", section):
                if paper in titles:
                    named.setdefault(paper, []).append(".".join(path.relative_to(HOME).with_suffix("").parts))
    for paper, methods in sorted(named.items()):
        talk.say(f"{paper}\n  {titles[paper]}\n  {', '.join(methods)}")
    talk.say(f"{len(named)} papers")
    return {"papers": [{"id": p, "title": titles[p], "methods": m} for p, m in sorted(named.items())]}
