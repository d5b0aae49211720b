"""ResNet: the residual nets for small images, with shortcuts that have no weights (option A).

    3 x 3 convolution | three stages of (depth - 2) / 6 blocks, at width, 2 * width and 4 * width | mean and linear map

The first block of the second and third stage halves the places: it is the join `basic`, all other blocks are layers.
A sum of branch and shortcut is activated, as in the first paper.

Shapes   x: (batch, height, width, channels);  y: (batch, outputs)
Papers   deep-residual-learning-for-image-recognition
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from shoal.core.base import Architecture
from shoal.core.errors import BadSetting, Refused
from shoal.core.part import Part
from shoal.core.spec import LayerSpec, Spec, Stage

if TYPE_CHECKING:
    from torch import Tensor

STEM = Part("convolution", {"norm": "batch", "act": "relu", "bias": False})
PARTS = {"conv1": "first", "bn1": "inner", "conv2": "second", "bn2": "outer"}  # of a block: theirs -> ours
ENDS = {"conv1": "stem.first", "bn1": "stem.norm", "linear": "head.map"}


class ResNet(Architecture):
    """Settings: `depth`, 6 n + 2 with n of at least 2; `width` of the first stage; `outputs`; `channels` of the
    data."""

    tiny = {"depth": 14, "width": 4}
    variants = {f"resnet{depth}": {"depth": depth} for depth in (20, 32, 44, 56, 110)}
    published = {"resnet20": 269_722, "resnet32": 464_154, "resnet56": 853_018}

    def __init__(self, *, depth: int = 20, width: int = 16, outputs: int = 10, channels: int = 3) -> None:
        if depth < 14 or depth % 6 != 2:
            raise BadSetting(f"net resnet: depth={depth} is not 6 n + 2 with n of at least 2; give 14, 20, 26, ...")
        if min(width, outputs, channels) < 1:
            raise BadSetting(f"net resnet: width={width}, outputs={outputs}, channels={channels}; give at least 1")
        self.blocks, self.width, self.outputs, self.channels = (depth - 2) // 6, width, outputs, channels

    def spec(self) -> Spec:
        wiring, layer = Part("residual", {"act": "relu"}), LayerSpec(Part("basic"))
        stages = [Stage(wiring, (layer,) * self.blocks, self.width)]
        for width in (2 * self.width, 4 * self.width):
            stages.append(Stage(wiring, (layer,) * (self.blocks - 1), width, join=Part("basic")))
        head = Part("pool", {"outputs": self.outputs, "norm": "none"})
        return Spec(tuple(stages), STEM.with_settings(channels=self.channels), head)

    def weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """From ``conv1``, ``bn1``, ``layer1.0.conv1`` ... ``linear``, with ``module.`` before them or not."""
        return dict(_renamed(state))


def _renamed(state: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    for key, value in state.items():
        *path, name = key.removeprefix("module.").split(".")
        if name == "num_batches_tracked":
            continue  # ours count none
        if len(path) == 1 and path[0] in ENDS:
            yield f"{ENDS[path[0]]}.{name}", value
        elif len(path) == 3 and path[0] in ("layer1", "layer2", "layer3") and path[1].isdigit() and path[2] in PARTS:
            yield f"{_place(int(path[0][-1]) - 1, int(path[1]))}.{PARTS[path[2]]}.{name}", value
        else:
            raise Refused(f"net resnet: the weight {key!r} has no place in it; take it out if it is not wanted")


def _place(stage: int, block: int) -> str:
    """Where a block stands: the first of the later stages is their join."""
    if stage == 0:
        return f"stages.0.layers.{block}.block"
    return f"stages.{stage}.layers.{block - 1}.block" if block else f"stages.{stage}.join"
