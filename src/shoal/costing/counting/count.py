"""Count: what a module executes, found by running it once and looking at every operation.

Nothing is read from the classes of layers, so functional code, shared layers, early exits and layers that are never
reached cost exactly what they execute. What fuses operations hides them, and is switched off while counting: the fast
paths of torch's transformer layers, torch.compile, TorchScript's optimiser. What goes past torch altogether (NumPy, a
kernel called without torch's dispatcher) is not seen; modules called in another thread, and scripts that hold such
kernels, are named.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from shoal.core.example import arguments, failed, tensors
from shoal.costing.counting.lookout import eager
from shoal.costing.counting.memory import training_peak
from shoal.costing.counting.storage import stored_bytes
from shoal.costing.counting.untouched import turn, untouched
from shoal.costing.counting.watch import Watch
from shoal.costing.table import Cost, Peak


def cost(module: nn.Module, example: Any, *, training: bool = True) -> Cost:
    """Parameters, multiply-adds, bytes and depth of one run of a module; the module is left as it was.

    `example` is a tensor, a tuple of arguments or a dict of keyword arguments. It runs in eval mode without gradients,
    and once more in training mode for the memory that takes, unless `training` is False. A module whose weights are on
    the meta device runs there and computes nothing; one with real weights runs for real, so that what depends on the
    data is counted as it is.
    Raises BadModel when the module does not run on the example.

        cost(nn.Linear(8, 4), torch.zeros(2, 8)).macs      # 64
    """
    example = _placed(module, example)
    with untouched(module):
        watch, out = _watched(module, example)
        kept, reason = training_peak(module, example) if training else (None, "not asked for")
    parameters = list(module.parameters())
    depth = watch.flow.depth(out) if tensors(out) else watch.flow.deepest()
    return Cost(
        params=sum(tensor.numel() for tensor in parameters),
        trainable=sum(tensor.numel() for tensor in parameters if tensor.requires_grad),
        buffers=sum(tensor.numel() for tensor in module.buffers()),
        macs=sum(visit.macs for visit in watch.visits),
        flops=sum(visit.flops for visit in watch.visits),
        bytes=stored_bytes(module),
        activation_bytes=Peak(watch.alive.peak, kept, reason),
        depth=depth or 0,
        module_calls=len(watch.visits),
        calls=tuple(watch.calls()),
        operations=tuple(watch.operations),
        uncounted=tuple(watch.uncounted),
    )


def _placed(module: nn.Module, example: Any) -> Any:
    """The example on the meta device where the module is: then shapes are followed and nothing is computed."""
    held = [*module.parameters(), *module.buffers()]
    if not held or not all(tensor.is_meta for tensor in held):
        return example
    return tree_map_only(Tensor, lambda tensor: tensor.to("meta"), example)


def _watched(module: nn.Module, example: Any) -> tuple[Watch, Any]:
    """What a run showed, and what it gave."""
    args, kwargs = arguments(example)
    turn(module, training=False)
    watch = Watch(module, (args, kwargs))
    try:
        with torch.no_grad(), eager():
            return watch, watch.run(args, kwargs)
    except Exception as error:
        raise failed(module, error) from error
