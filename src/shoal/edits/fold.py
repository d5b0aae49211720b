"""Fold: norms that are affine in eval go into the matrices beside them, and a matrix behind a matrix into one.

    s (W x + b) + t = (s W) x + (s b + t)            batch norm behind a matrix or convolution
    V (W x + b) + c = (V W) x + (V b + c)            a chain of two matrices

Exact when the net is in eval: the statistics of the norms stand still
Papers   non-deep-networks
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from shoal.core.base import Edit
from shoal.core.errors import Refused
from shoal.core.part import Part
from shoal.core.spec import LayerSpec, Spec
from shoal.edits._absorb import absorb, absorb_back, why_not
from shoal.edits._surgery import PassThrough, layers_of, submodule, with_layers
from shoal.kinds import BLOCKS, NORMS
from shoal.net import Layer

Matrix = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d


@dataclass(frozen=True, kw_only=True)
class Fold(Edit):
    """Settings: `pairs` of paths, (matrix, norm or matrix that alone reads it); none for a Net: all that folds."""

    exact: ClassVar[bool] = True
    pairs: tuple[tuple[str, ...], ...] = ()

    def rewrite(self, spec: Spec, weights: Mapping[str, Tensor]) -> tuple[Spec, dict[str, Tensor]]:
        if self.pairs:
            raise Refused("fold: in a Net, all layers are folded at once; leave pairs empty")
        folded = False
        for index in range(len(spec.stages)):
            stage = spec.stages[index]
            layers = layers_of(spec, weights, index, range(len(stage.layers)))
            ends = dict(zip(stage.visits, stage.ends(), strict=True))
            new = [
                _folded(old, layer, ends[i]) for i, (old, layer) in enumerate(zip(stage.layers, layers, strict=True))
            ]
            if any(layer is not None for layer in new):
                folded = True
                chosen = [now or i for i, now in enumerate(new)]
                spec, weights = with_layers(spec, weights, index, chosen, stage.wiring)
        if not folded:
            raise Refused(f"fold: no norm of {spec} stands beside a matrix that could take it in")
        return spec, dict(weights)

    def apply(self, module: nn.Module) -> nn.Module:
        if not self.pairs:
            raise Refused("fold: no pairs given; anatomy(module, example).folds lists those that can go")
        for before, behind in self.pairs:
            first, second = submodule(module, before), submodule(module, behind)
            if isinstance(second, nn.Linear) and isinstance(first, nn.Linear):
                module.set_submodule(before, PassThrough())
                module.set_submodule(behind, _chained(first, second))
            elif isinstance(first, Matrix) and isinstance(second, BatchNorm):
                module.set_submodule(before, _with_norm(first, second, behind))
                module.set_submodule(behind, PassThrough())
            else:
                kinds = f"{type(first).__name__} and {type(second).__name__}"
                raise Refused(f"fold: {before} and {behind} are {kinds}; a matrix with a batch norm or a matrix goes")
        return module


def _with_norm(first: Matrix, norm: BatchNorm, path: str) -> nn.Module:
    if norm.running_mean is None:
        raise Refused(f"fold: {path} keeps no running statistics, so it is no affine map in eval")
    modes = first.training, norm.training
    first.eval()
    norm.eval()
    fused: nn.Module = (
        fuse_linear_bn_eval(first, norm) if isinstance(first, nn.Linear) else fuse_conv_bn_eval(first, norm)
    )
    first.train(modes[0])
    norm.train(modes[1])
    return fused.train(modes[0])


def _chained(first: nn.Linear, second: nn.Linear) -> nn.Linear:
    biased = first.bias is not None or second.bias is not None
    out = nn.Linear(first.in_features, second.out_features, bias=biased, dtype=first.weight.dtype)
    with torch.no_grad():
        out.weight.copy_(second.weight @ first.weight)
        if biased:
            shift = second.weight @ first.bias if first.bias is not None else 0
            out.bias.copy_(shift + (second.bias if second.bias is not None else 0))
    return out.train(second.training)


def _folded(spec: LayerSpec, layer: Layer, ends: tuple[int, int]) -> tuple[LayerSpec, Layer] | None:
    """The layer without its norms, or None where they cannot all go."""
    cls = BLOCKS.get(spec.block.name)
    if spec.norm_part.name == "none" or not NORMS.get(spec.norm_part.name).channelwise:
        return None
    into = [(layer.block.get_submodule(name), _beside(layer, ends_of)) for name, ends_of in cls.folds.items()]
    ahead = [(norm, ins) for norm, (ins, _) in into if ins]
    if layer.norm is not None:
        ahead.append((layer.norm, [layer.block.get_submodule(name) for name in cls.inlets]))
    if not (into or ahead) or any(why_not(norm, ins) for norm, ins in ahead):
        return None
    for norm, ins in ahead:
        absorb(norm, ins)
    for norm, (_, outs) in into:
        for linear in outs:
            absorb_back(norm, linear)
    settings = {"bias": True} if "bias" in spec.block.settings else {}
    flat = replace(spec, norm=Part("none"), block=spec.block.with_settings(**settings))
    new = Layer(flat, *ends).to(next(layer.parameters()).dtype).eval()
    state = layer.state_dict()
    new.load_state_dict({key: state[key] for key in new.state_dict()})
    return flat, new


def _beside(layer: Layer, ends: tuple[str, ...]) -> tuple[list[nn.Module], list[nn.Module]]:
    """The matrices that read a norm, and those that it follows."""
    found: dict[str, list[nn.Module]] = {"in": [], "out": []}
    for end in ends:
        name, _, side = end.partition(":")
        found[side].append(layer.block.get_submodule(name))
    return found["in"], found["out"]
