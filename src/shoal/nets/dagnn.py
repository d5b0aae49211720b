"""DAGNN: an MLP first, then many propagations of its answers, each let in by a gate.

    Z = MLP(X), two matrices;    y = sum over k = 0 .. hops of sigmoid(a . H_k + b) H_k,  H_k = S^k Z

Shapes   x: (nodes, channels), with edges or adjacency as context;  y: (nodes, outputs);  propagated: (nodes, outputs)
Papers   towards-deeper-graph-neural-networks
"""

from __future__ import annotations

from shoal.core.base import Architecture
from shoal.core.spec import Spec


class DAGNN(Architecture):
    """Settings: `channels` of a node; `outputs`; `hidden`, the width of the MLP; `hops`, how far it propagates;
    `dropout`, the share left out before each matrix; `norm`, the norm's kind behind the first matrix."""

    variants = {"dagnn_arxiv": {"channels": 128, "outputs": 40, "hidden": 256, "norm": "batch"}}
    published = {"dagnn_arxiv": 43857}
    tiny = {"channels": 5, "outputs": 3, "hidden": 6, "hops": 3}

    def __init__(
        self,
        *,
        channels: int,
        outputs: int,
        hidden: int = 64,
        hops: int = 10,
        dropout: float = 0.8,
        norm: str = "none",
    ) -> None:
        self.channels, self.outputs, self.hidden, self.hops = channels, outputs, hidden, hops
        self.dropout, self.norm = dropout, norm

    def spec(self) -> Spec:
        stem = f"nodes[features={self.channels},dropout={self.dropout}]"
        mlp = f"plain(propagate[hops=0,act=relu,dropout={self.dropout}] norm={self.norm}) 1x{self.hidden}"
        hops = f"plain(gated_hops[hops={self.hops}] norm=none) 1x{self.outputs}"
        return Spec.parse(f"{stem} | {mlp} -widen- {hops} | shift[outputs={self.outputs},bias=false]")
