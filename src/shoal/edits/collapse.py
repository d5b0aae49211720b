"""Collapse: one layer of a Net that is something simpler in eval becomes that.

    rep_mlp  ->  rep_mlp_folded        a block that says itself what it is: branches and norms in one matrix
    mlp[norm=batch]  ->  mlp[norm=none]        any other: the norms in the matrices beside them

What `fold` does with all layers at once, for a single one; the others keep their norms, which healing needs.

Exact when the net is in eval: the statistics of the norms stand still
Papers   repmlp-re-parameterizing-convolutions-into-fully
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from shoal.core.base import Edit
from shoal.core.errors import Refused
from shoal.core.part import Value
from shoal.core.spec import Spec
from shoal.edits._net_folding import folded_layer, lenders
from shoal.edits._surgery import layer_at, layers_of, with_layers


@dataclass(frozen=True, kw_only=True)
class Collapse(Edit):
    """Settings: `path` of the layer."""

    exact: ClassVar[bool] = True
    tiny: ClassVar[Mapping[str, Value]] = {"path": "stages.0.layers.1"}
    path: str

    def rewrite(self, spec: Spec, weights: Mapping[str, Tensor]) -> tuple[Spec, dict[str, Tensor]]:
        index, number = layer_at(spec, self.path)
        stage = spec.stages[index]
        if number in lenders(spec, index):
            raise Refused(f"{self.path}: what stands around it has norms of its kind; it must keep its own")
        (layer,) = layers_of(spec, weights, index, [number])
        new = folded_layer(stage.layers[number], layer, stage.ends()[number])
        if new is None:
            raise Refused(f"{self.path}: its block is nothing simpler in eval, or its norms are no affine maps there")
        chosen: list[int] = [*range(len(stage.layers))]
        return with_layers(spec, weights, index, [*chosen[:number], new, *chosen[number + 1 :]], stage.wiring)

    def apply(self, module: nn.Module) -> nn.Module:
        raise Refused(f"{self.path}: only a layer of a Net says what it is in eval; fold the pairs of a stranger")
