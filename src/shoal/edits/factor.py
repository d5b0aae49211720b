"""Factor: a matrix or a convolution becomes a product of smaller ones.

    svd             W = U V                          the nearest of that rank; of a kernel, its inputs and places are V
    tucker          W = U C D                        a convolution: 1 x 1 down, the kernel between few, 1 x 1 up
    tensor_train    W = G1 G2 ..                     short axes for rows and columns, one core for each pair of them

In a Net the linear kind of the matrix changes (low_rank, tucker, tensor_train), and its weights are fitted. Of ranks
that reach the matrix's own nothing is lost.

Exact when the ranks reach those of the matrix
Papers   compactifai-extreme-compression-of-large-language, lorap-transformer-sub-layers-deserve-differentiated
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from shoal.core.base import Edit, Linear
from shoal.core.errors import BadSetting, Refused
from shoal.core.part import Part, Value
from shoal.core.spec import Spec
from shoal.edits._matrices import Matrix, matrices_in, refitted
from shoal.edits._spans import put
from shoal.edits._stand_ins import ThinConvolution, ThinLinear, TrainLinear, kind_of, shape_of
from shoal.kinds import LINEARS
from shoal.linears._cuts import tucker, tucker_ranks, two_factors


@dataclass(frozen=True, kw_only=True)
class Factor(Edit):
    """Settings: `path` of a matrix, or of a layer or span, whose matrices then all go; `kind`; `rank`; `ranks` of a
    tucker's outputs and inputs where they differ; `cores` of a tensor train."""

    tiny: ClassVar[Mapping[str, Value]] = {"path": "stages.0.layers.1", "rank": 2}
    path: str
    kind: Literal["svd", "tucker", "tensor_train"] = "svd"
    rank: int = 8
    ranks: tuple[int, ...] = ()
    cores: int = 2

    def __post_init__(self) -> None:
        if self.rank < 1 or self.cores < 2:
            raise BadSetting(
                f"edit factor: rank={self.rank}, cores={self.cores}; give a rank of 1 and 2 cores at least"
            )
        if self.ranks and (self.kind != "tucker" or len(self.ranks) != 2 or min(self.ranks) < 1):
            raise BadSetting(f"edit factor: ranks={list(self.ranks)}; give two, of a tucker's outputs and inputs")

    def rewrite(self, spec: Spec, weights: Mapping[str, Tensor]) -> tuple[Spec, dict[str, Tensor]]:
        return refitted(spec, weights, self.path, self._part)

    def apply(self, module: nn.Module) -> nn.Module:
        found = matrices_in(module, self.path)
        for path, layer in found:
            self._check(path, layer.groups if not isinstance(layer, nn.Linear) else 1, not isinstance(layer, nn.Linear))
            if self.kind == "tensor_train" and not isinstance(layer, nn.Linear):
                raise Refused(f"{path}: a convolution of a stranger becomes no tensor train; give tucker or svd")
        for path, layer in found:
            made = self._thin(layer).train(layer.training)
            module = put(module, path, made)
        return module

    def _check(self, path: str, groups: int, kernel: bool) -> None:
        if groups > 1:
            raise Refused(f"{path}: a convolution of {groups} groups is no one matrix; leave it, or narrow it")
        if self.kind == "tucker" and not kernel:
            raise Refused(f"{path}: a plain matrix has two axes and one rank; give kind svd")

    def _part(self, path: str, matrix: Linear, now: Part) -> Part:
        """What a Net says of the matrix from now on."""
        self._check(path, matrix.groups, bool(matrix.kernel))
        if now.name == "masked":
            raise Refused(f"{path}: factored, it would lose its mask; factor first and mask then")
        if self.kind == "tucker":
            return Part("tucker", {"ranks": self._ranks})
        if self.kind == "tensor_train":
            return Part("tensor_train", {"rank": self.rank, "cores": self.cores})
        return Part("low_rank", {"rank": self.rank})

    @property
    def _ranks(self) -> tuple[int, ...]:
        return self.ranks or (self.rank, self.rank)

    def _thin(self, layer: Matrix) -> nn.Module:
        """What stands in the place of a stranger's matrix."""
        weight, trains = layer.weight.detach(), layer.weight.requires_grad
        if not isinstance(layer, nn.Linear):
            return ThinConvolution(*self._convolutions(layer, weight, trains))
        if self.kind == "svd":
            return ThinLinear(*two_factors(weight, self.rank), layer.bias, trains)
        part = Part("tensor_train", {"rank": self.rank, "cores": self.cores})
        train: Linear = LINEARS.make(part, layer.in_features, layer.out_features, False, (), 1)
        train.to(weight).fit(weight)
        train.bias = layer.bias
        for core in train.parameters():
            core.requires_grad_(trains if core is not layer.bias else core.requires_grad)
        return TrainLinear(train)

    def _convolutions(self, layer: Matrix, weight: Tensor, trains: bool) -> Sequence[nn.Module]:
        outputs, inputs, *places = weight.shape
        one: dict[str, Any] = {
            "kernel_size": 1,
            "stride": 1,
            "padding": 0,
            "dilation": 1,
            "padding_mode": "zeros",
            "bias": False,
        }
        if self.kind == "svd":
            up, flat = two_factors(weight.flatten(1), self.rank)
            rank = len(flat)
            sizes: list[tuple[dict[str, Any], Tensor]] = [
                ({"out_channels": rank, "bias": False}, flat),
                ({**one, "in_channels": rank}, up),
            ]
        else:
            of_outputs, of_inputs = tucker_ranks(outputs, inputs, int(torch.Size(places).numel()), self._ranks)
            up, core, down = tucker(weight, (of_outputs, of_inputs))
            inner = {"in_channels": of_inputs, "out_channels": of_outputs, "bias": False}
            sizes = [
                ({**one, "out_channels": of_inputs}, down),
                (inner, core),
                ({**one, "in_channels": of_outputs}, up),
            ]
        made = []
        for other, value in sizes:
            new = skip_init(kind_of(layer), **shape_of(layer, **other))
            new.weight = nn.Parameter(value.reshape(new.weight.shape).clone(), requires_grad=trains)
            made.append(new)
        made[-1].bias = layer.bias
        return made
