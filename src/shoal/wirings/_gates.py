"""Gates: how gated and routed wirings open and shut layers for each row of a batch.

In training every row goes through every layer and a gate of 0 or 1 multiplies what it adds; backward takes the slope of
the sigmoid instead (straight-through). In eval a row whose gate is shut does not go through the layer. Where a pass is
traced, or has shapes only, no row can be picked by its values, and the gate multiplies as in training.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from shoal.core.base import Branch, Linear, MakeLinear

OPEN = 2.0  # every gate's logit at first


def to_open(inputs: int, linear: MakeLinear) -> Linear:
    """A matrix to one logit, which is at first the same for whatever comes: open."""
    answer = linear(inputs, 1)
    answer.fit(torch.zeros(1, inputs))
    assert answer.bias is not None
    nn.init.constant_(answer.bias, OPEN)
    return answer


def straight_through(logit: Tensor) -> Tensor:
    """1 where the logit is at least 0, else 0; backward goes through its sigmoid."""
    soft = logit.sigmoid()
    return (logit >= 0).to(soft.dtype) + (soft - soft.detach())


def pooled(x: Tensor) -> Tensor:
    """The mean over all places, (batch, dim)."""
    return x.mean(dim=tuple(range(1, x.dim() - 1))) if x.dim() > 2 else x


def add_where_open(x: Tensor, layer: Branch, gate: Tensor, training: bool) -> Tensor:
    """x + gate * layer(x), the gate (batch,) of 0 and 1; in eval only the open rows go through the layer.

    All of them do where the layer is given something beside the stream (edges, a mask): that belongs to all rows.
    """
    bound = getattr(layer, "keywords", {}).get("context")
    if training or bound or torch.compiler.is_compiling() or x.is_meta:
        return x + gate.view(-1, *(1 for _ in x.shape[1:])) * layer(x)
    rows = gate.nonzero().squeeze(1)
    if len(rows) == len(x):
        return x + layer(x)
    if len(rows) == 0:
        return x
    return x.index_add(0, rows, layer(x[rows]).to(x.dtype))


class OpenShare:
    """The mean of all gates of the last forward pass in training, with its graph; a copy begins without it."""

    def __init__(self) -> None:
        self.mean: Tensor | None = None

    def note(self, gates: list[Tensor], training: bool) -> None:
        """The pass is over: these were its gates."""
        self.mean = torch.stack(gates).mean() if training else None

    def loss(self, cost: float) -> Tensor | None:
        """The share times its cost; None where it costs nothing or there was no pass in training."""
        return None if self.mean is None or cost == 0 else cost * self.mean

    def __deepcopy__(self, memo: dict[int, Any]) -> OpenShare:
        return OpenShare()
