"""DGMLP: features mixed over distances, node by node, then an MLP with residual links; two depths apart.

    H_v = sum over k = 0 .. hops of w_v(k) (S^k X)_v        S = D^-1 (A + I);  w: how smooth at k and still itself
    y = MLP(H), `depth` matrices: one in, one out, and between them  h <- h + W relu(norm h)

The first has no weights: training works it out once, and then each node is a row of its own.

Shapes   x: (nodes, channels), with edges as context;  y: (nodes, outputs)
Exact when hops = 0: an MLP on X
Papers   evaluating-deep-graph-neural-networks
"""

from __future__ import annotations

from shoal.core.base import Architecture
from shoal.core.errors import BadSetting
from shoal.core.spec import Spec


class DGMLP(Architecture):
    """Settings: `channels` of a node; `outputs`; `hops`, the depth of propagation; `depth`, how many matrices, at least
    1 (logistic regression); `hidden`, the width between them; `dropout`, the share left out before each."""

    tiny = {"channels": 5, "outputs": 3, "hidden": 6, "hops": 3, "depth": 3}

    def __init__(
        self,
        *,
        channels: int,
        outputs: int,
        hops: int = 20,
        depth: int = 1,
        hidden: int = 64,
        dropout: float = 0.2,
    ) -> None:
        if depth < 1:
            raise BadSetting(f"net dgmlp: depth={depth} has no matrix; give at least 1")
        self.channels, self.outputs, self.hops = channels, outputs, hops
        self.depth, self.hidden, self.dropout = depth, hidden, dropout

    def spec(self) -> Spec:
        mixed = f"plain(adaptive_hops[hops={self.hops},dropout={self.dropout}] norm=none) 1x{self.channels}"
        behind = {1: "", 2: f" -widen- plain(propagate[hops=0,act=relu,dropout={self.dropout}] norm=batch) "}
        layers = f" -widen- residual(gcn[hops=0,dropout={self.dropout}] norm=batch) "
        shape = f"{max(self.depth - 2, 1)}x{self.hidden}" if self.depth > 1 else ""
        stages = mixed + behind.get(self.depth, layers) + shape
        return Spec.parse(f'features[features={self.channels}] | {stages} | pool[outputs={self.outputs},norm="none"]')
