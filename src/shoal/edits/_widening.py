"""Widening: modules of other people that are built alike become one of the same form, its inner width their sum.

joined     weights that hold the inner width stand side by side along its axis
summed     biases of what reads the inner width add up
norm       behind such a matrix: s_i (W_i h_i + b_i) + t_i, added up, is one matrix [s_1 W_1, s_2 W_2 ...] behind
           which one norm stands. Its variance is the sum of what the norms gave out, as if they were unrelated;
           whatever it is, in eval the sum is exact
others     are the same in all, or the modules cannot become one
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from shoal.core.errors import Refused
from shoal.coupling.slicing import named_tensors

Joins = Sequence[Sequence[Any]]  # (weight, axis), by its name within a module
Pairs = Sequence[Sequence[str]]
COUNTER = "num_batches_tracked"


def widened(parts: Sequence[nn.Module], joins: Joins, sums: Sequence[str], norms: Pairs, counts: Pairs) -> nn.Module:
    """A new module; those given stay as they are. ``norms``: (matrix, batch norm behind it) that end a branch;
    ``counts``: (path, attribute) of what says how many inner units there are.

    Raises Refused where the modules are not alike.
    """
    each = [{name: tensor.detach() for name, tensor in named_tensors(part).items()} for part in parts]
    for part, own in zip(parts, each, strict=True):
        if type(part) is not type(parts[0]) or own.keys() != each[0].keys():
            raise Refused(f"{type(parts[0]).__name__} and {type(part).__name__} are not built alike")
    axes = {str(name): int(axis) for name, axis in joins}
    ends = tuple(f"{path}." for pair in norms for path in pair)
    made = {
        name: _one(name, [own[name] for own in each], axes.get(name), name in sums)
        for name in each[0]
        if not name.startswith(ends)
    }
    for matrix, norm in norms:
        made |= _through(matrix, [part.get_submodule(norm) for part in parts], each, axes, norm)
    wide = copy.deepcopy(parts[0])
    for path, module in wide.named_modules():
        for key, old in [*module._parameters.items(), *module._buffers.items()]:
            if old is not None:
                new = made[f"{path}.{key}".removeprefix(".")]
                kept = isinstance(old, nn.Parameter)
                setattr(module, key, nn.Parameter(new, requires_grad=old.requires_grad) if kept else new)
    for path, attribute in counts:
        numbers = [getattr(part.get_submodule(path), attribute) for part in parts]
        setattr(wide.get_submodule(path), attribute, sum(numbers))
    return wide


def _one(name: str, values: Sequence[Tensor], axis: int | None, summed: bool) -> Tensor:
    """A weight of the wide module."""
    if axis is not None:
        shapes = {tuple(size for i, size in enumerate(value.shape) if i != axis) for value in values}
        if len(shapes) != 1:
            raise Refused(f"{name}: its other axes differ, {[list(value.shape) for value in values]}")
        return torch.cat(list(values), dim=axis)
    if len({value.shape for value in values}) != 1:
        raise Refused(f"{name}: it is of shapes {[list(value.shape) for value in values]}, and holds no inner width")
    if summed:
        return torch.stack(list(values)).sum(dim=0)
    if not name.endswith(COUNTER) and any(not torch.equal(value, values[0]) for value in values):
        raise Refused(f"{name}: each has its own, and it neither holds the inner width nor stands behind the sum")
    return values[0].clone()


def _through(
    matrix: str, norms: Sequence[Any], each: Sequence[dict[str, Tensor]], axes: dict[str, int], path: str
) -> dict[str, Tensor]:
    """The matrices with what their norms scale taken in, side by side, and the norm behind them."""
    if any(norm.running_mean is None or norm.weight is None for norm in norms):
        raise Refused(f"{path}: keeps no statistics or has no weights of its own, so it is no affine map in eval")
    scales = [norm.weight.detach() / torch.sqrt(norm.running_var + norm.eps) for norm in norms]
    weights = [own[f"{matrix}.weight"] for own in each]
    scaled = [weight * scale.view(-1, *[1] * (weight.dim() - 1)) for weight, scale in zip(weights, scales, strict=True)]
    made = {f"{matrix}.weight": torch.cat(scaled, dim=axes[f"{matrix}.weight"])}
    if f"{matrix}.bias" in each[0]:
        biases = [own[f"{matrix}.bias"] * scale for own, scale in zip(each, scales, strict=True)]
        made[f"{matrix}.bias"] = torch.stack(biases).sum(dim=0)
    spread = torch.stack([norm.weight.detach().square() for norm in norms]).sum(dim=0)
    variance = (spread - norms[0].eps).clamp_min(0)
    means = [norm.running_mean * scale for norm, scale in zip(norms, scales, strict=True)]
    made[f"{path}.weight"] = torch.sqrt(variance + norms[0].eps)
    made[f"{path}.bias"] = torch.stack([norm.bias.detach() for norm in norms]).sum(dim=0)
    made[f"{path}.running_mean"] = torch.stack(means).sum(dim=0)
    made[f"{path}.running_var"] = variance
    if f"{path}.{COUNTER}" in each[0]:
        made[f"{path}.{COUNTER}"] = each[0][f"{path}.{COUNTER}"].clone()
    return made
