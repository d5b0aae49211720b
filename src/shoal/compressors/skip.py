"""Skip: take spans out, one by one.

    x + f(x)  ->  x

Works on any module: whatever passes its input on, or is added to a stream, can go. So can a layer that does nothing but
add such branches, as transformers have them, with all that it computes for them. So can layers that are stacked
within one recurrent module of torch, one alone or neighbours, where what is left still runs.

Papers   deep-residual-learning-for-image-recognition
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from itertools import combinations

from torch import nn

from shoal.compressors._lessons import called
from shoal.compressors._wholes import wholes
from shoal.core.base import Compressor, Proposal
from shoal.core.errors import BadModel, Refused
from shoal.core.scene import Scene
from shoal.edits.drop import Drop
from shoal.net import Net
from shoal.recipe import edited, rewritten

log = logging.getLogger("shoal")


class Skip(Compressor):
    """Settings: `whole`, whether nothing goes of a stranger but whole layers that stand in a list, so that formats that
    count layers can say what is left."""

    def __init__(self, *, whole: bool = False) -> None:
        self.whole = whole

    def propose(self, scene: Scene) -> Iterator[Proposal]:
        stranger = not isinstance(scene.module, Net)
        for span in scene.anatomy.spans:
            edit = Drop(path=span.path, branch=span.branch, written=span.written)
            if not (stranger and self.whole and not _listed(span.path)) and _possible(scene.module, edit):
                yield Proposal((edit,), (span.path,))
        if not stranger:
            return
        for one in wholes(scene):
            if not self.whole or _listed(one.path):
                yield Proposal((Drop(path=one.path, written=one.written),), one.branches)
        if not self.whole:
            yield from _stacked(scene)


def _listed(path: str) -> bool:
    """Whether it is one of a list of layers, which go by numbers, and no part of one."""
    numbers = [word.isdigit() for word in path.split(".")]
    return numbers[-1] and sum(numbers) == 1


def _stacked(scene: Scene) -> Iterator[Proposal]:
    """Layers of recurrent modules that are stacked; a module that stands in several places is left as it is."""
    module, example = scene.module, scene.head(2).batches[0].example
    every = Counter(id(part) for _, part in module.named_modules(remove_duplicate=False))
    stacks = {path: part for path, part in module.named_modules() if path and isinstance(part, nn.RNNBase)}
    wanted = called(module, example).shape if stacks else None
    for path, part in stacks.items():
        if every[id(part)] > 1:
            log.info("%s: not proposed: it stands in several places", path)
            continue
        for first, last in combinations(range(part.num_layers + 1), 2):
            edit = Drop(path=path, layers=tuple(range(first, last)))
            try:
                found = called(edited(module, edit), example).shape
            except (Refused, BadModel) as why:
                log.info("%s: not proposed: %s", path, why)
                continue
            if found == wanted:
                yield Proposal((edit,), (path,), into=path)


def _possible(module: nn.Module, edit: Drop) -> bool:
    """Whether a Net can say it in its spec; anything can be done to a stranger's span."""
    if not isinstance(module, Net):
        return True
    try:
        rewritten(module, (edit,))
    except Refused:
        return False
    return True
