"""Fold: norms that are affine in eval go into the matrices beside them, and a matrix behind a matrix into one.

    s (W x + b) + t = (s W) x + (s b + t)            batch norm behind a matrix or convolution
    V (W x + b) + c = (V W) x + (V b + c)            a chain of two matrices
    relu relu x = relu x                             where what stood between them has gone

In a Net, a block or a join that says itself what it is in eval (``rep``) becomes that. Of a stranger, what a dropped
span left in a Sequential goes too: calling what does nothing takes time.

Exact when the net is in eval: the statistics of the norms stand still
Papers   non-deep-networks
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from shoal.core.base import Edit
from shoal.core.errors import Refused
from shoal.core.spec import Spec
from shoal.edits._net_folding import folded_join, folded_layer, lenders
from shoal.edits._surgery import PassThrough, layers_of, submodule, with_layers

Matrix = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d
CLIPPED = (nn.ReLU, nn.ReLU6)


@dataclass(frozen=True, kw_only=True)
class Fold(Edit):
    """Settings: `pairs` of paths, (matrix, norm or matrix that alone reads it) or (activation, the same again); `idle`,
    paths of what then passes its input on in a Sequential that runs as a whole. None for a Net: all that folds."""

    exact: ClassVar[bool] = True
    pairs: tuple[tuple[str, ...], ...] = ()
    idle: tuple[str, ...] = ()

    def rewrite(self, spec: Spec, weights: Mapping[str, Tensor]) -> tuple[Spec, dict[str, Tensor]]:
        if self.pairs or self.idle:
            raise Refused("fold: in a Net, all layers are folded at once; leave pairs and idle empty")
        folded = False
        for index in range(len(spec.stages)):
            stage = spec.stages[index]
            joined = folded_join(spec, weights, index)
            if joined is not None:
                folded = True
                spec, weights = joined
                stage = spec.stages[index]
            if stage.own_norms:
                continue  # one matrix cannot take in the norms of several visits
            layers = layers_of(spec, weights, index, range(len(stage.layers)))
            ends, kept = dict(zip(stage.visits, stage.ends(), strict=True)), lenders(spec, index)
            new = [
                None if i in kept else folded_layer(old, layer, ends[i])
                for i, (old, layer) in enumerate(zip(stage.layers, layers, strict=True))
            ]
            if any(layer is not None for layer in new):
                folded = True
                chosen = [now or i for i, now in enumerate(new)]
                spec, weights = with_layers(spec, weights, index, chosen, stage.wiring)
        if not folded:
            raise Refused(f"fold: no norm of {spec} stands beside a matrix that could take it in")
        return spec, dict(weights)

    def apply(self, module: nn.Module) -> nn.Module:
        if not (self.pairs or self.idle):
            raise Refused("fold: no pairs given; anatomy(module, example).folds lists those that can go")
        for before, behind in self.pairs:
            first, second = submodule(module, before), submodule(module, behind)
            if isinstance(second, nn.Linear) and isinstance(first, nn.Linear):
                module.set_submodule(before, PassThrough())
                module.set_submodule(behind, _chained(first, second))
            elif isinstance(first, Matrix) and isinstance(second, BatchNorm):
                module.set_submodule(before, _with_norm(first, second, behind))
                module.set_submodule(behind, PassThrough())
            elif type(first) is type(second) and type(first) in CLIPPED:
                module.set_submodule(behind, PassThrough())
            else:
                kinds = f"{type(first).__name__} and {type(second).__name__}"
                raise Refused(f"fold: {before} and {behind} are {kinds}; a matrix with a batch norm or a matrix goes")
        for path in self.idle:
            holder, _, name = path.rpartition(".")
            row = submodule(module, holder)
            if type(row) is not nn.Sequential or type(submodule(module, path)) is not PassThrough:
                raise Refused(
                    f"fold: {path} is not idle in a Sequential; only what passes its input on can be left out"
                )
            delattr(row, name)  # the others keep their names
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
