"""Layout: how the weights of convolutions lie in memory while a module of other people learns or teaches.

With their channels last, convolutions and the norms behind them take less time on a CPU, and what they give lies so
too, whatever they are given; only rounding differs. The states of a Net have their channels last anyway.
"""

from __future__ import annotations

import logging

import torch
from torch import nn

from shoal.core.channels import channels_first
from shoal.core.example import unmarked
from shoal.core.inputs import Inputs, answer_to, taken
from shoal.net import Net

ROWS = 2  # are run to see whether a module takes it
log = logging.getLogger("shoal")


def lay_out(module: nn.Module, x: Inputs) -> tuple[nn.Parameter, ...]:
    """Put the channels of its convolutions last, in place, where it runs so and gives the same for the first rows: some
    ask for views of their states that are then not to be had.

    Returns the weights that were moved, for :func:`put_back`.
    """
    moved = () if isinstance(module, Net) else _movable(module)
    if not moved:
        return ()
    rows, learns = taken(x, slice(ROWS)), module.training
    with unmarked(module), torch.no_grad():
        before = answer_to(module, rows)
        for one in moved:
            one.data = one.data.contiguous(memory_format=torch.channels_last)
        try:
            same = torch.allclose(answer_to(module, rows), before, rtol=1e-3, atol=1e-4)
            answer_to(module.train(learns), rows)
        except (RuntimeError, ValueError) as why:  # ValueError: a batch norm in training, and a single row
            log.info("%s: its channels stay first: %s", type(module).__name__, why)
            same = False
    if same:
        return moved
    put_back(moved)
    return ()


def put_back(moved: tuple[nn.Parameter, ...]) -> None:
    """Undo :func:`lay_out`."""
    for one in moved:
        one.data = one.data.contiguous()


def _movable(module: nn.Module) -> tuple[nn.Parameter, ...]:
    """The weights of convolutions on the CPU that lie with channels first."""
    weights = dict.fromkeys(module.get_submodule(path)._parameters["weight"] for path in channels_first(module))
    return tuple(one for one in weights if one is not None and one.device.type == "cpu")
