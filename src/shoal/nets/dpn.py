"""DPN: dual path nets, whose layers add to a residual part of the channels and put new ones behind a dense part.

    7 x 7 convolution, largest of neighbours | stages of bottlenecks in groups | norm, relu, mean and linear map

From stage to stage the residual part and the channels within double and the places halve. The first block of a stage is
the join `dual`, in the stem of the first stage; all other blocks are layers.

Shapes   x: (batch, height, width, channels);  y: (batch, outputs)
Papers   dual-path-networks
"""

from __future__ import annotations

from shoal.core.base import Architecture
from shoal.core.errors import BadSetting
from shoal.core.part import Part, Value
from shoal.core.spec import LayerSpec, Spec, Stage

NORM = Part("batch", {"eps": 1e-3})
FIRST = f'convolution[act=relu,bias=false,kernel=[7,7],norm="{NORM}",stride=2]'
LARGE: dict[str, Value] = {"hidden": 160, "groups": 40, "growth": (16, 32, 32, 128)}


class DPN(Architecture):
    """Settings: `layers`, blocks of each stage, at least 2; `growth` of each stage; `residual` part of the first stage;
    `hidden`, channels within its blocks, in `groups`; `stem`, channels before it; `outputs`; `channels` of the data."""

    tiny = {"layers": (2, 2), "growth": (2, 3), "residual": 8, "hidden": 4, "groups": 2, "stem": 4}
    variants = {
        "dpn92": {},
        "dpn98": {"layers": (3, 6, 20, 3), "stem": 96, **LARGE},
        "dpn131": {"layers": (4, 8, 28, 3), "stem": 128, **LARGE},
    }

    def __init__(
        self,
        *,
        layers: tuple[int, ...] = (3, 4, 20, 3),
        growth: tuple[int, ...] = (16, 32, 24, 128),
        residual: int = 256,
        hidden: int = 96,
        groups: int = 32,
        stem: int = 64,
        outputs: int = 1000,
        channels: int = 3,
    ) -> None:
        if not layers or len(layers) != len(growth) or min(layers) < 2 or min(growth) < 1:
            raise BadSetting(
                f"net dpn: layers={list(layers)}, growth={list(growth)}; give each stage 2 layers or more and a growth"
            )
        if min(residual, hidden, groups, stem, outputs, channels) < 1 or hidden % groups:
            raise BadSetting(
                f"net dpn: residual={residual}, hidden={hidden}, groups={groups}, stem={stem}, outputs={outputs}, "
                f"channels={channels}; give at least 1 of each, and groups that divide hidden"
            )
        self.layers, self.growth, self.residual, self.hidden, self.groups = layers, growth, residual, hidden, groups
        self.stem, self.outputs, self.channels = stem, outputs, channels

    def spec(self) -> Spec:
        pooled = Part("entry", {"width": self.stem, "first": FIRST, "join": "max_pool[size=3]"})
        join = str(self._join(0).with_settings(stride=1))
        stem = Part("entry", {"channels": self.channels, "width": self.stem, "first": str(pooled), "join": join})
        stages = tuple(self._stage(index) for index in range(len(self.layers)))
        return Spec(stages, stem, Part("norm_pool", {"outputs": self.outputs, "norm": str(NORM)}))

    def _inner(self, index: int) -> dict[str, Value]:
        return {"hidden": self.hidden * 2**index, "groups": self.groups}

    def _join(self, index: int) -> Part:
        """The first block of a stage."""
        return Part("dual", {"growth": self.growth[index], "norm": str(NORM), **self._inner(index)})

    def _stage(self, index: int) -> Stage:
        """The other blocks of a stage."""
        residual, growth = self.residual * 2**index, self.growth[index]
        wiring = Part("dual_path", {"residual": residual, "growth": growth})
        layers = (LayerSpec(Part("preact_bottleneck", self._inner(index)), NORM),) * (self.layers[index] - 1)
        return Stage(wiring, layers, residual + 3 * growth, join=self._join(index) if index else None)
