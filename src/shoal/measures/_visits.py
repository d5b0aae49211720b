"""Visits: hooks around every visited span, and runs in which gradients flow; all is taken back afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

from shoal.core.example import arguments, tensors
from shoal.core.scene import Scene
from shoal.core.spans import Visit

Before: TypeAlias = Callable[[Visit, Tensor], None]
After: TypeAlias = Callable[[Visit, Tensor], Tensor | None]


def hooked(stack: ExitStack, scene: Scene, before: Before, after: After) -> None:
    """Until the stack is closed: ``before(visit, main input)`` and ``after(visit, main output)`` at every visit.

    A tensor that ``after`` gives takes the place of the main output.
    """
    count: dict[str, int] = {}
    wanted = {span.at for span in scene.spans}

    def hook(path: str, part: nn.Module) -> None:
        def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            visit = Visit(path, count.get(path, 0))
            count[path] = visit.number + 1
            if visit in wanted:
                before(visit, tensors((args, kwargs))[0])

        def leave(_: nn.Module, args: tuple[Any, ...], out: Any) -> Any:
            visit = Visit(path, count[path] - 1)
            found = after(visit, tensors(out)[0]) if visit in wanted else None
            return None if found is None else _instead(out, found)  # None: it stays

        stack.callback(part.register_forward_pre_hook(enter, with_kwargs=True).remove)
        stack.callback(part.register_forward_hook(leave).remove)

    stack.callback(scene.module.register_forward_pre_hook(lambda *_: count.clear()).remove)
    for path in sorted({span.path for span in scene.spans}):
        hook(path, scene.module.get_submodule(path))


def _instead(out: Any, found: Tensor) -> Any:
    """An output with another first tensor."""
    leaves, shape = tree_flatten(out)
    at = next(i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor))
    return tree_unflatten([*leaves[:at], found, *leaves[at + 1 :]], shape)


@contextmanager
def requiring(module: nn.Module, wanted: bool) -> Iterator[None]:
    """Gradients on, and wanted of all weights or of none; afterwards every weight's flag is what it was."""
    flags = [(weight, weight.requires_grad) for weight in module.parameters() if weight.is_floating_point()]
    try:
        for weight, _ in flags:
            weight.requires_grad_(wanted)
        with torch.enable_grad():
            yield
    finally:
        for weight, flag in flags:
            weight.requires_grad_(flag)


def traced(example: Any) -> tuple[tuple[Any, ...], dict[str, Any], Tensor | None]:
    """Arguments and keywords whose first tensor of numbers has a gradient, and that tensor; None where there is none.

    The module gets a copy of it, to which it may write.
    """
    given = arguments(example)
    leaf = next((tensor for tensor in tensors(given) if tensor.is_floating_point()), None)
    if leaf is not None:
        leaf.requires_grad_()
        given = tree_map_only(Tensor, lambda tensor: tensor.clone() if tensor is leaf else tensor, given)
    return (*given, leaf)
