"""Linearize: a span, or a run of neighbours, becomes one linear map of the channels, the same at every place.

    branch span     x + f(x)           becomes   x + (W x + b)
    stream span     f(x), g(f(x))      becomes   x + W x + b

The edit says the structure, and W and b are zero: what they stand for adds nothing. The best values are told by data
and come with the weights of a proposal. In a Net a layer behind which nobody reads what came in (plain) has no stream
to pass it on; there W begins as the identity.

Exact when the span is linear and its weights are set
Papers   do-language-models-use-their-depth
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from shoal.core.base import Edit
from shoal.core.errors import BadSetting, Refused
from shoal.core.part import Part, Value
from shoal.core.spec import LayerSpec, Spec, Stage, wiring_of
from shoal.edits._net_folding import lenders
from shoal.edits._spans import LinearSpan, put
from shoal.edits._surgery import PassThrough, Zero, layer_at, run_of_layers, submodule, with_layers
from shoal.edits._visits import without_run
from shoal.net import Layer


@dataclass(frozen=True, kw_only=True)
class Linearize(Edit):
    """Settings: `paths` of the span or the run; of a stranger also `channels`, how many, `places`, the axes behind them
    (0 where channels are last), and `branch`, whether somebody else adds it to the stream."""

    tiny: ClassVar[Mapping[str, Value]] = {"paths": ("stages.0.layers.1",)}
    paths: tuple[str, ...]
    channels: int = 0
    places: int = 0
    branch: bool = False

    def __post_init__(self) -> None:
        if not self.paths or self.channels < 0 or not 0 <= self.places <= 3:
            raise BadSetting(
                f"edit linearize: paths={list(self.paths)}, channels={self.channels}, places={self.places}; give one "
                "path at least, the number of channels and 0 to 3 places"
            )

    def rewrite(self, spec: Spec, weights: Mapping[str, Tensor]) -> tuple[Spec, dict[str, Tensor]]:
        index, start = layer_at(spec, self.paths[0])
        stop = run_of_layers(spec, self.paths)[2] if len(self.paths) > 1 else start + 1
        stage = spec.stages[index]
        ends = stage.ends()[start]
        if any(end != ends for end in stage.ends()[start:stop]) or (stop > start + 1 and ends[0] != ends[1]):
            raise Refused(f"{', '.join(self.paths)}: layers of unlike widths {stage.ends()[start:stop]} are no one map")
        lent = lenders(spec, index)
        if gone := sorted(lent & set(range(start + 1, stop))):
            raise Refused(
                f"stages.{index}.layers.{gone[0]}: the kind of its norm is that of what stands beside the stage"
            )
        norm = stage.layers[start].norm if start in lent else Part("none")
        flat = LayerSpec(Part("channel_linear"), norm).sized(ends[1])
        layer = Layer(flat, *ends).to(_numbers(weights))
        with torch.no_grad():
            for value in layer.parameters():
                value.zero_()
            if _unskipped(stage, start):
                layer.block.get_parameter("map.weight").copy_(torch.eye(ends[1], ends[0]))
        kept: list[int | tuple[LayerSpec, Layer]] = [
            *range(start),
            (flat, layer.eval()),
            *range(stop, len(stage.layers)),
        ]
        return with_layers(spec, weights, index, kept, without_run(stage, start + 1, stop))

    def apply(self, module: nn.Module) -> nn.Module:
        spans = [submodule(module, path) for path in self.paths]
        if self.channels < 1:
            raise Refused(f"{self.paths[0]}: of a module that is no Net, say how many channels it has")
        like = next((p for span in spans for p in span.parameters() if p.is_floating_point()), None)
        if like is None:
            raise Refused(f"{self.paths[0]}: it has no weights, so there is nothing to be spared")
        flat = LinearSpan(self.channels, self.places, self.branch).to(like).train(spans[0].training)
        flat.requires_grad_(any(p.requires_grad for span in spans for p in span.parameters()))
        for path in self.paths[1:]:
            put(module, path, Zero() if self.branch else PassThrough())
        return put(module, self.paths[0], flat)


def _unskipped(stage: Stage, layer: int) -> bool:
    """Whether nobody but a layer reads what came in: the next ones read what it gave, and that alone."""
    reads = wiring_of(stage.wiring, stage.dim, stage.depth).reads()
    return reads[layer + 1] == {layer + 1}


def _numbers(weights: Mapping[str, Tensor]) -> torch.dtype:
    return next(value.dtype for value in weights.values() if value.is_floating_point())
