"""Reversible columns: levels that every column goes over again, each step of which can be undone.

    x_l <- f(x_{l-1} + x_{l+1}) + gamma * x_l        l = 1 ... levels, column after column;  out: the last level
    x_l = (x_l' - f(x_{l-1} + x_{l+1})) / gamma      the way back

x_{l-1} is that of this column (the input at l = 1), x_{l+1} that of the column before (nothing at the last level). All
levels begin as the input. Where the columns do not divide the depth the first lacks its lowest levels. A gamma, one a
step and channel, is kept at `least` away from 0.

With `recompute` training keeps the last column and what one step needs, however many columns there are: backward undoes
step after step and runs its layer again. Batch norms see the batch twice, and move their running statistics once. What
undoing loses is rounding, the more so the smaller gamma.

Shapes   x: (batch, *places, dim) throughout
Cost     dim weights a step; in training with `recompute` one more forward pass
Exact when every f gives zero: the last level is the product of its gammas times x
Papers   reversible-column-networks
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from shoal.core.base import Branch, Wiring
from shoal.core.errors import BadSetting
from shoal.wirings._recompute import Reversal, Step, recomputes


class Reversible(Wiring):
    """Settings: `columns`, at most one a layer; `recompute`, whether training makes again what it would else keep;
    `least`, how near to 0 a gamma may come."""

    tiny = {"columns": 2}

    def __init__(self, dim: int, depth: int, *, columns: int = 4, recompute: bool = True, least: float = 0.1) -> None:
        super().__init__(dim, depth)
        if columns < 1:
            raise BadSetting(f"wiring reversible: columns={columns} holds no layer; give at least 1")
        if least <= 0:
            raise BadSetting(f"wiring reversible: least={least} cannot be divided by; give more than 0")
        self.levels = -(-depth // min(columns, depth))
        self.recompute, self.least = recompute, least
        self.gamma = nn.Parameter(torch.ones(depth, dim))

    def level(self, index: int) -> int:
        """The level of a layer, from 0; the last layer is at the last level."""
        return (index - self.depth) % self.levels

    def reads(self) -> list[set[int]]:
        held, rows = [{0} for _ in range(self.levels)], []
        for index in range(self.depth):
            level = self.level(index)
            rows.append((held[level - 1] if level else {0}) | (held[level + 1] if level + 1 < self.levels else set()))
            held[level] = held[level] | {index + 1}
        return [*rows, held[-1]]

    def forward(self, x: Tensor, layers: Sequence[Branch]) -> Tensor:
        if self.recompute and recomputes():
            return Reversal(self._steps(layers, self._scale)).run(x, self.levels)
        return self.run(x, layers)[-1]

    def run(self, x: Tensor, layers: Sequence[Branch]) -> list[Tensor]:
        """All levels behind the last column."""
        levels = [x] * self.levels
        for step in self._at_once(layers):
            levels[step.level] = step.forth(x, levels)
        return levels

    def inverse(self, x: Tensor, levels: Sequence[Tensor], layers: Sequence[Branch]) -> list[Tensor]:
        """The levels before the first column, found from those behind the last: each of them is x again."""
        found = list(levels)
        for step in reversed(self._at_once(layers)):
            found[step.level] = step.back(x, found)
        return found

    def _at_once(self, layers: Sequence[Branch]) -> list[Step]:
        """The steps where memory does not count: all scales are made at once, one by one they cost as much as a small
        layer each."""
        return self._steps(layers, self._away_from_0(self.gamma).unbind().__getitem__)

    def _steps(self, layers: Sequence[Branch], scale: Callable[[int], Tensor]) -> list[Step]:
        return [Step(self.level(index), layer, partial(scale, index)) for index, layer in enumerate(layers)]

    def _scale(self, index: int) -> Tensor:
        return self._away_from_0(self.gamma[index])

    def _away_from_0(self, gamma: Tensor) -> Tensor:
        """Kept away from 0; backward goes past the keeping, so that it can come back."""
        with torch.no_grad():
            moved = torch.where(gamma < 0, gamma.clamp(max=-self.least), gamma.clamp(min=self.least)) - gamma
        return gamma + moved
