"""Models: what a person names on the command line: a run folder, PATH.py:function that makes a module, or hf:FOLDER."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from shoal.artifact import describe, load
from shoal.commands._talk import stdout_kept
from shoal.commands._transformers import is_transformer, transformer
from shoal.core.errors import BadArtifact, BadModel
from shoal.data.loaders import call
from shoal.recipe import Recipe


def is_code(text: str) -> bool:
    """Whether it names a function in a file."""
    return ".py:" in text


def called(place: str) -> nn.Module:
    """The module that a function in a file makes. Raises BadData or BadModel."""
    with stdout_kept():
        found = call(place)
    if not isinstance(found, nn.Module):
        raise BadModel(f"{place}: returned {type(found).__name__}; return a torch.nn.Module")
    return found


def is_made(text: str) -> bool:
    """Whether it names what makes a module, rather than a run folder."""
    return is_transformer(text) or is_code(text)


def made(place: str) -> nn.Module:
    """The module of a function in a file, or of a folder of transformers."""
    if not is_transformer(place):
        return called(place)
    with stdout_kept():
        return transformer(place)


def described(folder: str) -> dict[str, Any]:
    """The facts of a run folder of which every file is as it was saved. Raises BadArtifact."""
    facts = describe(folder)
    for name, file in facts["files"].items():
        if file["state"] != "ok":
            raise BadArtifact(f"{Path(folder) / name}: is {file['state']}; copy the folder again, or save it again")
    return facts


def opened(model: str, base: str | None) -> tuple[nn.Module, Recipe | None, dict[str, Any]]:
    """A model that can be edited, how it was made where it is no Net, and the facts of its folder."""
    if is_made(model):
        return made(model), Recipe(model), {}
    facts = described(model)
    if facts["spec"] is None and base is None:
        known = facts["recipe"]["base"] or "PATH.py:function, or hf:FOLDER"
        raise BadModel(f"{model}: holds a module that needs the original, edited again; say --base {known}")
    if base is None:
        return load(model), None, facts
    return load(model, partial(made, base)), Recipe(base, Recipe.from_json(facts["recipe"]).edits), facts
