"""Wholes: modules that do nothing but add branches to what they are given, as layers of transformers do.

With all of their branches gone they pass their input on, so they can go as one, with what they compute for the
branches. Which they are is seen in one run in which every branch gives zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from shoal.core.example import arguments, unmarked
from shoal.core.scene import Scene

ROWS = 2  # are run


@dataclass
class _Seen:
    """What a module was given and gave, with how often each was written to, in every one of its calls."""

    given: list[tuple[Tensor, int]] = field(default_factory=list)
    calls: int = 0

    def see(self, args: tuple[Any, ...], out: Any) -> None:
        """Keep it where it passed on the first of what it was given."""
        self.calls += 1
        if args and isinstance(args[0], Tensor) and isinstance(out, Tensor) and torch.equal(args[0], out):
            self.given += [(each, each._version) for each in (args[0], out)]

    @property
    def passes(self) -> bool:
        """Whether it was called once, and passed its input on."""
        return self.calls == 1 and bool(self.given)

    @property
    def written(self) -> bool:
        """Whether somebody wrote to what it took or gave, so that one may not stand for the other."""
        return any(each._version != version for each, version in self.given)


@dataclass(frozen=True)
class Whole:
    """The path of such a module, those of the branches in it, and whether others write to what it takes or gives."""

    path: str
    branches: tuple[str, ...]
    written: bool


def wholes(scene: Scene) -> Iterator[Whole]:
    """The smallest such modules that are no spans themselves."""
    spans = scene.anatomy.spans
    branches = [span.path for span in spans if span.branch]
    inside = {path: tuple(one.path for one in spans if one.path.startswith(f"{path}.")) for path in _around(branches)}
    own = {span.path for span in spans}
    wanted = {path: held for path, held in inside.items() if path not in own and set(held) <= set(branches)}
    seen = _run(scene.module, scene.head(ROWS).batches[0].example, branches, list(wanted))
    passing = [path for path in wanted if seen[path].passes]
    for path in passing:
        if not any(other.startswith(f"{path}.") for other in passing):
            yield Whole(path, wanted[path], seen[path].written)


def _around(paths: list[str]) -> list[str]:
    """The modules that hold some others, but for the whole."""
    found: dict[str, None] = {}
    for path in paths:
        while path := path.rpartition(".")[0]:
            found[path] = None
    return list(found)


def _run(module: nn.Module, example: Any, branches: list[str], watched: list[str]) -> dict[str, _Seen]:
    """What these modules take and give where every branch gives zero."""
    seen = {path: _Seen() for path in watched}
    handles = [
        module.get_submodule(path).register_forward_hook(
            lambda _, args, out: tree_map_only(Tensor, torch.zeros_like, out)
        )
        for path in branches
    ]
    handles += [
        module.get_submodule(path).register_forward_hook(lambda _, args, out, path=path: seen[path].see(args, out))
        for path in watched
    ]
    try:
        with unmarked(module), torch.no_grad():
            args, kwargs = arguments(example)
            module(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    return seen
