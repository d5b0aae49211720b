"""Matrices: which there are at a place, in a Net's spec or in any module, and how others take their place."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TypeAlias

import torch
from torch import Tensor, nn

from shoal.core.base import Linear
from shoal.core.errors import BadSetting, Refused
from shoal.core.part import Part
from shoal.core.spec import LayerSpec, Spec
from shoal.edits._surgery import submodule, with_stage
from shoal.kinds import LINEARS
from shoal.net import Layer

Matrix: TypeAlias = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
_KINDS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_LAYER = re.compile(r"stages\.(\d+)\.layers\.(\d+)(?:\.block\.(.+))?")


def layer_in(spec: Spec, path: str) -> tuple[int, int, str]:
    """(stage, layer, name) of a path in a Net: a layer, its name empty, or one matrix of its block. A layer may be
    visited several times. Refused where it is neither."""
    found = _LAYER.fullmatch(path)
    if not found:
        raise Refused(
            f"{path}: in a Net, name a layer, stages.0.layers.3, or a matrix of one, stages.0.layers.3.block.up"
        )
    stage, layer = int(found[1]), int(found[2])
    if stage >= len(spec.stages) or layer >= len(spec.stages[stage].layers):
        raise Refused(f"{path}: the spec has no such layer; it is {spec}")
    return stage, layer, found[3] or ""


def block_matrices(spec: Spec, stage: int, layer: int) -> dict[str, Linear]:
    """The matrices of a layer's block by name; shapes alone, without memory."""
    found = spec.stages[stage]
    ends = dict(zip(found.visits, found.ends(), strict=True))
    with torch.device("meta"):
        made = Layer(found.layers[layer], *ends[layer])
    return {name: part for name, part in made.block.named_modules() if isinstance(part, Linear)}


def part_of(spec: LayerSpec, name: str) -> Part:
    """The linear kind of one matrix of a layer."""
    return spec.linears.get(name, spec.linear)


def refitted(
    spec: Spec, weights: Mapping[str, Tensor], path: str, wanted: Callable[[str, Linear, Part], Part]
) -> tuple[Spec, dict[str, Tensor]]:
    """Spec and weights with the matrices at a path of other kinds, fitted to what they are now.

    ``wanted``: the new kind of a matrix by its path, the matrix and its kind; it raises Refused where there is none.
    """
    stage, index, name = layer_in(spec, path)
    old, matrices = spec.stages[stage].layers[index], block_matrices(spec, stage, index)
    if name and name not in matrices:
        raise Refused(f"{path}: no matrix of that name; the block has {', '.join(sorted(matrices)) or 'none'}")
    if not matrices:
        raise Refused(f"{path}: block {old.block.name} has no matrix")
    base = f"stages.{stage}.layers.{index}.block"
    parts: dict[str, Part] = {}
    new = dict(weights)
    for each in [name] if name else sorted(matrices):
        at, shape = f"{base}.{each}", matrices[each]
        parts[each] = wanted(at, shape, part_of(old, each))
        new = {key: value for key, value in new.items() if not key.startswith(f"{at}.")}
        now = _loaded(shape, part_of(old, each), weights, at)
        fitted = _made(shape, parts[each], at).to(now.matrix().dtype)
        fitted.fit(now.matrix().detach())
        if fitted.bias is not None and now.bias is not None:
            fitted.bias = now.bias
        new |= {f"{at}.{key}": value for key, value in fitted.state_dict().items()}
    layer = replace(old, linears={**old.linears, **parts})
    layers = spec.stages[stage].layers
    ends = dict(zip(spec.stages[stage].visits, spec.stages[stage].ends(), strict=True))
    if set(layer.linears) == set(matrices) and len(set(layer.linears.values())) == 1 and len(set(ends[index])) == 1:
        layer = replace(old, linear=next(iter(layer.linears.values())), linears={})  # the same, said once
    return with_stage(spec, stage, layers=(*layers[:index], layer, *layers[index + 1 :])), new


def _made(like: Linear, part: Part, path: str) -> Linear:
    try:
        made: Linear = LINEARS.make(part, like.inputs, like.outputs, like.bias is not None, like.kernel, like.groups)
    except BadSetting as why:
        raise Refused(f"{path}: {why}") from why
    return made


def _loaded(like: Linear, part: Part, weights: Mapping[str, Tensor], path: str) -> Linear:
    own = {key.removeprefix(f"{path}."): weights[key] for key in weights if key.startswith(f"{path}.")}
    made = _made(like, part, path).to(next(value.dtype for value in own.values() if value.is_floating_point()))
    made.load_state_dict({key: value.clone() for key, value in own.items()}, strict=True)
    return made


def matrices_in(module: nn.Module, path: str) -> list[tuple[str, Matrix]]:
    """The nn.Linear and convolutions at a path of any module, itself or within. Refused where there is none, or where
    another could not simply stand in the place of one."""
    found = submodule(module, path)
    kinds = [(f"{path}.{name}" if name and path else name or path, part) for name, part in found.named_modules()]
    matrices = [(at, part) for at, part in kinds if isinstance(part, _KINDS)]
    if not matrices:
        raise Refused(f"{path}: {type(found).__name__} is no nn.Linear or convolution, and has none within")
    for at, part in matrices:
        why = _why_not(module, at, part)
        if why:
            raise Refused(f"{at}: {why}")
    return matrices


def _why_not(module: nn.Module, path: str, part: Matrix) -> str:
    """Why nothing else can stand in the place of a matrix; empty where it can."""
    kind = next(kind for kind in _KINDS if isinstance(part, kind))
    if type(part).forward is not kind.forward:
        return f"{type(part).__name__} does more than the {kind.__name__} that it derives from"
    if part._forward_hooks or part._forward_pre_hooks:
        return "a hook stands on it, which would be lost; take it off first"
    if isinstance(submodule(module, path.rpartition(".")[0]), nn.MultiheadAttention):
        return "nn.MultiheadAttention reads its weights itself and does not call it"
    others = [name for name in _names(module, part.weight) if name != f"{path}.weight"]
    return (
        f"its weights are those of {others[0].rpartition('.')[0]} too; one change would change both" if others else ""
    )


def _names(module: nn.Module, parameter: Tensor) -> Iterator[str]:
    return (name for name, each in module.named_parameters(remove_duplicate=False) if each is parameter)
