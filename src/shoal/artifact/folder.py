"""The run folder: a network with all that is known of it, in files that open anywhere.

    shoal.json           what it is: spec, or base and edits; data; versions; how each file was checked; all hashes
    model.safetensors    the weights
    model.pt2            opens with torch alone
    model.onnx           opens with onnxruntime, where it translates; else the reason stands in shoal.json
    huggingface/         for a model of transformers: opens with from_pretrained; else the reason stands in shoal.json
    report.json, README.md, and the pages that the caller gives (report.html)

Written beside and renamed, so that there is never half a folder. Every hash is checked before a file is opened.

Longer than the house's 250 lines by a few: what is saved and what is loaded are read against each other.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from shoal import __version__
from shoal.artifact.card import card
from shoal.artifact.files import new_folder, plain, render, sealed, sha256, unsealed
from shoal.artifact.huggingface import is_pretrained, save_pretrained
from shoal.artifact.programs import load_program, program, write_onnx, write_pt2
from shoal.artifact.vetting import refuse_pickle
from shoal.artifact.weights import fill, read_weights, write_weights
from shoal.core.errors import BadArtifact, BadModel, BadSetting, BadSpec, ShoalError
from shoal.core.example import tensors
from shoal.core.migrate import Json, migrate
from shoal.core.spec import Spec
from shoal.net import Net, load_net
from shoal.recipe import Recipe

HUGGINGFACE = "huggingface"
FACTS, WEIGHTS, PT2, ONNX, REPORT, CARD = (
    "shoal.json",
    "model.safetensors",
    "model.pt2",
    "model.onnx",
    "report.json",
    "README.md",
)
IN_FACTS = ("kind", "settings", "environment")  # what shoal.json repeats of the report
VERSION = 1
MIGRATIONS: Mapping[int, Callable[[Json], Json]] = {}  # version v -> the JSON of v + 1; raise VERSION with each


class Savable(Protocol):
    """What a run gives to be saved: ``report`` and ``data`` are JSON, ``example`` is a prepared batch."""

    @property
    def module(self) -> nn.Module: ...
    @property
    def recipe(self) -> Recipe: ...
    @property
    def example(self) -> Any: ...
    @property
    def report(self) -> dict[str, Any]: ...
    @property
    def data(self) -> dict[str, Any] | None: ...


def save(
    thing: Savable | nn.Module,
    folder: Path | str,
    *,
    example: Any = None,
    overwrite: bool = False,
    onnx: bool = True,
    pages: Mapping[str, str] | None = None,
) -> Path:
    """Write the run folder; all of it or nothing.

    example      a prepared batch: needed for a bare module, otherwise in place of the thing's own; it is not kept
    overwrite    replace a folder that shoal wrote
    onnx         False: leave model.onnx out
    pages        more files of text, by name, such as report.html

    The module is not changed. Raises BadArtifact where the folder is taken, BadModel where nothing could open it again.
    """
    if isinstance(thing, nn.Module):
        module, report, data = thing, dict[str, Any](), None
        recipe = Recipe(thing.spec if isinstance(thing, Net) else None)
    else:
        module, recipe, report, data = thing.module, thing.recipe, thing.report, thing.data
        example = thing.example if example is None else example
    if example is None:
        raise BadSetting(
            f"save {type(module).__name__}: no example; give example=a prepared batch, as the module takes it"
        )
    for name in pages or {}:
        if Path(name).name != name or name in (FACTS, WEIGHTS, PT2, ONNX, REPORT, CARD):
            raise BadSetting(f"page {name!r}: not a plain file name, or one that save writes itself; choose another")
    texts = {**({REPORT: render(plain(report))} if report else {}), **(pages or {})}
    place = Path(folder)
    with new_folder(place, overwrite) as beside:
        same = write_weights(module, beside / WEIGHTS)
        facts = {
            "version": VERSION,
            "model": str(module.spec) if isinstance(module, Net) else type(module).__name__,
            "spec": module.spec.to_json() if isinstance(module, Net) else None,
            "recipe": plain(recipe.to_json(), "recipe"),
            "weights": {**_size(module), "same": same},
            "example": _inputs(example),
            "programs": _programs(module, recipe, example, beside, onnx),
            "data": plain(data, "data"),
            "report": {key: plain(report[key], key) for key in IN_FACTS if key in report},
            "versions": {"shoal": __version__, "torch": torch.__version__, "python": platform.python_version()},
        }
        if is_pretrained(module):
            facts[HUGGINGFACE] = _for_transformers(module, example, beside)
        for name, text in {**texts, CARD: card(facts, report, place.name)}.items():
            (beside / name).write_text(text, encoding="utf-8")
        written = (path for path in sorted(beside.rglob("*")) if path.is_file())
        files = {path.relative_to(beside).as_posix(): sha256(path) for path in written}
        (beside / FACTS).write_text(sealed({**facts, "files": files}), encoding="utf-8")
    return place


def load(folder: Path | str, base: Callable[[], nn.Module] | None = None) -> nn.Module:
    """The network in a run folder, in eval mode, equal bit for bit to the one that was saved.

    A Net comes back as a Net. Any other comes back as the module it was where `base` makes the original again (its
    weights do not matter): the edits are done to it and the weights loaded strictly. Without `base` it comes back as
    the exported program, which runs the same and cannot be edited. A lone .pt2 is opened too.

    Raises BadArtifact where a file is missing, truncated, changed, newer than this shoal, or a pickle.
    """
    place = Path(folder)
    if place.suffix == ".pt2" and place.is_file():
        return load_program(place)
    facts = read_facts(place)
    for name in facts["files"]:
        _check(place, name, facts["files"][name])
    if facts["spec"] is not None and base is not None:
        raise BadSetting(f"{place}: holds a Net, which its spec describes whole; leave out base")
    if facts["spec"] is None and base is None:
        if "missing" in facts["programs"][PT2]:
            raise BadArtifact(
                f"{place}: has no {PT2} ({facts['programs'][PT2]['missing']}); give base=, which makes the original"
            )
        return load_program(place / PT2)
    weights = read_weights(place / WEIGHTS, facts["weights"]["same"])
    if base is None:
        return load_net(Spec.from_json(facts["spec"]), weights).eval()
    made = base()
    if not isinstance(made, nn.Module):
        raise BadArtifact(f"{place}: base gave a {type(made).__name__}; give a function that makes the original module")
    try:
        replayed = Recipe.from_json(facts["recipe"]).replay(made)
    except ShoalError as error:
        raise BadArtifact(
            f"{place}: its edits do not go on that base ({error}); give the base that was compressed"
        ) from error
    return fill(replayed, weights, str(place)).eval()


def describe(folder: Path | str) -> dict[str, Any]:
    """What shoal.json says, with ``files`` by name: bytes, and whether each is ok, missing or changed."""
    place = Path(folder)
    facts = read_facts(place)
    states = {}
    for name, wanted in facts["files"].items():
        path = place / name
        state = "missing" if not path.is_file() else "ok" if sha256(path) == wanted else "changed"
        states[name] = {"bytes": path.stat().st_size if path.is_file() else None, "state": state}
    return {**facts, "files": states}


def read_facts(folder: Path) -> dict[str, Any]:
    """shoal.json at this version. Raises BadArtifact where there is none, or it cannot be trusted or read."""
    refuse_pickle(folder)
    if not folder.is_dir():
        what = "is a single file" if folder.exists() else "does not exist"
        raise BadArtifact(f"{folder}: {what}; give a folder that shoal.save wrote")
    if not (folder / FACTS).is_file():
        raise BadArtifact(
            f"{folder}: has no {FACTS}; it is no folder that shoal.save wrote, or it was not copied whole"
        )
    facts = unsealed(folder / FACTS)
    found = facts.get("version")
    if isinstance(found, int) and found > VERSION:
        raise BadArtifact(f"{folder}: format version {found} is newer than this shoal reads ({VERSION}); upgrade shoal")
    try:
        facts = migrate(facts, VERSION, MIGRATIONS)
    except BadSpec as error:
        raise BadArtifact(f"{folder}: {error}") from error
    needed = {"files": dict, "programs": dict, "recipe": dict, "weights": dict}
    for key, kind in needed.items():
        if not isinstance(facts.get(key), kind):
            raise BadArtifact(f"{folder / FACTS}: has no {key!r}; it was not written by shoal, or it is damaged")
    if WEIGHTS not in facts["files"] or not all(_is_ours(name) for name in facts["files"]):
        raise BadArtifact(f"{folder / FACTS}: its list of files is not one that shoal writes; save it again")
    return facts


def _is_ours(name: str) -> bool:
    """Whether it is a plain name of a file, in the folder itself or in the one for transformers."""
    *folders, file = name.split("/")
    return Path(file).name == file != ".." and folders in ([], [HUGGINGFACE])


def _check(folder: Path, name: str, wanted: str) -> None:
    path = folder / name
    if not path.is_file():
        raise BadArtifact(f"{path}: is missing; copy the folder whole, or save it again")
    found = sha256(path)
    if found != wanted:
        raise BadArtifact(
            f"{path}: is truncated or was changed: expected sha256 {wanted[:12]}, found {found[:12]}; "
            "copy the folder again, or save it again"
        )


def _inputs(example: Any) -> list[dict[str, Any]]:
    """The shape and type of each tensor that the module takes, with its name where it is given by name."""
    named = example.items() if isinstance(example, dict) else (("", example),)
    return [
        {"shape": list(each.shape), "type": str(each.dtype), **({"name": name} if name else {})}
        for name, value in named
        for each in tensors(value)
    ]


def _size(module: nn.Module) -> dict[str, int]:
    state = {id(value): value for value in module.state_dict(keep_vars=True).values()}.values()
    return {"numbers": sum(v.numel() for v in state), "bytes": sum(v.numel() * v.element_size() for v in state)}


def _for_transformers(module: nn.Module, example: Any, folder: Path) -> dict[str, str]:
    """Write the folder that from_pretrained opens; its name, or why it is missing."""
    try:
        return {"folder": save_pretrained(module, example, folder / HUGGINGFACE).name}
    except BadModel as error:
        return {"missing": str(error).replace(f"{folder}/", "")}


def _programs(module: nn.Module, recipe: Recipe, example: Any, folder: Path, onnx: bool) -> dict[str, Any]:
    """Write model.pt2 and model.onnx; for each the batch it takes and how it was checked, or why it is missing."""
    found: dict[str, Any] = {}
    try:
        made = program(module, example)
        found[PT2] = {**made.to_json(), "equal": write_pt2(module, example, made, folder / PT2)}
    except (BadModel, BadArtifact) as error:
        if not isinstance(module, Net) and recipe.base is None:
            raise BadModel(
                f"{error}; without it nothing could open the folder again: name the base, file.py:function"
            ) from error
        (folder / PT2).unlink(missing_ok=True)
        why = str(error).replace(f"{folder}/", "")  # the folder that is made beside is nobody's business
        return {name: {"missing": why} for name in (PT2, ONNX)}
    if not onnx:
        return {**found, ONNX: {"missing": "it was not asked for"}}
    try:
        found[ONNX] = {**made.to_json(), "equal": write_onnx(module, example, made, folder / ONNX)}
    except BadModel as error:
        found[ONNX] = {"missing": str(error)}
        (folder / ONNX).unlink(missing_ok=True)
    return found
