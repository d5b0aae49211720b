"""SGC: one matrix behind some propagations; logistic regression on features that were averaged beforehand.

    y = (S^hops X) W + b        S = D^-1/2 (A + I) D^-1/2

The propagation has no weights: training works it out once, and then each node is a row of its own.

Shapes   x: (nodes, channels), with edges or adjacency as context;  y: (nodes, outputs)
Papers   evaluating-deep-graph-neural-networks
"""

from __future__ import annotations

from shoal.core.base import Architecture
from shoal.core.spec import Spec


class SGC(Architecture):
    """Settings: `channels` of a node; `outputs`; `hops`, how often it propagates."""

    tiny = {"channels": 5, "outputs": 3}

    def __init__(self, *, channels: int, outputs: int, hops: int = 2) -> None:
        self.channels, self.outputs, self.hops = channels, outputs, hops

    def spec(self) -> Spec:
        stage = f"plain(propagate[hops={self.hops}] norm=none) 1x{self.channels}"
        return Spec.parse(f'features[features={self.channels}] | {stage} | pool[outputs={self.outputs},norm="none"]')
