"""Narrow: some units of a width stay and the others go, in every matrix, norm and bias that holds them.

    y = down act(up x)        becomes   y = down[:, keep] act(up[keep] x)

A unit is a channel, a hidden unit or a head, with all that is coupled to it. In a Net the block says what a width
sizes, and `width` and `keep` are all there is to say. A module of other people does not say it: `shoal.coupling` finds
it by a run, and the edit holds what it found, so that it can be done again without an example.

Exact when the units that go are zero, and no norm or softmax runs along them
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
from shoal.coupling.slicing import cut
from shoal.edits._narrowing import narrowed_layer
from shoal.edits._surgery import layer_at, layers_of, with_layers


@dataclass(frozen=True, kw_only=True)
class Narrow(Edit):
    """Settings: `path` of what makes the units; `width`, the block's setting, in a Net; `keep`, the units that stay.

    Of a stranger: `slices`, (weight, axis, its size, what stays of it) each; `settings`, (path, attribute, new value)
    each."""

    tiny: ClassVar[Mapping[str, Value]] = {
        "path": "stages.0.layers.1",
        "width": "hidden",
        "keep": tuple(range(0, 32, 3)),
    }
    path: str
    width: str = ""
    keep: tuple[int, ...] = ()
    slices: tuple[tuple[str | int | tuple[int, ...], ...], ...] = ()
    settings: tuple[tuple[str | int, ...], ...] = ()

    def rewrite(self, spec: Spec, weights: Mapping[str, Tensor]) -> tuple[Spec, dict[str, Tensor]]:
        if self.slices or self.settings:
            raise Refused(f"{self.path}: in a Net, width and keep say all; leave slices and settings out")
        index, number = layer_at(spec, self.path)
        stage = spec.stages[index]
        (layer,) = layers_of(spec, weights, index, [number])
        old, ends = stage.layers[number], dict(zip(stage.visits, stage.ends(), strict=True))[number]
        chosen = [*range(len(stage.layers))]
        narrow = narrowed_layer(self.path, old, layer, ends, self.width, self.keep)
        return with_layers(spec, weights, index, [*chosen[:number], narrow, *chosen[number + 1 :]], stage.wiring)

    def apply(self, module: nn.Module) -> nn.Module:
        if not self.slices:
            raise Refused(f"{self.path}: only a Net says what is coupled; let shoal.coupling find the slices")
        return cut(module, self.slices, self.settings)
