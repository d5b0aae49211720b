"""Slicing: weights and buffers of a module cut down to some of their indices, and the numbers that follow from it.

    slices      (weight, axis, its size, what stays of it)          weight: its name in the module
    settings    (path of a module, attribute, new value)            such as ("fc1", "out_features", 32)

All is looked at before anything is changed. A weight that several modules share is cut once and stays shared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from shoal.core.errors import Refused
from shoal.coupling.heads import Heads, why_no_heads

Slices = Sequence[Sequence[Any]]
Settings = Sequence[Sequence[Any]]


def cut(module: nn.Module, slices: Slices, settings: Settings) -> nn.Module:
    """The module, changed in place. Refused, and nothing changed, where a slice or a setting does not fit it."""
    named = named_tensors(module)
    wanted: dict[int, list[tuple[int, list[int]]]] = {}  # by the tensor, so that a shared one is cut once
    seen: set[tuple[int, int]] = set()
    for name, axis, size, kept in slices:
        _check(named, name, axis, size, kept)
        if (id(named[name]), axis) not in seen:
            seen.add((id(named[name]), axis))
            wanted.setdefault(id(named[name]), []).append((axis, list(kept)))
    for path, attribute, _ in settings:
        if not hasattr(_part(module, path), attribute):
            raise Refused(f"{path or 'the module'}: it has no attribute {attribute!r}; the edit was made for another")
    fewer = _attention(module, slices)
    made = {key: _narrow(_find(named, key), axes) for key, axes in wanted.items()}
    for path, heads in fewer.items():
        module.set_submodule(path, heads)
    for part in module.modules():
        for key, value in [*part._parameters.items(), *part._buffers.items()]:
            if id(value) in made:
                setattr(part, key, made[id(value)])
    for path, attribute, value in settings:
        setattr(_part(module, path), attribute, value)
    return module


def named_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer by each of its names."""
    both = (module.named_parameters(remove_duplicate=False), module.named_buffers(remove_duplicate=False))
    return {name: tensor for each in both for name, tensor in each}


def silenced(module: nn.Module, slices: Slices, factor: float = 0.0) -> nn.Module:
    """The module with zeros where :func:`cut` would cut parameters, in place: what must come out the same.

    ``factor``: what they are multiplied with, where a norm of zeros has no direction.
    """
    parameters = dict(module.named_parameters(remove_duplicate=False))
    for name, axis, size, kept in slices:
        if name in parameters:
            gone = torch.ones(size, dtype=torch.bool, device=parameters[name].device)
            gone[list(kept)] = False
            with torch.no_grad():
                parameters[name].movedim(axis, 0)[gone] *= factor
    return module


def _check(named: dict[str, Tensor], name: str, axis: int, size: int, kept: Sequence[int]) -> None:
    if name not in named:
        raise Refused(f"{name}: there is no such weight in the module; the edit was made for another")
    shape = tuple(named[name].shape)
    if not 0 <= axis < len(shape) or shape[axis] != size:
        raise Refused(f"{name}: the edit was made for {size} at axis {axis} and it is {list(shape)}; propose it anew")
    if not kept or list(kept) != sorted(set(kept)) or kept[0] < 0 or kept[-1] >= size:
        raise Refused(f"{name}: what stays of axis {axis} must be some of 0 to {size - 1}, each once and in order")


def _part(module: nn.Module, path: str) -> nn.Module:
    try:
        return module.get_submodule(path)
    except AttributeError:
        raise Refused(f"{path}: there is no such module; the edit was made for another") from None


def _find(named: dict[str, Tensor], key: int) -> Tensor:
    return next(tensor for tensor in named.values() if id(tensor) == key)


def _narrow(old: Tensor, axes: Sequence[tuple[int, list[int]]]) -> Tensor:
    new = old.detach()
    for axis, kept in axes:
        new = new.index_select(axis, torch.tensor(kept, device=new.device))
    last = old.dim() == 4 and old.is_contiguous(memory_format=torch.channels_last) and not old.is_contiguous()
    new = new.contiguous(memory_format=torch.channels_last) if last else new.contiguous()
    return nn.Parameter(new, requires_grad=old.requires_grad) if isinstance(old, nn.Parameter) else new


def _attention(module: nn.Module, slices: Slices) -> dict[str, nn.Module]:
    """What takes the place of each attention of torch that loses heads: its own forward takes no inner width."""
    cuts = {name for name, axis, _, _ in slices if axis == 0}
    found: dict[str, nn.Module] = {}
    for path, part in module.named_modules():
        if type(part) is nn.MultiheadAttention and f"{path}.in_proj_weight".removeprefix(".") in cuts:
            why = why_no_heads(part) if path else "it is the whole module, and another class would take its place"
            if why:
                raise Refused(f"{path or 'the module'}: it cannot lose heads; {why}")
            found[path] = Heads(part)
    return found
