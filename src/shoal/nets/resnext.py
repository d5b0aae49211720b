"""ResNeXt: a residual net whose blocks sum many narrow branches; the form for small images.

    3 x 3 convolution | three stages of (depth - 2) / 9 blocks at 256, 512 and 1024 channels | mean and linear map

A branch of the first stage has `width` channels within, of the next twice and four times as many. The first block of
each stage has a shortcut with weights (option B): it is the join `aggregated`, in the stem of the first stage; all
other blocks are layers.

Shapes   x: (batch, height, width, channels);  y: (batch, outputs)
Papers   aggregated-residual-transformations-for-deep-neural
"""

from __future__ import annotations

from shoal.core.base import Architecture
from shoal.core.errors import BadSetting
from shoal.core.part import Part, Value
from shoal.core.spec import LayerSpec, Spec, Stage

STEM = "convolution[act=relu,bias=false,norm=batch]"


class ResNeXt(Architecture):
    """Settings: `depth`, 9 n + 2 with n of at least 2; `cardinality`, branches a block; `width` of a branch in the
    first stage; `base`, channels of the stem, a quarter of the first stage's; `outputs`; `channels` of the data."""

    tiny = {"depth": 20, "cardinality": 2, "width": 2, "base": 4}
    variants = {
        "resnext29_8x64": {"depth": 29, "cardinality": 8, "width": 64},
        "resnext29_16x64": {"depth": 29, "cardinality": 16, "width": 64},
    }

    def __init__(
        self,
        *,
        depth: int = 29,
        cardinality: int = 8,
        width: int = 64,
        base: int = 64,
        outputs: int = 10,
        channels: int = 3,
    ) -> None:
        if depth < 20 or depth % 9 != 2:
            raise BadSetting(f"net resnext: depth={depth} is not 9 n + 2 with n of at least 2; give 20, 29, 38, ...")
        if min(cardinality, width, base, outputs, channels) < 1:
            raise BadSetting(
                f"net resnext: cardinality={cardinality}, width={width}, base={base}, outputs={outputs}, "
                f"channels={channels}; give at least 1"
            )
        self.blocks, self.cardinality, self.width, self.base = (depth - 2) // 9, cardinality, width, base
        self.outputs, self.channels = outputs, channels

    def spec(self) -> Spec:
        join = str(self._block(0).with_settings(stride=1))
        stem = Part("entry", {"channels": self.channels, "width": self.base, "first": STEM, "join": join})
        stages = tuple(self._stage(index) for index in range(3))
        return Spec(stages, stem, Part("pool", {"outputs": self.outputs, "norm": "none"}))

    def _block(self, index: int) -> Part:
        """A block of a stage: the join and the layers have one name and the same settings."""
        inner: dict[str, Value] = {"hidden": self.cardinality * self.width * 2**index, "groups": self.cardinality}
        return Part("aggregated", inner)

    def _stage(self, index: int) -> Stage:
        """The blocks of a stage but for the first, which is its join."""
        block = self._block(index)
        layers = (LayerSpec(block),) * (self.blocks - 1)
        join = block if index else None
        return Stage(Part("residual", {"act": "relu"}), layers, 4 * self.base * 2**index, join=join)
