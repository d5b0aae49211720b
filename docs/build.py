"""The documentation: an index and a page a method, made from what the methods say and do. Nothing here names a method.

make docs                          writes docs/site/index.html
python docs/build.py [FOLDER]      writes it somewhere else
"""

from __future__ import annotations

import csv
import inspect
import json
import os
import re
import shutil
import sys
from collections.abc import Sequence
from functools import cache
from html import escape
from importlib.resources import files
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import torch
from drawing import drawing

import shoal
from shoal.core.errors import ShoalError
from shoal.core.kind import Kind, Setting
from shoal.core.part import Part
from shoal.core.spec import LayerSpec, wiring_of
from shoal.costing.counting import count, flow, formulas, memory
from shoal.kinds import KINDS
from shoal.net import Layer

HERE = Path(__file__).resolve().parent
PLACES = {0: (), 1: (64,), 2: (8, 8), 3: (4, 4, 4)}
FACT = re.compile(r"(Shapes|Cost|Exact when|Papers)\s+(?=\S)(.*)")


class Doc(NamedTuple):
    """A method's docstring, taken apart: its first line, the body as HTML, and the facts by name."""

    lead: str
    body: str
    facts: dict[str, str]


def read_doc(text: str) -> Doc:
    """Indented blocks are formulas; lines that begin with a fact's name are facts; the rest are paragraphs."""
    head, _, rest = inspect.cleandoc(text).partition("\n")
    body, facts = [], {}
    for block in re.split(r"\n\s*\n", rest.strip("\n")):
        lines, fact = block.splitlines(), ""
        if lines and all(line.startswith("    ") for line in lines):
            body.append(f"<pre>{escape(inspect.cleandoc(block))}</pre>")
            continue
        plain = []
        for line in lines:
            if found := FACT.match(line):
                fact, said = found.groups()
                facts[fact] = said.strip()
            elif fact:
                facts[fact] += " " + line.strip()
            else:
                plain.append(line.strip())
        if plain:
            body.append(f"<p>{prose(' '.join(plain))}</p>")
    return Doc(sentence(head.partition(": ")[2] or head), "\n".join(body), facts)


def sentence(text: str) -> str:
    """With a capital to begin with."""
    return text[:1].upper() + text[1:]


def prose(text: str) -> str:
    """Text as HTML: what stands in backticks is code."""
    return re.sub(r"`+([^`]+)`+", r"<code>\1</code>", escape(text, quote=False))


def table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: bool = False) -> str:
    """An HTML table; the cells are HTML already."""
    kind = ' class="number"' if numbers else ""
    line = "<tr>" + "".join(f"<th{kind}>{name}</th>" for name in head) + "</tr>"
    body = "".join("<tr>" + "".join(f"<td{kind}>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table>{line}{body}</table></div>'


def smallest(kind: Kind, name: str) -> Part:
    """The method with its defaults; what has none is as in its `tiny`."""
    required = [key for key, setting in kind.settings(name).items() if setting.default is Setting.REQUIRED]
    return Part(name, {key: kind.get(name).tiny[key] for key in required})


def settings_table(kind: Kind, name: str) -> str:
    """Name, type and default of each setting, from the signature."""
    cls, rows = kind.get(name), []
    for setting in kind.settings(name).values():
        plain = setting.type.__name__ if inspect.isclass(setting.type) else str(setting.type).replace("typing.", "")
        default = "required" if setting.default is Setting.REQUIRED else f"<code>{escape(repr(setting.default))}</code>"
        if setting.default is None and setting.name in cls.sizes:
            at_64 = kind.complete(smallest(kind, name), 64).settings[setting.name]
            default = f"by dim; <code>{escape(repr(at_64))}</code> at 64"
        rows.append((f"<code>{setting.name}</code>", f"<code>{escape(plain)}</code>", default))
    said = " ".join((cls.__doc__ or "").removeprefix("Settings:").split())
    return f"<h2>Settings</h2><p>{prose(said)}</p>" + (table(("setting", "type", "default"), rows) if rows else "")


def picture(kind: Kind, name: str) -> str:
    """The drawing of a wiring of depth 4; for other kinds nothing."""
    if kind.folder != "wirings":
        return ""
    return drawing(wiring_of(smallest(kind, name), 16, 4).reads(), f"{name}, depth 4")


def cost_table(kind: Kind, name: str) -> str:
    """What one layer of a block costs at several dims, counted by running it; for other kinds nothing."""
    if kind.folder != "blocks":
        return ""
    places, rows = PLACES[max(kind.get(name).layouts)], []
    for dim in (16, 64, 256):
        try:
            layer = Layer(LayerSpec(smallest(kind, name)).sized(dim), dim, dim)
            found = shoal.cost(layer, torch.zeros(1, *places, dim))
            each = f"{found.macs / prod(places):,.0f}"
            rows.append((str(dim), f"{found.params:,}", f"{found.macs:,}", each, str(found.depth)))
        except ShoalError as error:
            return f'<h2>Cost, counted</h2><p class="note">Not counted here: {escape(str(error))}</p>'
    shape = "(1, " + "".join(f"{size}, " for size in places) + "dim)"
    note = f"One layer with its norm, run on x of shape {shape}; default settings, dense linears."
    head = ("dim", "parameters", "multiply-adds", "a place", "depth")
    return f'<h2>Cost, counted</h2>{table(head, rows, numbers=True)}<p class="note">{note}</p>'


@cache
def titles() -> dict[str, str]:
    """Titles of papers by id."""
    with (files("shoal") / "papers.csv").open(encoding="utf-8", newline="") as lines:
        return {row["id"]: row["title"] for row in csv.DictReader(lines)}


def document(title: str, body: str, home: str, way: str = "") -> str:
    """A whole page, with its style in it."""
    style = (HERE / "style.css").read_text(encoding="utf-8")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>\n{style}</style></head>\n'
        f'<body><nav><a href="{home}">shoal</a> {shoal.__version__}{way}</nav>\n{body}\n</body></html>\n'
    )


def page(kind: Kind, name: str, folder: Path) -> str:
    """The page of one method."""
    cls: Any = kind.get(name)
    doc = read_doc(sys.modules[cls.__module__].__doc__ or "")
    papers = [paper.strip() for paper in doc.facts.pop("Papers", "").split(",") if paper.strip()]
    parts = [f'<h1>{name}</h1><p class="lead">{prose(doc.lead)}</p>']
    if drawn := picture(kind, name):
        note = "Depth 4. An arc goes from what is read to the layer that reads it; x is the input, y the output."
        parts.append(f"<figure>{drawn}<figcaption>{note}</figcaption></figure>")
    parts.append(doc.body)
    parts.append(
        "<dl>" + "".join(f"<dt>{fact}</dt><dd>{prose(said)}</dd>" for fact, said in doc.facts.items()) + "</dl>"
    )
    parts += [settings_table(kind, name), cost_table(kind, name)]
    if papers:
        items = "".join(f"<li>{escape(titles().get(paper, paper))} <code>{paper}</code></li>" for paper in papers)
        parts.append(f"<h2>Papers</h2><ul>{items}</ul>")
    source = os.path.relpath(inspect.getfile(cls), folder)
    parts.append(f'<p class="note"><a href="{escape(source)}">Source</a></p>')
    way = f' / <a href="../index.html#{kind.folder}">{kind.folder}</a>'
    return document(f"{name}, a {kind.name} of shoal", "\n".join(parts), "../index.html", way)


def cost_page(results: Path = HERE.parent / "bench" / "results" / "counters.json") -> str:
    """What is counted and how, in the counter's own words, and who else counts right."""
    parts = ["<h1>Cost</h1>"]
    for module in (count, formulas, flow, memory):
        title, _, rest = (module.__doc__ or "").partition(": ")
        doc = read_doc(f"{title}: {rest}")
        parts.append(f'<h2 id="{title.lower()}">{title}</h2><p class="lead">{prose(doc.lead)}</p>{doc.body}')
    found = json.loads(results.read_text(encoding="utf-8"))
    names, rows = list(found["right"]), []
    for row in found["rows"]:
        rows.append([escape(row["case"]), f"{row['macs']:,}", *(_counted(row["counters"][name]) for name in names)])
    rows.append(["<b>right</b>", str(len(rows)), *(str(found["right"][name]) for name in names)])
    versions = ", ".join(
        f"{name} {version}" for name, version in {"torch": found["torch"], **found["versions"]}.items()
    )
    note = (
        "Multiply-adds of one run in eval, against a formula worked out by hand. A tick: within 1%. A number: what it "
        "counted instead; with +, it lists operations that it left out. Dash: it does not run on the case. "
        "Some add the work of norms and pooling, which are no multiply-adds. FlopCounterMode: half its flops. "
        f"Counted by <code>bench/counters.py</code>, {found['date'][:10]}: {versions}."
    )
    parts.append(f'<h2 id="counters">Who counts right</h2>{table(("case", "by hand", *names), rows, numbers=True)}')
    parts.append(f'<p class="note">{note}</p>')
    return document("Cost, as shoal counts it", "\n".join(parts), "index.html")


def _counted(cell: dict[str, Any]) -> str:
    if cell["verdict"] == "right":
        return "&#10003;"
    return "&ndash;" if cell["verdict"] == "fails" else f"{cell['macs']:,.0f}" + ("+" if cell["left_out"] else "")


def index() -> str:
    """The first page: every method of every kind, as a card; and how cost is counted."""
    parts = ["<h1>Methods</h1>", f'<p class="lead">{prose((shoal.__doc__ or "").partition(chr(10))[0])}</p>']
    parts.append('<p><a href="cost.html">Cost</a>: what is counted, by which formulas, and who else counts right.</p>')
    for folder, kind in KINDS.items():
        cards = [
            f'<a class="card" href="{folder}/{name}.html">{picture(kind, name)}<b>{name}</b>'
            f"<span>{prose(sentence(kind.summary(name)))}</span></a>"
            for name in kind.names()
        ]
        parts.append(f'<h2 id="{folder}">{folder.capitalize()}</h2><div class="cards">{"".join(cards)}</div>')
    return document("shoal: methods", "\n".join(parts), "index.html")


def build(folder: Path) -> list[Path]:
    """Write the site; a site that stood there goes. Returns the pages."""
    texts = {folder / "index.html": index(), folder / "cost.html": cost_page()}
    for kind in KINDS.values():
        for name in kind.names():
            texts[folder / kind.folder / f"{name}.html"] = page(kind, name, folder / kind.folder)
    if (folder / "index.html").exists():
        shutil.rmtree(folder)
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return list(texts)


if __name__ == "__main__":
    site = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "site"
    print(f"{len(build(site))} pages; open {site / 'index.html'}")
