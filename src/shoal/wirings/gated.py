"""Gated: a small gate before each layer looks at the stream and lets a row through the layer or past it.

    x <- x + g_i(x) * f_i(x)        g in {0, 1}: whether answer( hidden( mean over places of x ) ) >= 0
    forward      hidden: relu of a matrix, one a layer
    recurrent    hidden: an LSTM that goes along the layers, shared by all of them

All gates are open at first. In training they multiply, and backward takes the sigmoid's slope (straight-through); the
share of open gates, times `cost`, comes on top of the loss. In eval the rows whose gate is shut do not go through the
layer: it is run on the others alone, and not at all where there are none. A context with one row an example fits only
where no row is shut. The paper's second stage, which tunes the gates by reinforcement, is left out.

Shapes   x: (batch, *places, dim) throughout;  g: (batch,);  in eval a layer is given the open rows only
Cost     forward: (dim + 1) * size multiply-adds a row and layer;  recurrent: (4 * dim + 4 * size + 1) * size
Exact when all gates are open: the residual net;  all shut: the identity
Papers   skipnet-learning-dynamic-routing-in-convolutional
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from shoal.core.base import Branch, MakeLinear, Wiring
from shoal.core.errors import BadSetting
from shoal.wirings._gates import OpenShare, add_where_open, pooled, straight_through, to_open


class Gated(Wiring):
    """Settings: `gate`, "forward" or "recurrent"; `size`, its units; `cost` of all gates open, added to the loss."""

    tiny = {"size": 4}

    def __init__(
        self,
        dim: int,
        depth: int,
        linear: MakeLinear,
        *,
        gate: Literal["forward", "recurrent"] = "forward",
        size: int = 10,
        cost: float = 0.01,
    ) -> None:
        super().__init__(dim, depth)
        if size < 1 or cost < 0:
            raise BadSetting(f"wiring gated: size={size}, cost={cost}; give at least 1 unit and no negative cost")
        self.cost, self.share = cost, OpenShare()
        self.gates = _Forward(dim, depth, size, linear) if gate == "forward" else _Recurrent(dim, size, linear)

    def auxiliary_loss(self) -> Tensor | None:
        return self.share.loss(self.cost)

    def reads(self) -> list[set[int]]:
        return [set(range(i + 1)) for i in range(self.depth + 1)]

    def forward(self, x: Tensor, layers: Sequence[Branch]) -> Tensor:
        memory = self.gates.begin(x)
        opened = []
        for index, layer in enumerate(layers):
            logit, memory = self.gates(index, pooled(x), memory)
            opened.append(straight_through(logit))
            x = add_where_open(x, layer, opened[-1], self.training)
        self.share.note(opened, self.training)
        return x


Memory = tuple[Tensor, ...]


class _Forward(nn.Module):
    """A gate of its own for each layer, without memory."""

    def __init__(self, dim: int, depth: int, size: int, linear: MakeLinear) -> None:
        super().__init__()
        self.hidden = nn.ModuleList(linear(dim, size) for _ in range(depth))
        self.answers = nn.ModuleList(to_open(size, linear) for _ in range(depth))

    def begin(self, x: Tensor) -> Memory:
        return ()

    def forward(self, index: int, x: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        return self.answers[index](self.hidden[index](x).relu()).squeeze(-1), memory


class _Recurrent(nn.Module):
    """One gate for all layers: an LSTM cell that remembers what it saw before the layers so far."""

    def __init__(self, dim: int, size: int, linear: MakeLinear) -> None:
        super().__init__()
        self.size = size
        self.see, self.recall = linear(dim, 4 * size), linear(size, 4 * size, bias=False)
        self.answer = to_open(size, linear)

    def begin(self, x: Tensor) -> Memory:
        return x.new_zeros(x.shape[0], self.size), x.new_zeros(x.shape[0], self.size)

    def forward(self, index: int, x: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        said, cell = memory
        take, keep, say, new = (self.see(x) + self.recall(said)).chunk(4, dim=-1)
        cell = keep.sigmoid() * cell + take.sigmoid() * new.tanh()
        said = say.sigmoid() * cell.tanh()
        return self.answer(said).squeeze(-1), (said, cell)
