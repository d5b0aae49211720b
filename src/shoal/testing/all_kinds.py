"""Checks of every kind: the docstrings, the settings, the file, the meta device."""

from __future__ import annotations

import ast
import csv
import importlib.util
import inspect
import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import nn

from shoal.core.errors import BadSetting, ShoalError
from shoal.core.part import Part
from shoal.testing._samples import Subject, build, require

SECTIONS = ("Shapes", "Cost", "Exact when", "Papers")
SECTION = re.compile(r"(Shapes   |Cost     |Exact when |Papers   )(?=\S)")
WRONG: tuple[Any, ...] = (True, "a word", 3, 0.5, ((),), None)  # for a setting of any type, one of these is wrong
LINES = 150
SHAPELESS = {"edit", "compressor", "measure", "intervention"}  # they work on whole modules, whatever flows in them


def docstring_form(subject: Subject) -> None:
    """``Name: sentence.``, then text and formulas, then the sections in their order with *Shapes* among them."""
    doc = _module_doc(subject)
    first, *rest = doc.split("\n")
    require(bool(re.fullmatch(r"[A-Z][^:]*: \S.*[.]", first)), f"docstring begins {first!r}; write 'Name: sentence.'")
    require(not rest or rest[0] == "", "the docstring's second line is not empty")
    heads = [line.split("  ")[0] if "  " in line else line[:10] for line in rest if SECTION.match(line)]
    names = [next(name for name in SECTIONS if head.startswith(name)) for head in heads]
    if subject.kind.name not in SHAPELESS:
        require("Shapes" in names, "the docstring has no line 'Shapes   x: (batch, ...)'")
    require(names == sorted(set(names), key=SECTIONS.index), f"sections {names} are not each once, in {SECTIONS} order")
    start = next(i for i, line in enumerate(rest) if SECTION.match(line))
    for line in rest[start:]:
        tidy = SECTION.match(line) or line.startswith("         ") or not line
        require(bool(tidy), f"docstring line {line!r} is neither a section nor the continuation of one (9 blanks)")
    for line in rest[:start]:
        loose = any(re.match(name + r"\b *\S*:? ", line) and "  " in line for name in SECTIONS)
        require(not loose, f"docstring line {line!r}: a section's text begins at column 10")
        indent = len(line) - len(line.lstrip())
        require(indent == 0 or indent >= 4, f"docstring line {line!r}: formulas are indented by 4")


def class_docstring(subject: Subject) -> None:
    """``Settings: `a`, ...`` that names every setting, or ``No settings.``"""
    doc = inspect.getdoc(subject.cls) or ""
    settings = subject.kind.settings(subject.name)
    begins = "Settings: " if settings else "No settings."
    require(doc.startswith(begins), f"class docstring begins {doc[:30]!r}, not {begins!r}")
    for name in settings:
        require(f"`{name}`" in doc, f"class docstring does not name the setting `{name}`")


def papers_in_ledger(subject: Subject) -> None:
    """Every id under *Papers* stands in the ledger; a plug-in's papers are its own affair."""
    cited = _module_doc(subject).partition("\nPapers   ")[2]
    ids = [word.strip() for word in cited.replace("\n", " ").split(",") if word.strip()]
    if not subject.cls.__module__.startswith("shoal."):
        return
    with files("shoal").joinpath("papers.csv").open(encoding="utf-8") as file:
        known = {row["id"] for row in csv.DictReader(file)}
    for each in ids:
        require(each in known, f"paper {each!r} is not in the ledger, papers.csv")


def one_class(subject: Subject) -> None:
    """One public class a file, at most 150 lines, and nobody derives from it."""
    source = _source(subject).read_text(encoding="utf-8")
    classes = [node.name for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    public = [name for name in classes if not name.startswith("_")]
    require(len(public) == 1, f"public classes {public}; a file has exactly one")
    count = len(source.splitlines())
    require(count <= LINES, f"the file has {count} lines; {LINES} are enough for one method")
    require(not inspect.isabstract(subject.cls), "the class leaves something abstract")
    require(not subject.cls.__subclasses__(), f"{subject.cls.__subclasses__()} derive from it; methods are final")


def known_names_checks(subject: Subject) -> None:
    """What ``known`` lists are checks of this kind, each with its reason."""
    from shoal.testing import checks  # the package lists this module's checks, so it cannot be imported above

    names = {name for name, _ in checks(subject.kind.name)}
    for name, reason in subject.cls.known.items():
        require(name in names, f"known: {name!r} is no check of a {subject.kind.name}")
        require(bool(reason.strip()), f"known: {name!r} has no reason")


def settings_survive(subject: Subject) -> None:
    """Settings come back equal from JSON and from text, complete and sparse."""
    full = subject.part
    for part in (full, subject.kind.sparse(full)):
        again = Part.from_json(json.loads(json.dumps(part.to_json())))
        require(again == part, f"{part} comes back from JSON as {again}")
        require(Part.parse(str(part)) == part, f"{part} comes back from text as {Part.parse(str(part))}")
    require(
        subject.kind.complete(subject.kind.sparse(full)) == full, f"{full} is not what its sparse form completes to"
    )
    require(subject.kind.complete(full) == full, "completing a complete part changes it")


def tiny_is_known(subject: Subject) -> None:
    """``tiny`` and ``sizes`` name settings that there are, and every setting has a type."""
    settings = subject.kind.settings(subject.name)
    for name in [*subject.cls.tiny, *subject.cls.sizes]:
        require(name in settings, f"tiny or sizes name {name!r}, which is no setting")
    for name, setting in settings.items():
        require(setting.type is not Any, f"setting {name!r} has no type")
    for name in subject.cls.sizes:
        require(settings[name].default is None, f"sizes has {name!r}, but its default is not None")


def wrong_setting(subject: Subject) -> None:
    """A setting that there is not is an error that lists those there are."""
    message = _refusal(subject, {**subject.cls.tiny, "no_such_setting": 1})
    for name in ("no_such_setting", *(subject.kind.settings(subject.name) or ["none"])):
        require(name in message, f"the error {message!r} does not name {name!r}")


def wrong_type(subject: Subject) -> None:
    """A value of another type is an error that names the setting, in one line."""
    for name in subject.kind.settings(subject.name):
        refused = [value for value in WRONG if _refused(subject, name, value)]
        require(bool(refused), f"setting {name!r} takes a value of any type; say its type in the signature")
        message = _refusal(subject, {**subject.cls.tiny, name: refused[0]})
        require(name in message and "\n" not in message, f"the error {message!r} is not one line naming {name!r}")


def wrong_value(subject: Subject) -> None:
    """A negative number or a word that means nothing is an error of ours, not a traceback from within."""
    for name, setting in subject.kind.settings(subject.name).items():
        bad: Any = -1 if isinstance(subject.part.settings[name], int) else "no_such_word"
        if isinstance(subject.part.settings[name], bool) or _refused(subject, name, bad):
            continue
        try:
            build(subject, subject.with_settings(**{name: bad}))
        except ShoalError as error:
            require("\n" not in str(error), f"the error for {name}={bad!r} has several lines")
        except Exception as error:
            raise AssertionError(
                f"{name}={bad!r} ends in {type(error).__name__}: {error}; raise BadSetting ({setting.type})"
            ) from error


def meta_device(subject: Subject) -> None:
    """It builds on the meta device, all of it."""
    with torch.device("meta"):
        made = build(subject)
    if isinstance(made, nn.Module):
        for name, tensor in made.state_dict().items():
            require(tensor.is_meta, f"{name!r} is not on the device it was built on")


def seeded(subject: Subject) -> None:
    """The same seed gives the same weights."""
    states = []
    for _ in range(2):
        torch.manual_seed(1)
        made = build(subject)
        states.append(made.state_dict() if isinstance(made, nn.Module) else {})
    for name, tensor in states[0].items():
        require(torch.equal(tensor, states[1][name]), f"{name!r} differs between two builds from one seed")


def _refused(subject: Subject, name: str, value: Any) -> bool:
    try:
        subject.kind.complete(Part(subject.name, {**subject.cls.tiny, name: value}))
    except BadSetting:
        return True
    return False


def _refusal(subject: Subject, settings: dict[str, Any]) -> str:
    try:
        subject.kind.complete(Part(subject.name, settings))
    except BadSetting as error:
        return str(error)
    raise AssertionError(f"settings {settings} are taken without an error")


def _source(subject: Subject) -> Path:
    spec = importlib.util.find_spec(subject.cls.__module__)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin)


def _module_doc(subject: Subject) -> str:
    return ast.get_docstring(ast.parse(_source(subject).read_text(encoding="utf-8"))) or ""
