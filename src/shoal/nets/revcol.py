"""RevCol: columns that go over the same levels again, each step of which can be undone.

    strided 3 x 3 convolution | stages of columns times levels blocks, downsampled between | norm, mean and linear map

In the paper a column goes through four resolutions, a level each; here a stage has one resolution, its levels lie all
at it, and the resolutions follow one another.

Shapes   x: (batch, height, width, channels);  y: (batch, outputs)
Papers   reversible-column-networks
"""

from __future__ import annotations

from shoal.core.base import Architecture
from shoal.core.errors import BadSetting
from shoal.core.part import Part
from shoal.core.spec import LayerSpec, Spec, Stage


class RevCol(Architecture):
    """Settings: `columns` of a stage; `levels` of a column; `widths` of the stages; `stride` of the stem; `recompute`,
    whether training makes again what it would else keep; `outputs`; `channels` of the data."""

    tiny = {"columns": 2, "levels": 2, "widths": (4, 6), "stride": 1}

    def __init__(
        self,
        *,
        columns: int = 4,
        levels: int = 4,
        widths: tuple[int, ...] = (64, 128, 256),
        stride: int = 2,
        recompute: bool = True,
        outputs: int = 10,
        channels: int = 3,
    ) -> None:
        if not widths or min(*widths, columns, levels, stride, outputs, channels) < 1:
            raise BadSetting(
                f"net revcol: columns={columns}, levels={levels}, widths={list(widths)}, stride={stride}, "
                f"outputs={outputs}, channels={channels}; give at least 1 of each"
            )
        self.columns, self.levels, self.widths, self.stride, self.recompute = columns, levels, widths, stride, recompute
        self.outputs, self.channels = outputs, channels

    def spec(self) -> Spec:
        wiring = Part("reversible", {"columns": self.columns, "recompute": self.recompute})
        layer = LayerSpec(Part("preact", {"act": "gelu"}), Part("layer"))
        stages = [Stage(wiring, (layer,) * (self.columns * self.levels), width) for width in self.widths]
        stem = Part("convolution", {"channels": self.channels, "stride": self.stride})
        return Spec(tuple(stages), stem, Part("pool", {"outputs": self.outputs}))
