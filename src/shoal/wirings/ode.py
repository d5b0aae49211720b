"""ODE: the layers of a group are one vector field, and the stream follows it by a solver's steps.

    dx/dt = F_g(x) = sum_{i in group g} f_i(x),  t from 0 to 1, a group after another

    euler      x <- x + h F(x)                                    h = 1 / steps
    midpoint   x <- x + h F(x + h/2 F(x))
    rk4        x <- x + h/6 (k1 + 2 k2 + 2 k3 + k4),  k2 = F(x + h/2 k1),  k3 = F(x + h/2 k2),  k4 = F(x + h k3)

With attention and MLP as a group of two, one Euler step is the transformer layer with both side by side. The solvers
are the textbook's. Where layers are called more than once, give them a norm that keeps no statistics (`norm=layer`).

Shapes   x: (batch, *places, dim) throughout
Cost     steps * (1, 2 or 4) times the multiply-adds of the layers, their weights once
Exact when euler, steps = 1: grouped residual
Papers   a-neural-ode-interpretation-of-transformer
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from torch import Tensor

from shoal.core.base import Branch, Wiring
from shoal.core.errors import BadSetting

# For each evaluation of the field: how far along the slope before it is read, and the weight of the slope found there
SOLVERS: Mapping[str, tuple[tuple[float, float], ...]] = {
    "euler": ((0, 1),),
    "midpoint": ((0, 0), (1 / 2, 1)),
    "rk4": ((0, 1 / 6), (1 / 2, 1 / 3), (1 / 2, 1 / 3), (1, 1 / 6)),
}


class ODE(Wiring):
    """Settings: `size`, layers in a group (the last may be smaller), 0 for one group of all; `method`, the solver;
    `steps` that it takes a group. The layers of a group are called in rounds before those of the next."""

    tiny = {"size": 0, "steps": 2}  # one group, since the battery's checks ask for rounds of all layers

    def __init__(
        self,
        dim: int,
        depth: int,
        *,
        size: int = 2,
        method: Literal["euler", "midpoint", "rk4"] = "midpoint",
        steps: int = 1,
    ) -> None:
        super().__init__(dim, depth)
        if size < 0:
            raise BadSetting(f"wiring ode: size={size} is none; give 0 for one group of all, or at least 1")
        if steps < 1:
            raise BadSetting(f"wiring ode: steps={steps} goes nowhere; give at least 1")
        self.members, self.steps, self.solver = size or depth, steps, SOLVERS[method]

    def reads(self) -> list[set[int]]:
        rows: list[set[int]] = []
        stream = {0}
        for start in range(0, self.depth, self.members):
            members = min(self.members, self.depth - start)
            for _ in range(self.steps):
                slope: set[int] = set()
                after = set(stream)
                for reach, weight in self.solver:
                    rows += [stream | slope if reach else set(stream)] * members
                    slope = set(range(len(rows) - members + 1, len(rows) + 1))
                    after |= slope if weight else set()
                stream = after
        return [*rows, stream]

    def forward(self, x: Tensor, layers: Sequence[Branch]) -> Tensor:
        for start in range(0, self.depth, self.members):
            group = layers[start : start + self.members]
            for _ in range(self.steps):
                x = self._step(x, group)
        return x

    def _step(self, x: Tensor, group: Sequence[Branch]) -> Tensor:
        first, *rest = group
        length, slope, after = 1 / self.steps, x, x
        for reach, weight in self.solver:
            seen = x + length * reach * slope if reach else x
            slope = first(seen)
            for layer in rest:
                slope = slope + layer(seen)
            if weight:
                after = after + length * weight * slope
        return after
