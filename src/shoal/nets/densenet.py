"""DenseNet: three stages in which every layer reads all before it, and transitions between them.

    3 x 3 convolution | three stages of equally many layers of `growth` channels | norm, relu, mean and linear map

A transition keeps a share `compression` of the channels. With `bottleneck` a layer is two convolutions, the first of
1 x 1 to four times growth (B); with a compression below one as well it is the net called BC.

Shapes   x: (batch, height, width, channels);  y: (batch, outputs)
Papers   densely-connected-convolutional-networks
"""

from __future__ import annotations

from shoal.core.base import Architecture
from shoal.core.errors import BadSetting
from shoal.core.part import Part, Value
from shoal.core.spec import LayerSpec, Spec, Stage

BC = {"bottleneck": True, "compression": 0.5}


class DenseNet(Architecture):
    """Settings: `depth`, layers in all: 3 n + 4, or 6 n + 4 with `bottleneck`; `growth`, channels a layer gives;
    `compression`, share of the channels that a transition keeps; `outputs`; `channels` of the data."""

    tiny = {"depth": 7, "growth": 3}
    variants = {
        "densenet40": {"depth": 40, "growth": 12},
        "densenet100": {"depth": 100, "growth": 12},
        "densenet100_24": {"depth": 100, "growth": 24},
        "densenet_bc100": {"depth": 100, "growth": 12, **BC},
        "densenet_bc250": {"depth": 250, "growth": 24, **BC},
        "densenet_bc190": {"depth": 190, "growth": 40, **BC},
    }

    def __init__(
        self,
        *,
        depth: int = 40,
        growth: int = 12,
        bottleneck: bool = False,
        compression: float = 1.0,
        outputs: int = 10,
        channels: int = 3,
    ) -> None:
        step = 6 if bottleneck else 3
        if depth < step + 4 or (depth - 4) % step:
            raise BadSetting(f"net densenet: depth={depth} is not {step} n + 4; give {step + 4}, {2 * step + 4}, ...")
        if min(growth, outputs, channels) < 1 or not 0 < compression <= 1:
            raise BadSetting(
                f"net densenet: growth={growth}, outputs={outputs}, channels={channels}, compression={compression}; "
                "give at least 1 of each, and a compression above 0 and at most 1"
            )
        self.layers, self.growth, self.bottleneck, self.compression = (
            (depth - 4) // step,
            growth,
            bottleneck,
            compression,
        )
        self.outputs, self.channels = outputs, channels

    def spec(self) -> Spec:
        wide: dict[str, Value] = {"hidden": 4 * self.growth, "kernels": ((1, 1), (3, 3))}
        layer = LayerSpec(Part("preact", wide) if self.bottleneck else Part("act_conv"))
        wiring = Part("dense", {"growth": self.growth})
        stages = [Stage(wiring, (layer,) * self.layers, 16 if self.compression == 1 else 2 * self.growth)]
        for _ in range(2):
            width = max(int(stages[-1].out * self.compression), 1)
            stages.append(Stage(wiring, (layer,) * self.layers, width, join=Part("transition")))
        stem = Part("convolution", {"channels": self.channels, "bias": False})
        return Spec(tuple(stages), stem, Part("norm_pool", {"outputs": self.outputs}))
