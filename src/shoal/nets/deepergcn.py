"""DeeperGCN: a residual stack of layers that gather by a learned mean, norm and activation before each.

    H <- H + GEN( dropout( relu( norm H ) ) )

Shapes   x: (nodes, channels), with edges as context;  y: (nodes, outputs)
Papers   deepergcn-all-you-need-to-train
"""

from __future__ import annotations

from shoal.core.base import Architecture
from shoal.core.spec import Spec


class DeeperGCN(Architecture):
    """Settings: `channels` of a node; `outputs`; `hidden`, the width of the stream; `depth`, how many layers;
    `dropout`, the share left out before each; `aggregate`: softmax or power; `norm`, the norm's kind."""

    tiny = {"channels": 5, "outputs": 3, "hidden": 6, "depth": 3}

    def __init__(
        self,
        *,
        channels: int,
        outputs: int,
        hidden: int = 64,
        depth: int = 8,
        dropout: float = 0.5,
        aggregate: str = "softmax",
        norm: str = "layer",
    ) -> None:
        self.channels, self.outputs, self.hidden, self.depth = channels, outputs, hidden, depth
        self.dropout, self.aggregate, self.norm = dropout, aggregate, norm

    def spec(self) -> Spec:
        stem = f"nodes[features={self.channels},dropout={self.dropout}]"
        layer = f"gen[aggregate={self.aggregate},dropout={self.dropout}] norm={self.norm}"
        stage = f"residual({layer}) {self.depth}x{self.hidden}"
        return Spec.parse(f'{stem} | {stage} | pool[outputs={self.outputs},norm="{self.norm}"]')
