"""Probes: how a wiring is measured.

A probe stands for a layer, notes what comes in and gives back a constant of its own; so the slope of a later input with
respect to that constant is zero exactly where it is not read.
"""

from __future__ import annotations

import torch
from torch import Tensor

from shoal.core.base import Branch, Wiring
from shoal.testing._samples import inputs, require


def measured_reads(wiring: Wiring) -> list[set[int]]:
    """What ``wiring.reads()`` should be: the nodes each visited layer depends on, and then the output."""
    x = inputs(1, wiring.dim).requires_grad_()
    y, calls, given = probed(wiring, x)
    nodes = [x, *given]
    rows = []
    for tensor in [*(seen for _, seen in calls), y]:
        slopes = torch.autograd.grad(
            (tensor * torch.randn_like(tensor)).sum(), nodes, retain_graph=True, allow_unused=True
        )
        rows.append({node for node, slope in enumerate(slopes) if slope is not None and bool(slope.any())})
    return rows


def probed(wiring: Wiring, x: Tensor) -> tuple[Tensor, list[tuple[int, Tensor]], list[Tensor]]:
    """The output, (layer, input) of each call, and what the probes gave back."""
    calls: list[tuple[int, Tensor]] = []
    given: list[Tensor] = []
    ends = wiring.ends()

    def probe(index: int) -> Branch:
        def called(seen: Tensor) -> Tensor:
            takes, gives = ends[index]
            require(seen.shape[-1] == takes, f"layer {index} is given {seen.shape[-1]} channels, ends says {takes}")
            calls.append((index, seen))
            given.append(torch.randn(*seen.shape[:-1], gives, dtype=seen.dtype, requires_grad=True))
            return given[-1]

        return called

    y = wiring(x.clone(), [probe(index) for index in range(wiring.depth)])
    return y, calls, given
