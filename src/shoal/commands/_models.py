"""Models: what a person names on the command line: a run folder, or PATH.py:function that makes a module."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from shoal.artifact import describe, load
from shoal.commands._talk import stdout_kept
from shoal.core.errors import BadArtifact, BadModel
from shoal.data.loaders import call


def is_code(text: str) -> bool:
    """Whether it names a function in a file."""
    return ".py:" in text


def called(place: str) -> nn.Module:
    """The module that a function in a file makes. Raises BadData or BadModel."""
    with stdout_kept():
        made = call(place)
    if not isinstance(made, nn.Module):
        raise BadModel(f"{place}: returned {type(made).__name__}; return a torch.nn.Module")
    return made


def described(folder: str) -> dict[str, Any]:
    """The facts of a run folder of which every file is as it was saved. Raises BadArtifact."""
    facts = describe(folder)
    for name, file in facts["files"].items():
        if file["state"] != "ok":
            raise BadArtifact(f"{Path(folder) / name}: is {file['state']}; copy the folder again, or save it again")
    return facts


def opened(model: str, base: str | None) -> tuple[nn.Module, str | None, dict[str, Any]]:
    """A model that can be edited, how it is made where it is no Net, and the facts of its folder."""
    if is_code(model):
        return called(model), model, {}
    facts = described(model)
    if facts["spec"] is None and base is None:
        raise BadModel(f"{model}: holds a module that needs the code of the original; say --base PATH.py:function")
    return load(model, None if base is None else partial(called, base)), base, facts
