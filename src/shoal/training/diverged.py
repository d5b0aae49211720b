"""Diverged: where the first number that is not finite came from, found by running the batch again.

Looked at in this order: the batch, the parameters, the output of each module, the loss, the gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from shoal.core.inputs import Inputs
from shoal.training.state import copied, fill, tensors_of


def whence(net: nn.Module, x: Inputs, y: Tensor, again: Callable[[], Tensor]) -> tuple[str, str]:
    """(where, the fix): what was first not finite, and what to do. `again` computes the loss; the net stays as is."""
    for value, name in ((x, "inputs"), (y, "targets")):
        if not all(_finite(each) for each in _tensors(value)):
            return f"in the {name} of the batch", f"clean the {name} of the data"
    for name, parameter in net.named_parameters():
        if not _finite(parameter):
            return f"in the parameter {name}", "lower lr, or start from finite weights"
    slower = "lower lr, set clip=1.0, or use precision=float32"
    before, found = copied(tensors_of(net)), list[str]()
    with ExitStack() as hooks, torch.no_grad():
        for name, module in net.named_modules():
            hook = module.register_forward_hook(partial(_note, name or type(net).__name__, found))
            hooks.callback(hook.remove)
        loss = again()
    fill(tensors_of(net), before, "net")
    if found:
        return f"in the output of {found[0]}", slower
    if not _finite(loss):
        return "in the loss, from finite outputs", f"check the objective, or {slower}"
    for name, parameter in net.named_parameters():
        if parameter.grad is not None and not _finite(parameter.grad):
            return f"in the gradient of {name}", slower
    return "in the norm of the gradient", slower


def _note(name: str, found: list[str], _module: nn.Module, _inputs: Any, output: Any) -> None:
    if not found and not all(_finite(value) for value in _tensors(output)):
        found.append(name)


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, dict):
        for value in output.values():
            yield from _tensors(value)
    elif isinstance(output, tuple | list):
        for value in output:
            yield from _tensors(value)


def _finite(value: Tensor) -> bool:
    return not value.is_floating_point() or bool(torch.isfinite(value).all())
