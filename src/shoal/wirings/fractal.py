"""Fractal: columns of 1, 2, 4, ... layers side by side that meet in means; no residual stream, no signal past all.

    f_1(z) = layer(z);        f_c(z) = [ f_{c-1}( mean f_{c-1}(z) ),  layer(z) ],  a list of c columns
    x <- mean f_columns(x)    a fractal has 2^columns - 1 layers; a smaller rest of the depth becomes smaller fractals

In training half of the passes keep one column of the stage (global drop-path), the other half drop each input of each
mean with probability `drop`, all but one at most (local drop-path). Every stage draws for itself.

Shapes   x: (batch, *places, dim) throughout
Cost     that of the plain wiring; the longest path is 2^(columns - 1) of 2^columns - 1 layers
Exact when one column is kept: column c is the plain net of its 2^(c - 1) layers a fractal
Papers   fractalnet-ultra-deep-neural-networks-without
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias, TypeVar

import torch
from torch import Tensor

from shoal.core.base import Branch, Wiring
from shoal.core.errors import BadSetting

T = TypeVar("T")
Meet: TypeAlias = Callable[[list[T]], T]
Draw: TypeAlias = Callable[[int], set[int]]  # how many columns come to a mean -> those that it keeps


class Fractal(Wiring):
    """Settings: `columns` of a fractal; `drop`, how likely an input of a mean is dropped in training, 0 for no drop-
    path of either kind; `column`, the only one that runs, 1 the shortest, none for all. The attribute `column` may be
    set on a built wiring too. A fractal that has not so many columns keeps its longest."""

    tiny = {"columns": 3, "drop": 0.0}  # the battery's checks ask that every layer takes part

    def __init__(
        self, dim: int, depth: int, *, columns: int = 3, drop: float = 0.15, column: int | None = None
    ) -> None:
        super().__init__(dim, depth)
        if columns < 1:
            raise BadSetting(f"wiring fractal: columns={columns} holds no layers; give at least 1")
        if not 0 <= drop <= 1:
            raise BadSetting(f"wiring fractal: drop={drop} is no probability; give 0 to 1")
        if column is not None and not 1 <= column <= columns:
            raise BadSetting(f"wiring fractal: column={column} is none of 1 to {columns}; choose one, or none for all")
        self.columns, self.drop, self.column = columns, drop, column
        self.fractals: list[int] = []  # the columns of each
        while depth:
            self.fractals.append(min(columns, (depth + 1).bit_length() - 1))
            depth -= 2 ** self.fractals[-1] - 1

    def reads(self) -> list[set[int]]:
        rows: list[set[int]] = []

        def layer(seen: set[int]) -> set[int]:
            rows.append(seen)
            return {len(rows)}

        out = self._through({0}, [layer] * self.depth, lambda given: set().union(*given), self.column, None)
        return [*rows, out]

    def forward(self, x: Tensor, layers: Sequence[Branch]) -> Tensor:
        column, draw = self.column, None
        if self.training and self.drop and column is None:
            if torch.rand((), device="cpu") < 0.5:
                column = int(torch.randint(1, self.columns + 1, (), device="cpu"))
            else:
                draw = partial(_some, self.drop)
        return self._through(x, layers, _mean, column, draw)

    def _through(
        self, x: T, layers: Sequence[Callable[[T], T]], meet: Meet[T], column: int | None, draw: Draw | None
    ) -> T:
        """One fractal after another: of tensors that meet in means, or for ``reads`` of sets that meet in unions."""
        start = 0
        for columns in self.fractals:
            own = layers[start : start + 2**columns - 1]
            kept = {min(column, columns)} if column else draw(columns) if draw else set(range(1, columns + 1))
            x = meet(_fractal(x, own, columns, kept, meet, draw))
            start += len(own)
        return x


def _fractal(
    x: T, layers: Sequence[Callable[[T], T]], columns: int, kept: set[int], meet: Meet[T], draw: Draw | None
) -> list[T]:
    """What the kept columns give, longest first; all but the shortest are two fractals of one column less."""
    given: list[T] = []
    longer = {column - 1 for column in kept if column > 1}
    if longer:
        half = len(layers) // 2
        through = draw(columns - 1) if draw else longer
        middle = meet(_fractal(x, layers[:half], columns - 1, through, meet, draw))
        given = _fractal(middle, layers[half:-1], columns - 1, longer, meet, draw)
    return [*given, layers[-1](x)] if 1 in kept else given


def _mean(given: list[Tensor]) -> Tensor:
    return given[0] if len(given) == 1 else torch.stack(given).mean(dim=0)


def _some(drop: float, columns: int) -> set[int]:
    """Each of the columns but for a chance of ``drop``, and at least one."""
    draws = torch.rand(columns, device="cpu").tolist()
    kept = {column for column, draw in enumerate(draws, 1) if draw >= drop}
    return kept or {int(torch.randint(1, columns + 1, (), device="cpu"))}
