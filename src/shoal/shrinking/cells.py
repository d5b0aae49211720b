"""Cells: the parts of a module that a run may begin at, and those of them in which an edited copy differs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from shoal.core.errors import BadModel
from shoal.core.example import arguments, evaluating
from shoal.core.scene import Scene, answer
from shoal.core.spans import Change, Step, Visit
from shoal.intervening import Changes
from shoal.net import Net

ROWS = 2  # on which changes are compared with the copy that they stand for
NEAR = 1e-3  # of the largest answer


class Cells:
    """The parts of a module that runs may begin at, to find in which of them an edited copy differs."""

    def __init__(self, scene: Scene) -> None:
        self.module, self.runs = scene.module, scene.runs()
        with self.runs as runs:
            self.tape = runs.record(scene.head(ROWS).batches[0].example)
        self.paths = {at.path for at in self.tape.visits}
        self.twice = {at.path for at in self.tape.visits if at.number > 0}
        self.outside = self._outside(scene.module)

    def _outside(self, module: nn.Module) -> dict[str, Tensor]:
        """The weights and buffers that no cell holds."""
        held = _tensors(module).items()
        return {name: value for name, value in held if not any(name.startswith(path + ".") for path in self.paths)}

    def changes(self, shrunk: nn.Module) -> Changes | None:
        """The parts that differ, each to be run in the place of the old one; None where more than that differs."""
        if isinstance(shrunk, Net):
            return None  # its layers are numbered anew, and its wirings are others
        inner = {name for name, _ in shrunk.named_modules() if any(path.startswith(name + ".") for path in self.paths)}
        parts = dict(shrunk.named_modules(remove_duplicate=False))
        if type(shrunk) is not type(self.module) or not self.paths <= parts.keys():
            return None
        if any(type(parts[name]) is not type(self.module.get_submodule(name)) for name in inner):
            return None
        if _unlike(self._outside(shrunk), self.outside):
            return None
        other = {path for path in self.paths if _other(self.module.get_submodule(path), parts[path])}
        if not other or other & self.twice:
            return None
        changes = {Visit(path): _instead(parts[path]) for path in other}
        return changes if self._tell(changes, shrunk) else None

    def _tell(self, changes: Changes, shrunk: nn.Module) -> bool:
        """Whether a run with the changes gives what the copy gives, on a few rows: what holds the cells may differ too,
        in what no weight and no name shows."""
        with self.runs as runs, evaluating(shrunk), torch.no_grad():
            args, kwargs = arguments(self.tape.example)
            wanted = answer(shrunk(*args, **kwargs))
            try:
                found = answer(runs.resume(self.tape, changes))
            except BadModel:
                return False
        apart = (found - wanted).abs().max() if found.shape == wanted.shape else torch.tensor(torch.inf)
        return bool(apart <= NEAR * wanted.abs().max())


def _other(a: nn.Module, b: nn.Module) -> bool:
    return repr(a) != repr(b) or _unlike(_tensors(a), _tensors(b))


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _unlike(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    if a.keys() != b.keys():
        return True
    return any(a[name].shape != b[name].shape or not torch.equal(a[name], b[name]) for name in a)


def _instead(part: nn.Module) -> Change:
    def change(step: Step) -> Any:
        return part(*step.args, **step.kwargs)

    return change
