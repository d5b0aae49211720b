"""ParNet: three streams of RepVGG blocks side by side, each at half the resolution of the one before; not deep at all.

    two strided blocks | streams of 4, 5 and 5 blocks, merged from fine to coarse | strided block, mean and linear map

In the paper two streams are merged by norms of their own, concatenation, a channel shuffle and a strided block of two
groups; here a strided block brings the finer to the coarser, and they are summed. The very first strided block is a
plain convolution here. So the counts of weights are near the published ones, not equal.

Shapes   x: (batch, height, width, channels);  y: (batch, outputs)
Papers   non-deep-networks
"""

from __future__ import annotations

from shoal.core.base import Architecture
from shoal.core.errors import BadSetting
from shoal.core.part import Part
from shoal.core.spec import LayerSpec, Spec, Stage

STEM = 64  # channels behind the first strided block, fewer where the first stream has fewer


class ParNet(Architecture):
    """Settings: `widths` of the streams; `last`, channels that are averaged; `layers` of each stream; `outputs`;
    `channels` of the data; `stride` of the stem's first block, 1 for small images."""

    tiny = {"widths": (4, 6, 8), "last": 10, "layers": (1, 1, 2), "stride": 1}
    variants = {
        "parnet_s": {"widths": (92, 192, 384), "last": 1280},
        "parnet_m": {"widths": (128, 256, 512), "last": 2048},
        "parnet_l": {"widths": (160, 320, 640), "last": 2560},
        "parnet_xl": {"widths": (200, 400, 800), "last": 3200},
    }

    def __init__(
        self,
        *,
        widths: tuple[int, ...] = (92, 192, 384),
        last: int = 1280,
        layers: tuple[int, ...] = (4, 5, 5),
        outputs: int = 1000,
        channels: int = 3,
        stride: int = 2,
    ) -> None:
        if not widths or len(widths) != len(layers) or min(*widths, *layers, last, outputs, channels, stride) < 1:
            raise BadSetting(
                f"net parnet: widths={list(widths)}, layers={list(layers)}, last={last}, outputs={outputs}, "
                f"channels={channels}, stride={stride}; give a width and layers for each stream, at least 1 of each"
            )
        self.widths, self.last, self.layers = widths, last, layers
        self.outputs, self.channels, self.stride = outputs, channels, stride

    def spec(self) -> Spec:
        first, count = self.widths[0], sum(self.layers)
        wiring = Part(
            "streams",
            {
                "count": len(self.widths),
                "depths": self.layers,
                "widths": self.widths,
                "join": "rep",
                "out": "coarse",
                "plain": True,
            },
        )
        stage = Stage(wiring, (LayerSpec(Part("rep")),) * count, first)
        into = Part("convolution", {"norm": "batch", "act": "silu", "bias": False, "stride": self.stride})
        width = min(STEM, first)
        stem = Part("entry", {"channels": self.channels, "width": width, "first": str(into), "join": "rep"})
        head = Part(
            "joined",
            {"outputs": self.outputs, "width": self.last, "join": "rep", "head": str(Part("pool", {"norm": "none"}))},
        )
        return Spec((stage,), stem, head)
