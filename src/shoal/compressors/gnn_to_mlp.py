"""GNN to MLP: the whole net becomes one that sees no edges, and learns its answers on all nodes.

    stem | any stages that read edges | head   ->   stem | residual(mlp[hidden]) depth x dim | head

It begins with weights of its own. The objective `reliable` teaches it each node's answer, and those of neighbours that
can be relied on; `graph_free` is the same without neighbours. Both are made as cls(task, teacher, graph): what is
learned is in the answers, and needs the graph only while it learns.

Papers   quantifying-the-knowledge-in-gnns-for
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import ClassVar

from shoal.core.base import Compressor, Proposal
from shoal.core.errors import BadSetting
from shoal.core.part import Part
from shoal.core.scene import Scene
from shoal.core.spec import LayerSpec, Spec, Stage
from shoal.edits.replace import Replace
from shoal.kinds import HEADS, STEMS
from shoal.net import Net
from shoal.training.graphs import read_of_graphs

log = logging.getLogger("shoal")


class GnnToMlp(Compressor):
    """Settings: `depth`, layers of the MLP; `dim`, its width (that of the net's last stage where not said); `hidden`,
    units within a layer (4 * dim where not said)."""

    objective: ClassVar[str | None] = "reliable"
    known = {"proposals_can_be_done": "it is for nets that read edges, and neither probe reads any"}

    def __init__(self, *, depth: int = 2, dim: int | None = None, hidden: int | None = None) -> None:
        sizes = {"depth": depth, "dim": dim, "hidden": hidden}
        for name, value in sizes.items():
            if value is not None and value < 1:
                raise BadSetting(f"compressor gnn_to_mlp: {name}={value} leaves no net; give at least 1")
        self.depth, self.dim, self.hidden = depth, dim, hidden

    def propose(self, scene: Scene) -> Iterator[Proposal]:
        net = scene.module
        if not isinstance(net, Net) or not read_of_graphs(net):
            log.info("gnn_to_mlp: %s reads no edges, so nothing is proposed", type(net).__name__)
            return
        student = self.student(net.spec)
        yield Proposal((Replace(path="", spec=str(student)),), tuple(span.path for span in scene.anatomy.spans))

    def student(self, spec: Spec) -> Spec:
        """The MLP in the place of a net of that spec."""
        assert spec.stem is not None
        assert spec.head is not None
        first, end = spec.stages[0].dim, spec.stages[-1].out
        block = Part("mlp") if self.hidden is None else Part("mlp", {"hidden": self.hidden})
        layers = (LayerSpec(block),) * self.depth
        stage = Stage(Part("residual"), layers, self.dim or end)
        return Spec((stage,), STEMS.sparse(spec.stem, first), HEADS.sparse(spec.head, end))
