"""RepMLP: convolutions and norms that only helped training become the matrix beside them, layer by layer.

    norm(W x) + sum_k norm(conv_k x)  ->  W' x + b'

Proposed for every layer whose block says itself that it is something simpler in eval: `rep_mlp`, `rep`. It is exact, so
nothing has to be healed; healed before, such a layer has more to learn with.

Exact when the net is in eval
Papers   repmlp-re-parameterizing-convolutions-into-fully
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

from shoal.compressors._proposing import possible
from shoal.core.base import Compressor, Proposal
from shoal.core.folding import FoldsItself
from shoal.core.scene import Scene
from shoal.edits.collapse import Collapse
from shoal.net import Layer, Net


class RepMLP(Compressor):
    """No settings."""

    known: ClassVar[Mapping[str, str]] = {
        "proposals_can_be_done": "neither probe has a block with branches that one matrix could take in"
    }

    def propose(self, scene: Scene) -> Iterator[Proposal]:
        net = scene.module
        if not isinstance(net, Net):
            return
        for path, layer in net.named_modules():
            if isinstance(layer, Layer) and isinstance(layer.block, FoldsItself):
                one = Proposal((Collapse(path=path),), (path,), into=path)
                if possible(net, one):
                    yield one
