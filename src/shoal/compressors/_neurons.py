"""Neurons: the units of a width, each as what it reads with and what it gives with, the norm between folded in.

    y = sum_i columns_i act( rows_i x + shifts_i )        rows and shifts: one for every matrix that makes the units

So a layer is a sum of neurons, and neurons may be put together, averaged and permuted, whatever layer they come from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from shoal.compressors._products import Product
from shoal.compressors._units import Units, bias_of, weight_of
from shoal.core.base import Norm
from shoal.core.spec import LayerSpec
from shoal.kinds import BLOCKS, NORMS
from shoal.net import Net


class Neurons(NamedTuple):
    """``rows``: (units, columns) a maker; ``shifts``: (units,) a maker; ``columns``: (units, outputs * places) of the
    reader. All float64."""

    rows: tuple[Tensor, ...]
    shifts: tuple[Tensor, ...]
    columns: Tensor

    def flat(self) -> Tensor:
        """(units, all that is said of one)."""
        return torch.cat((*self.rows, *(shift[:, None] for shift in self.shifts), self.columns), dim=1)

    def like(self, flat: Tensor) -> Neurons:
        """The inverse of :meth:`flat`, for any number of units."""
        sizes = [part.shape[1] for part in self.rows] + [1] * len(self.shifts) + [self.columns.shape[1]]
        parts = flat.split(sizes, dim=1)
        many = len(self.rows)
        return Neurons(parts[:many], tuple(part.squeeze(1) for part in parts[many:-1]), parts[-1])


def is_sum(module: nn.Module, units: Units) -> bool:
    """Whether a width is such a sum: one reader, single channels, and a norm only right behind the one maker."""
    if units.each > 1 or len(units.readers) != 1 or units.others:
        return False
    if not units.norms:
        return True
    names = [path.rpartition(".block.")[2] for path in (*units.norms, *units.makers)]
    folds = BLOCKS.get(layer_spec(module, units).block.name).folds
    return len(names) == 2 and folds.get(names[0]) == (f"{names[1]}:out",)


def layer_spec(module: nn.Module, units: Units) -> LayerSpec:
    """The spec of a Net's layer."""
    assert isinstance(module, Net)
    stage, layer = (int(word) for word in units.path.split(".")[1::2])
    return module.spec.stages[stage].layers[layer]


def neurons_of(module: nn.Module, units: Units) -> Neurons:
    """The neurons of a width that is such a sum, in eval."""
    scale, shift = torch.ones(units.count).double(), torch.zeros(units.count).double()
    for path in units.norms:
        norm = module.get_submodule(path)
        assert isinstance(norm, Norm)
        scale, shift = (part.detach().cpu().double() for part in norm.affine())
    biases = [bias_of(module, path) for path in units.makers]
    return Neurons(
        tuple(weight_of(module, path).double().flatten(1) * scale[:, None] for path in units.makers),
        tuple(shift if bias is None else bias.double() * scale + shift for bias in biases),
        weight_of(module, units.readers[0]).double().transpose(0, 1).flatten(1),
    )


def weights_for(module: nn.Module, units: Units, neurons: Neurons, seen: Mapping[str, Product]) -> dict[str, Tensor]:
    """The values that make a layer of these neurons once it has as many units; the norm stays and is set such that in
    training it does the same, by what the maker reads (``seen``)."""
    found: dict[str, Tensor] = {}
    for path, rows, shifts in zip(units.makers, neurons.rows, neurons.shifts, strict=True):
        weight, bias = weight_of(module, path), bias_of(module, path)
        found[f"{path}.weight"] = rows.reshape(-1, *weight.shape[1:]).to(weight)
        rest = shifts
        for norm in units.norms:
            own = _norm(layer_spec(module, units), rows, shifts, seen[path])
            found |= {f"{norm}.{name}": value.to(weight) for name, value in own.items()}
            rest = torch.zeros_like(shifts) if "bias" in own else shifts
        if bias is not None:
            found[f"{path}.bias"] = rest.to(bias)
    reader = weight_of(module, units.readers[0])
    columns = neurons.columns.reshape(len(neurons.columns), len(reader), *reader.shape[2:])
    found[f"{units.readers[0]}.weight"] = columns.transpose(0, 1).to(reader)
    return found


def _norm(spec: LayerSpec, rows: Tensor, shifts: Tensor, product: Product) -> dict[str, Tensor]:
    """What is in a norm that passes on what the rows give and adds the shifts; its statistics are those of the rows."""
    norm: Norm = NORMS.make(spec.norm_part, len(rows), dim=len(rows)).double().eval()
    state: dict[str, Tensor] = norm.state_dict()  # its tensors are the norm's own
    if "running_mean" in state:
        gave = product.x.double().flatten(1) @ rows.T
        state["running_mean"].copy_(gave.mean(dim=0))
        state["running_var"].copy_(gave.var(dim=0, correction=0))
    norm.neutral()
    if "bias" in state:
        state["bias"].add_(shifts)
    return state
