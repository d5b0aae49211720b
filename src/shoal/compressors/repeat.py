"""Repeat: neighbours of one form have the weights of one of them.

    f_1, f_2    becomes    f_1, f_1    or    f_2, f_2

Depth and time stay, weights go. Both ways are proposed: what is measured says whose weights do for both. In a Net whose
norms keep statistics each visit has its own: they are not those of the other place.

Papers   go-wider-instead-of-deeper
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from torch import nn

from shoal.core.base import Compressor, Norm, Proposal
from shoal.core.errors import Refused
from shoal.core.scene import Scene
from shoal.edits.share import Share
from shoal.net import Net
from shoal.recipe import rewritten

log = logging.getLogger("shoal")


class Repeat(Compressor):
    """No settings."""

    def propose(self, scene: Scene) -> Iterator[Proposal]:
        seen: dict[tuple[Any, ...], str] = {}
        for span in scene.anatomy.spans:
            form = _form(scene.module, span.path)
            first, second = seen.get(form), span.path
            seen[form] = second
            if first is None:
                continue
            for paths in ((first, second), (second, first)):
                edit = Share(paths=paths, own_norms=_has_statistics(scene.module, first))
                if _possible(scene.module, edit):
                    yield Proposal((edit,), (first, second), into=first)


def _form(module: nn.Module, path: str) -> tuple[Any, ...]:
    """What two spans must have alike: their class and their weights' shapes, in a Net their stage as well."""
    part = module.get_submodule(path)
    beside = path.rpartition(".")[0] if isinstance(module, Net) else ""
    return beside, type(part), tuple((name, tuple(p.shape)) for name, p in part.named_parameters())


def _has_statistics(module: nn.Module, path: str) -> bool:
    """Whether a layer of a Net has norms that keep statistics of each channel."""
    norms = (part for part in module.get_submodule(path).modules() if isinstance(part, Norm))
    return isinstance(module, Net) and any(next(norm.buffers(), None) is not None for norm in norms)


def _possible(module: nn.Module, edit: Share) -> bool:
    """Whether the two may have the same weights, and have not already."""
    mine, other = ({id(p) for p in module.get_submodule(path).parameters()} for path in edit.paths)
    try:
        if isinstance(module, Net):
            rewritten(module, (edit,))
        else:
            edit.check(module)
    except Refused as why:
        log.info("%s: not proposed: %s", ", ".join(edit.paths), why)
        return False
    return mine != other
