"""Students: parts of a Net put in the place of others, their weights drawn anew and all others as they were."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from shoal.core.errors import BadSetting, BadSpec, Refused
from shoal.core.spec import Exit, Spec
from shoal.edits._net_folding import lenders
from shoal.edits._surgery import layer_at
from shoal.net import Net

DATA = ("features", "channels", "vocabulary")  # settings of a stem that the data sets


def fresh_net(spec: Spec, seed: int) -> Net:
    """A net whose weights are drawn from the seed alone; the caller's random numbers are not moved."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return Net(spec)


def replaced_all(spec: Spec, new: Spec, weights: Mapping[str, Tensor], seed: int) -> tuple[Spec, dict[str, Tensor]]:
    """The new net in the place of the old; an open one takes stem and head from it."""
    new = replace(new, stem=new.stem or spec.stem, head=new.head or spec.head)
    assert spec.stem is not None
    assert new.stem is not None
    assert spec.head is not None
    assert new.head is not None
    pairs = [(name, spec.stem, new.stem) for name in DATA] + [("outputs", spec.head, new.head)]
    for name, old, part in pairs:
        values = [each.settings[name] for each in (old, part) if name in each.settings]
        if len(set(values)) > 1:
            raise Refused(f"{new}: {name} is {values[1]} there and {values[0]} here; the same data must go through")
    return new, _as(fresh_net(new, seed).state_dict(), weights)


def replaced_stage(
    spec: Spec, new: Spec, weights: Mapping[str, Tensor], index: int, seed: int
) -> tuple[Spec, dict[str, Tensor]]:
    """New stages in the place of one; the join before it stays."""
    path = f"stages.{index}"
    if index >= len(spec.stages):
        raise Refused(f"{path}: the spec has no such stage; it is {spec}")
    if new.stem is not None or new.head is not None or new.exits:
        raise Refused(f"{path}: {new} has ends; a stage becomes stages alone, as in residual(mlp) 2x32")
    if any(one.stage == index for one in spec.exits):
        raise Refused(f"{path}: it has exits, and nothing says where they go; take them out of the spec first")
    old, more = spec.stages[index], len(new.stages) - 1
    lent = lenders(spec, index)
    ends = (new.stages[0].layers[0].norm, new.stages[-1].layers[-1].norm)
    if lent and ends != (old.layers[0].norm, old.layers[-1].norm):
        raise Refused(
            f"{path}: the kind of its norms is that of what stands beside it; give the same, norm={old.layers[0].norm}"
        )
    first = replace(new.stages[0], join=old.join)
    exits = tuple(replace(one, stage=one.stage + more) if one.stage > index else one for one in spec.exits)
    stages = (*spec.stages[:index], first, *new.stages[1:], *spec.stages[index + 1 :])

    def was(key: str) -> str | None:
        words = key.split(".")
        if words[0] != "stages" or int(words[1]) < index:
            return key
        if int(words[1]) > index + more:
            return ".".join((words[0], str(int(words[1]) - more), *words[2:]))
        return key if int(words[1]) == index and words[2] == "join" else None

    return _beside(spec, Spec(stages, spec.stem, spec.head), exits, weights, was, path, seed)


def replaced_layer(
    spec: Spec, new: Spec, weights: Mapping[str, Tensor], path: str, seed: int
) -> tuple[Spec, dict[str, Tensor]]:
    """The only layer of the new spec in the place of one."""
    index, number = layer_at(spec, path)
    if len(new.stages) != 1 or len(new.stages[0].layers) != 1 or not new.open:
        raise Refused(f"{path}: {new} is not one layer; a layer becomes that of plain(mlp) 1x{spec.stages[index].dim}")
    layers, layer = spec.stages[index].layers, new.stages[0].layers[0]
    if number in lenders(spec, index) and layer.norm != layers[number].norm:
        raise Refused(
            f"{path}: the kind of its norm is that of what stands beside the stage; give norm={layers[number].norm}"
        )
    stage = replace(spec.stages[index], layers=(*layers[:number], layer, *layers[number + 1 :]))
    stages = (*spec.stages[:index], stage, *spec.stages[index + 1 :])

    def was(key: str) -> str | None:
        return None if key.startswith(f"{path}.") else key

    return _beside(spec, Spec(stages, spec.stem, spec.head), spec.exits, weights, was, path, seed)


def _beside(
    spec: Spec,
    bare: Spec,
    exits: tuple[Exit, ...],
    weights: Mapping[str, Tensor],
    was: Callable[[str], str | None],
    path: str,
    seed: int,
) -> tuple[Spec, dict[str, Tensor]]:
    """The spec with its exits, fresh weights where ``was`` gives no old name, and the old ones everywhere else."""
    try:
        new = replace(bare, exits=exits)
        made = fresh_net(new, seed).state_dict()
    except (BadSpec, BadSetting) as why:
        raise Refused(f"{path}: {why}") from why
    found = _as(made, weights)
    for key in made:
        before = was(key)
        if before is None:
            continue
        if before not in weights or weights[before].shape != made[key].shape:
            raise Refused(f"{path}: {key} stands beside it and would be of another width; keep the widths at its ends")
        found[key] = weights[before]
    return new, found


def _as(made: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Fresh weights in the numbers of the old ones."""
    dtype = next(value.dtype for value in weights.values() if value.is_floating_point())
    return {key: value.to(dtype) if value.is_floating_point() else value for key, value in made.items()}
