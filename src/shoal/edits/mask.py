"""Mask: only a share of a matrix's weights stays; the others are zero, and stay so.

    W  becomes  M * W        M is 1 at the largest weights: of all, or of every `of` neighbouring inputs of a row

`density=0.5, of=4` keeps two of every four, the pattern 2:4. The mask is a buffer that is saved with the weights, so
healing keeps to it; another than that of the largest weights is set with the weights, both by their names. Nothing gets
faster: what is saved are weights that need not be stored.

Papers   the-unreasonable-effectiveness-of-random-pruning
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from shoal.core.base import Edit, Linear
from shoal.core.errors import Refused
from shoal.core.part import Part, Value
from shoal.core.spec import Spec
from shoal.edits._matrices import matrices_in, refitted
from shoal.edits._spans import put
from shoal.edits._stand_ins import masked
from shoal.linears._masks import checked, mask_of


@dataclass(frozen=True, kw_only=True)
class Mask(Edit):
    """Settings: `path` of a matrix, or of a layer or span, all of whose matrices are masked; `density`, the share that
    stays; `of`, how many neighbouring inputs of a row it is a share of, 0 for the whole matrix."""

    tiny: ClassVar[Mapping[str, Value]] = {"path": "stages.0.layers.1", "of": 4}
    path: str
    density: float = 0.5
    of: int = 0

    def __post_init__(self) -> None:
        checked("edit mask", self.density, self.of)

    def rewrite(self, spec: Spec, weights: Mapping[str, Tensor]) -> tuple[Spec, dict[str, Tensor]]:
        return refitted(spec, weights, self.path, self._part)

    def apply(self, module: nn.Module) -> nn.Module:
        for path, layer in matrices_in(module, self.path):
            made = masked(layer, mask_of(layer.weight.detach().abs(), self.density, self.of))
            module = put(module, path, made)
        return module

    def _part(self, path: str, matrix: Linear, now: Part) -> Part:
        if now.name not in ("dense", "masked"):
            raise Refused(f"{path}: it is of kind {now.name}; only the weights of a dense matrix can be masked")
        return Part("masked", {"density": self.density, "of": self.of})
