"""Sparse: every layer reads few of those before it, at distances that grow as powers.

    x_i = f_i( x_{i-1}, x_{i-c}, x_{i-c^2}, ... )        side by side, or as a sum;  x_0 is the input

About log i inputs a layer, where the dense wiring has i; from any layer to any other it is about log steps. The output
is read at the same distances.

Shapes   concat: a layer takes the widths of what it reads and gives growth;  sum: dim throughout
Cost     depth * log(depth) connections
Papers   sparsely-aggregated-convolutional-networks
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from shoal.core.base import Branch, Wiring
from shoal.core.errors import BadSetting


class Sparse(Wiring):
    """Settings: `aggregate`, `concat` or `sum`; `base`, the c of the distances 1, c, c^2, ...; `growth`, channels a
    layer gives (dim where not said, and always in a sum)."""

    tiny = {"growth": 4}
    sizes = {"growth": lambda dim, _: dim}

    def __init__(
        self,
        dim: int,
        depth: int,
        *,
        aggregate: Literal["concat", "sum"] = "concat",
        base: int = 2,
        growth: int | None = None,
    ) -> None:
        super().__init__(dim, depth)
        self.growth = self.size("growth", growth, dim)
        if base < 2:
            raise BadSetting(f"wiring sparse: base={base} has no growing powers; give at least 2")
        if aggregate == "sum" and self.growth != dim:
            raise BadSetting(f"wiring sparse: growth={self.growth} cannot be summed at width {dim}; leave growth out")
        self.sum, self.base = aggregate == "sum", base

    def reads(self) -> list[set[int]]:
        return [set(self._read(node)) for node in range(1, self.depth + 2)]

    def ends(self) -> list[tuple[int, int]]:
        return [(self._width(node), self.growth) for node in range(1, self.depth + 1)]

    def out(self) -> int:
        return self._width(self.depth + 1)

    def forward(self, x: Tensor, layers: Sequence[Branch]) -> Tensor:
        nodes = [x]
        for layer in layers:
            nodes.append(layer(self._together(nodes)))
        return self._together(nodes)

    def _read(self, node: int) -> list[int]:
        """The nodes that this one reads, oldest first."""
        distances = [1]
        while distances[-1] * self.base <= node:
            distances.append(distances[-1] * self.base)
        return [node - distance for distance in reversed(distances)]

    def _width(self, node: int) -> int:
        if self.sum:
            return self.dim
        return sum(self.growth if read else self.dim for read in self._read(node))

    def _together(self, nodes: Sequence[Tensor]) -> Tensor:
        """What the node behind these is given."""
        first, *rest = (nodes[read] for read in self._read(len(nodes)))
        if self.sum:
            for other in rest:
                first = first + other
            return first
        return torch.cat((first, *rest), dim=-1)
