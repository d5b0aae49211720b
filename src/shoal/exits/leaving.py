"""Leaving: a net whose rows go no further than the first exit that is sure enough of them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shoal.core.base import Branch
from shoal.core.errors import BadModel, BadSetting
from shoal.net import Net

NEVER = 2.0  # a threshold that no row passes


class Early(nn.Module):
    """A net that its rows leave early; in eval mode only. Make it with :func:`early`.

    Layers run on the rows that are left, and are not run once none is. What a wiring computes by itself between the
    layers of a stage it computes for all rows that came into the stage.
    """

    def __init__(self, net: Net, thresholds: tuple[float, ...], temperatures: tuple[float, ...]) -> None:
        super().__init__()
        self.net, self.thresholds, self.temperatures = net, thresholds, temperatures
        self.numbers = {one.place: number for number, one in enumerate(net.spec.exits)}

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(x)[0]

    def leave(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The answers, (batch, outputs), and the exit that each row left by, (batch,); the end is the last number."""
        if self.net.training:
            raise BadModel("early: rows leave in eval mode only, and this net is in training; call eval() first")
        x = self.net.stem(x)
        walk = _Walk(torch.arange(len(x), device=x.device), torch.arange(len(x), device=x.device))
        stages: list[Any] = list(self.net.stages)
        for index, stage in enumerate(stages):
            x = x if stage.join is None else stage.join(x)
            layers = enumerate(stage.branches())
            branches = [self._left(walk, index, step, layer) for step, layer in layers]
            x = stage.wiring(x, branches)[walk.inside]
            walk.rows, walk.inside = walk.rows[walk.inside], torch.arange(len(x), device=x.device)
            if not len(x):
                break
        else:
            walk.answer(self.net.head(x), torch.ones_like(walk.inside, dtype=torch.bool), len(self.thresholds))
        return walk.together()

    def _left(self, walk: _Walk, stage: int, step: int, layer: Branch) -> Branch:
        """The layer on the rows that are still inside; for those that left it gives zeros, which nobody reads."""
        gives = self.net.spec.stages[stage].ends()[step][1]
        number = self.numbers.get((stage, step))

        def run(x: Tensor) -> Tensor:
            if len(x) != len(walk.rows):
                raise BadModel(
                    f"early: the wiring of stage {stage} gives a layer {len(x)} rows of {len(walk.rows)}, so it is not "
                    "known which; use one that gives it all"
                )
            if number is not None and number not in walk.asked:
                self._ask(walk, number, x)
            if len(walk.inside) == len(x):
                return layer(x)
            y = x.new_zeros(*x.shape[:-1], gives)
            if len(walk.inside):
                y[walk.inside] = layer(x[walk.inside])
            return y

        return run

    def _ask(self, walk: _Walk, number: int, x: Tensor) -> None:
        """Let the rows leave of which an exit is sure enough."""
        walk.asked.add(number)
        if not len(walk.inside):
            return
        given = self.net.exits[number](x[walk.inside])
        if given.dim() != 2:
            raise BadModel(f"early: an exit gives {tuple(given.shape)}, and rows need one answer each; use a head pool")
        sure = confidence(given, self.temperatures[number]) >= self.thresholds[number]
        walk.answer(given, sure, number)


@dataclass
class _Walk:
    """Rows on their way: ``rows`` are those that came into the stage, ``inside`` says which of them are still there."""

    rows: Tensor
    inside: Tensor
    asked: set[int] = field(default_factory=set)
    left: list[tuple[Tensor, Tensor, int]] = field(default_factory=list)  # rows, their answers, their exit

    def answer(self, given: Tensor, sure: Tensor, number: int) -> None:
        """Of the rows inside, those of which it is sure leave with these answers."""
        self.left.append((self.rows[self.inside[sure]], given[sure], number))
        self.inside = self.inside[~sure]

    def together(self) -> tuple[Tensor, Tensor]:
        """All answers in the order of the rows, and the exits they came from."""
        rows = torch.cat([rows for rows, _, _ in self.left])
        given = torch.cat([given for _, given, _ in self.left])
        exits = torch.cat([torch.full_like(rows, number) for rows, _, number in self.left])
        order = rows.argsort()
        return given[order], exits[order]


def early(net: Net, thresholds: Sequence[float], temperatures: Sequence[float] | None = None) -> Early:
    """A module that leaves at the first exit whose confidence reaches its threshold; the net given is copied.

    ``temperatures``: one an exit; 1 where not said. Raises BadModel for a net without exits, and BadSetting.
    """
    exits = net.spec.exits
    if not exits:
        raise BadModel("early: the net has no exits; write them in its spec, as in residual(mlp) 4x32 | 0.2: pool")
    softened = (1.0,) * len(exits) if temperatures is None else tuple(temperatures)
    for name, values in (("thresholds", thresholds), ("temperatures", softened)):
        if len(values) != len(exits):
            raise BadSetting(f"early: {len(values)} {name} for {len(exits)} exits; give one for each")
    if not all(temperature > 0 for temperature in softened):
        raise BadSetting(f"early: temperatures {list(softened)} must be above 0")
    return Early(copy.deepcopy(net).eval(), tuple(thresholds), softened).eval()


def confidence(given: Tensor, temperature: float) -> Tensor:
    """How likely the likeliest class is said to be, (batch,)."""
    return F.softmax(given / temperature, dim=-1).amax(dim=-1)
