"""Narrowing within a Net: one layer with fewer units of a width that its block declares.

A unit is a row of some matrices and a column of others, or as many as it has channels (a head). Where an axis holds
several settings, such as the units of each expert, the first that the block declares counts slowest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from shoal.core.base import Linear, Norm
from shoal.core.errors import BadSetting, Refused, suggest
from shoal.core.spec import LayerSpec
from shoal.kinds import BLOCKS
from shoal.net import Layer


def units_of(spec: LayerSpec, width: str) -> int:
    """How many units a layer has of a width."""
    units = spec.block.settings[width]
    assert isinstance(units, int)
    return units


def units_along(spec: LayerSpec, block: nn.Module, width: str) -> dict[str, Tensor]:
    """For every end that a width sizes, such as "up:out": the unit that each position along it belongs to."""
    widths = BLOCKS.get(spec.block.name).widths
    found: dict[str, Tensor] = {}
    for end in widths[width]:
        size, outer = _size(block, end), 1
        for before in list(widths)[: list(widths).index(width)]:
            outer *= units_of(spec, before) if end in widths[before] else 1
        units = torch.arange(units_of(spec, width), device="cpu")
        found[end] = units.view(1, -1, 1).expand(outer, -1, size // (outer * len(units))).flatten()
    return found


def narrowed_layer(
    path: str, spec: LayerSpec, layer: Layer, ends: tuple[int, int], width: str, keep: Sequence[int]
) -> tuple[LayerSpec, Layer]:
    """The layer with those units alone. Refused where its block has no such width or cannot be built so."""
    cls = BLOCKS.get(spec.block.name)
    if width not in cls.widths:
        raise Refused(f"{path}: block {spec.block.name} has no width {width!r}; {suggest(width, cls.widths)}")
    units = units_of(spec, width)
    if not keep or list(keep) != sorted(set(keep)) or keep[0] < 0 or keep[-1] >= units:
        raise Refused(f"{path}: keep must name some {width} from 0 to {units - 1}, each once and in order")
    if len(keep) == units:
        raise Refused(f"{path}: keep names all {units} {width}; leave some out")
    narrow = replace(spec, block=spec.block.with_settings(**{width: len(keep)}))
    try:
        new = Layer(narrow, *ends).to(next(layer.parameters()).dtype).eval()
    except BadSetting as error:
        raise Refused(f"{path}: with {len(keep)} of its {units} {width} it cannot be built: {error}") from error
    staying = torch.tensor(keep, device="cpu")
    along = units_along(spec, layer.block, width).items()
    _fill(path, layer, new, {end: torch.isin(of, staying).nonzero().flatten() for end, of in along})
    return narrow, new


def _size(block: nn.Module, end: str) -> int:
    """How many positions there are at "linear:out", "linear:in" or "norm:dim"."""
    name, _, side = end.partition(":")
    part = block.get_submodule(name)
    if isinstance(part, Linear):
        return part.outputs if side == "out" else part.inputs
    return max(value.shape[0] for value in part.state_dict().values() if value.dim())


def _fill(path: str, old: Layer, new: Layer, kept: dict[str, Tensor]) -> None:
    """Give the new layer the weights of the old, of each end in ``kept`` those at its positions alone."""
    state = new.state_dict()
    sized = {end.partition(":")[0] for end in kept}
    for name, part in old.block.named_modules():
        narrow = new.block.get_submodule(name)
        if name not in sized:
            continue
        if isinstance(part, Linear) and isinstance(narrow, Linear):
            _linear(f"{path}.{name}", part, narrow, kept.get(f"{name}:out"), kept.get(f"{name}:in"))
        elif isinstance(part, Norm) and isinstance(narrow, Norm):
            _norm(part, narrow, kept[f"{name}:dim"])
    for key, value in old.state_dict().items():
        if any(key.startswith(f"block.{name}.") for name in sized):
            continue
        if state[key].shape != value.shape:
            raise Refused(f"{path}: {key} has that width too, and its block does not say which of it belongs to a unit")
        state[key].copy_(value)


def _linear(path: str, old: Linear, new: Linear, rows: Tensor | None, columns: Tensor | None) -> None:
    """The matrix between the inputs and outputs that stay; a group reads its own inputs, and all stay alike."""
    device, groups = old.matrix().device, old.groups
    outs = torch.arange(old.outputs) if rows is None else rows
    ins = torch.arange(old.inputs) if columns is None else columns
    within = []
    for kept, size in ((outs, old.outputs // groups), (ins, old.inputs // groups)):
        if len(kept) % groups or not torch.equal(
            kept // size, torch.arange(groups).repeat_interleave(len(kept) // groups)
        ):
            raise Refused(f"{path}: it works in {groups} groups; keep as many units of each")
        within.append((kept % size).view(groups, -1).to(device))
    whole = old.matrix().detach().view(groups, old.outputs // groups, old.inputs // groups, -1)
    parts = [one[out][:, into] for one, out, into in zip(whole, *within, strict=True)]
    new.fit(torch.cat(parts).flatten(1))
    if old.bias is not None and new.bias is not None:
        with torch.no_grad():
            new.bias.copy_(old.bias[outs.to(device)])


def _norm(old: Norm, new: Norm, kept: Tensor) -> None:
    state = {key: value[kept.to(value.device)] if value.dim() else value for key, value in old.state_dict().items()}
    new.load_state_dict(state, strict=True)
