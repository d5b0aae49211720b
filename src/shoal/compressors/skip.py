"""Skip: take spans out, one by one.

    x + f(x)  ->  x

Works on any module: whatever passes its input on, or is added to a stream, can go.

Papers   deep-residual-learning-for-image-recognition
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from shoal.core.base import Compressor, Proposal
from shoal.core.errors import Refused
from shoal.core.scene import Scene
from shoal.edits.drop import Drop
from shoal.net import Net
from shoal.recipe import rewritten


class Skip(Compressor):
    """No settings."""

    def propose(self, scene: Scene) -> Iterator[Proposal]:
        for span in scene.anatomy.spans:
            edit = Drop(path=span.path, branch=span.branch)
            if _possible(scene.module, edit):
                yield Proposal((edit,), (span.path,))


def _possible(module: nn.Module, edit: Drop) -> bool:
    """Whether a Net can say it in its spec; anything can be done to a stranger's span."""
    if not isinstance(module, Net):
        return True
    try:
        rewritten(module, (edit,))
    except Refused:
        return False
    return True
