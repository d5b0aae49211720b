"""Judging: whether a module that was cut computes what it computed with zeros in their place.

It is run on a private copy, in float64 where the module runs in it, with every parameter moved a little: a branch that
begins at zero would hide whatever was done to it.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from shoal.core.errors import Refused
from shoal.core.example import arguments, tensors, unmarked
from shoal.coupling.slicing import Settings, Slices, cut, silenced

LITTLE = 1e-12
NEAR = {torch.float64: 1e-9, torch.float32: 1e-4}  # of the largest output; coarser types as float32's


class Judge:
    """Of one module in front of one example, neither of which is changed."""

    def __init__(self, module: nn.Module, example: Any) -> None:
        self.module, self.example = _shaken(copy.deepcopy(module)), example
        precise = copy.deepcopy(self.module).double()
        doubled = tree_map_only(Tensor, lambda t: t.double() if t.is_floating_point() else t, example)
        if not isinstance(_ran(precise, doubled), str):
            self.module, self.example = precise, doubled

    def wanted(self, slices: Slices) -> list[Tensor] | str:
        """What must come out, or what is raised with zeros there; with next to nothing where zeros divide zeros."""
        found = _ran(silenced(copy.deepcopy(self.module), slices), self.example)
        if isinstance(found, str) or all(bool(out.isfinite().all()) for out in found):
            return found
        return _ran(silenced(copy.deepcopy(self.module), slices, LITTLE), self.example)

    def why_not(self, slices: Slices, settings: Settings, wanted: list[Tensor] | str) -> str:
        """Why it cannot be cut so, in some words; empty where it can."""
        if isinstance(wanted, str):
            return f"with zeros there it does not run: {wanted}"
        try:
            narrow = cut(copy.deepcopy(self.module), slices, settings)
        except Refused as error:
            return str(error)
        found = _ran(narrow, self.example)
        if isinstance(found, str):
            return f"narrowed it does not run: {found}"
        return next((why for pair in zip(wanted, found, strict=True) if (why := _gap(*pair))), "")


def _ran(module: nn.Module, example: Any) -> list[Tensor] | str:
    """What a module gives, or the first line of what it raises."""
    args, kwargs = arguments(example)
    try:
        with unmarked(module), torch.no_grad():
            return tensors(module(*args, **kwargs))
    except Exception as error:  # whatever a stranger's forward raises is the answer
        return (str(error).strip() or type(error).__name__).splitlines()[0]


def _gap(wanted: Tensor, found: Tensor) -> str:
    """How two outputs differ; empty where they do not."""
    if wanted.shape != found.shape:
        return f"narrowed it gives {list(found.shape)} in place of {list(wanted.shape)}"
    if not wanted.is_floating_point() and not wanted.is_complex():
        return "" if torch.equal(wanted, found) else "narrowed it gives other whole numbers"
    if not bool(wanted.isfinite().all()):
        return "with zeros there its outputs are not finite"
    size, off = (float(each.abs().max()) if each.numel() else 0.0 for each in (wanted, wanted - found))
    near = NEAR.get(wanted.dtype, NEAR[torch.float32])
    return "" if off <= near * max(size, 1e-6) else f"narrowed it computes something else, off by {off / size:.1g}"


def _shaken(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.is_floating_point() or parameter.is_complex():
                noise = torch.randn(parameter.shape, generator=generator).to(parameter)
                parameter.add_(noise * (0.1 * parameter.abs().mean() + 0.02))
    return module
