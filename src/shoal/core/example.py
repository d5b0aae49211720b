"""Example: what a module is run on, and how to run it without leaving a mark on it.

tensor                 module(tensor)
tuple                  module(*tuple)
dict of str            module(**dict)
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from shoal.core.errors import BadModel


def arguments(example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The positional and keyword arguments in an example, with its tensors copied: a module may write to its input.

    Raises BadModel when the example is not a tensor, a tuple or a dict with names as keys.
    """
    copied = tree_map_only(Tensor, lambda tensor: tensor.detach().clone(), example)
    if isinstance(copied, Tensor):
        return (copied,), {}
    if isinstance(copied, tuple):
        return copied, {}
    if isinstance(copied, dict) and all(isinstance(key, str) for key in copied):
        return (), copied
    raise BadModel(
        f"example of type {type(example).__name__}: a module cannot be run on it; "
        "give a tensor, a tuple of arguments or a dict of keyword arguments"
    )


def tensors(tree: Any) -> list[Tensor]:
    """The tensors in nested tuples, lists and dicts, in order."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def failed(module: nn.Module, error: Exception, doing: str = "does not run on its example", fix: str = "") -> BadModel:
    """The one line for a module that raised: its class, the first line of what it said, and the fix."""
    said = (str(error).strip() or type(error).__name__).splitlines()[0]
    fix = fix or "give an example of the shapes and types that its forward takes"
    return BadModel(f"{type(module).__name__} {doing}: {said}; {fix}")


def copy_of(module: nn.Module) -> nn.Module:
    """A deep copy, also where a run left tensors in parts of it that hang on weights, as weights normed in the way
    before parametrizations do: these are copied as they are."""
    every = [value for part in module.modules() for value in vars(part).values()]
    left = {id(value): value.detach().clone() for value in every if isinstance(value, Tensor) and not value.is_leaf}
    return copy.deepcopy(module, left)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode inside; afterwards the training flag of every submodule is what it was, one by one.

    A frozen script has no such flag, and an exported program stays in the mode that it was exported in. Raises BadModel
    for a module with lazy weights: running it would make them, and so change it.
    """
    if any(nn.parameter.is_lazy(tensor) for tensor in [*module.parameters(), *module.buffers()]):
        raise BadModel(f"{type(module).__name__}: it has lazy weights; run it once on an example before")
    flags = [(part, part.training) for part in module.modules() if hasattr(part, "training")]
    with suppress(NotImplementedError):  # an exported program
        module.eval()
    try:
        yield
    finally:
        for part, flag in flags:
            part.training = flag


@contextmanager
def unmarked(module: nn.Module) -> Iterator[None]:
    """:func:`evaluating`; buffers that the forward writes to, tensors that it keeps in parts of the module, and the
    random state are put back too."""
    before = [(buffer, buffer.detach().clone()) for buffer in module.buffers()]
    held = [(part, dict(vars(part))) for part in module.modules()]
    with evaluating(module), torch.random.fork_rng(devices=[]):
        versions = [buffer._version for buffer, _ in before]
        try:
            yield
        finally:
            with torch.no_grad():
                for (buffer, was), version in zip(before, versions, strict=True):
                    # batch norms write to theirs without counting it as a new version
                    if buffer._version != version or not torch.equal(buffer, was):
                        buffer.copy_(was)
            for part, old in held:
                _put_back(part, old)


def _put_back(part: nn.Module, before: dict[str, Any]) -> None:
    """The plain attributes that hold a tensor now, or held one, as they were."""
    now = vars(part)
    kept = [key for key, value in now.items() if isinstance(value, Tensor) and before.get(key) is not value]
    lost = [key for key, value in before.items() if isinstance(value, Tensor) and now.get(key) is not value]
    for key in {*kept, *lost}:
        if key in before:
            now[key] = before[key]
        else:
            del now[key]
