"""GCN: propagation and a matrix in turns, as often as it is deep; past a few layers it can no longer be trained.

    H <- relu( S H W + b ),  the last without relu        S = D^-1/2 (A + I) D^-1/2

As a spec: the first matrix is the stem's and the last the head's, S commutes with both; a stage of `depth` propagations
stands between them, each but the first and the last with a matrix of its own.

Shapes   x: (nodes, channels), with edges or adjacency as context;  y: (nodes, outputs)
Papers   evaluating-deep-graph-neural-networks
"""

from __future__ import annotations

from shoal.core.base import Architecture
from shoal.core.errors import BadSetting
from shoal.core.spec import Spec


class GCN(Architecture):
    """Settings: `channels` of a node; `outputs`; `hidden`, the width within; `depth`, how many layers, at least 2;
    `dropout`, the share left out before each matrix."""

    tiny = {"channels": 5, "outputs": 3, "hidden": 6}

    def __init__(self, *, channels: int, outputs: int, hidden: int = 16, depth: int = 2, dropout: float = 0.5) -> None:
        if depth < 2:
            raise BadSetting(
                f"net gcn: depth={depth} has no layer between data and answer; give at least 2, or use sgc"
            )
        self.channels, self.outputs, self.hidden, self.depth, self.dropout = channels, outputs, hidden, depth, dropout

    def spec(self) -> Spec:
        stem = f"nodes[features={self.channels},dropout={self.dropout},bias=false]"
        within = f"gcn[dropout={self.dropout}] norm=none*{self.depth - 2}, " if self.depth > 2 else ""
        last = f"propagate[act=relu,dropout={self.dropout}] norm=none"
        stage = f"plain(propagate[bias=true] norm=none, {within}{last}) {self.depth}x{self.hidden}"
        return Spec.parse(f'{stem} | {stage} | pool[outputs={self.outputs},norm="none"]')
