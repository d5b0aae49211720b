"""Untouched: a module after any runs, bit for bit as it was before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from shoal.core.errors import BadModel
from shoal.costing.counting.storage import plain


@contextmanager
def untouched(module: nn.Module) -> Iterator[None]:
    """Afterwards weights, buffers, training flags and random states are what they were, one by one.

    Batch norms write to their statistics, a forward pass may put another tensor in a buffer's place, dropout draws.
    Raises BadModel for a module with lazy weights: running it would make them.
    """
    held = [*module.parameters(), *module.buffers()]
    if any(nn.parameter.is_lazy(tensor) for tensor in held):
        raise BadModel(f"{type(module).__name__}: it has lazy weights; run it once on an example before")
    scripted = (torch.jit.ScriptModule,)  # they let nobody put another tensor in its place; frozen ones have no flag
    parts = [part for part in module.modules() if not isinstance(part, scripted)]
    places = [(part, dict(part._parameters), dict(part._buffers)) for part in parts]
    flags = [(part, part.training) for part in module.modules() if hasattr(part, "training")]
    real = [part for part in plain(held) if part.layout is torch.strided and not part.is_meta]
    before = [(tensor, tensor.detach().clone()) for tensor in real]
    devices = sorted({tensor.get_device() for tensor in held if tensor.is_cuda})
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            for part, parameters, buffers in places:
                part._parameters.update(parameters)
                part._buffers.update(buffers)
            for part, flag in flags:
                part.training = flag
            with torch.no_grad():
                for tensor, old in before:
                    if not torch.equal(tensor, old):  # versions do not tell: batch norms do not raise theirs
                        tensor.copy_(old)


def turn(module: nn.Module, training: bool) -> None:
    """Into training mode or eval mode; frozen scripts and exported programs know only one, and stay in it."""
    if not hasattr(module, "training"):
        return
    try:
        module.train(training)
    except NotImplementedError:  # what an exported program says to that
        return
