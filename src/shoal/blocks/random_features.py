"""Random features: matrices left as they were drawn, and one behind them that is learned.

    h_0 = x;    h_l = sqrt(2) act(A_l h_{l-1} + b_l);    y = out h_layers

The rows of each A are uniform in the ball of radius `bandwidth` about 0, so no unit changes faster along x than that;
each b is uniform within -phase and phase. The more units, the nearer is the mean product of the features of x and x' to
a kernel: with sine and a phase of pi and one layer, one without frequencies above the bandwidth; with relu, a phase of
0 and L layers, that of a random net of that depth. A sine's argument has about the deviation `bandwidth` where x is
normed; relu keeps its scale from layer to layer at a bandwidth of 1.

The matrices are made from `seed` and are no weights: they are not saved. Layers of one stage that share a seed and a
width share them.

Shapes   x, y: (batch, *places, dim);  within: (batch, *places, features)
Cost     (2 * dim + (layers - 1) * features) * features multiply-adds a place, dim * features weights to learn
Papers   how-powerful-are-shallow-neural-networks, multi-layer-random-features-and-the
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shoal.core.activations import Activation, activation
from shoal.core.base import Block, MakeLinear
from shoal.core.errors import BadSetting


class RandomFeatures(Block):
    """Settings: `features`, units of each layer (4 * dim where not said); `layers`; `bandwidth`, the longest row;
    `phase`, the largest offset; `act`, the activation's name; `seed` of the draw."""

    outlets = ("out",)
    sizes = {"features": lambda dim, _: 4 * dim}
    tiny = {"features": 12, "layers": 2}

    def __init__(
        self,
        dim: int,
        linear: MakeLinear,
        out: int,
        *,
        features: int | None = None,
        layers: int = 1,
        bandwidth: float = 1.0,
        phase: float = math.pi,
        act: str = "sine",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if layers < 1 or not (bandwidth > 0 and phase >= 0):
            raise BadSetting(
                f"block random_features: layers={layers}, bandwidth={bandwidth}, phase={phase}; "
                "give at least 1 layer, a bandwidth above 0, a phase of 0 or above"
            )
        if not 0 <= seed < 2**63:
            raise BadSetting(f"block random_features: seed={seed} is no seed; give 0 or above")
        features = self.size("features", features, out)
        act_of, draw = activation(act), torch.Generator().manual_seed(seed)
        ends = [(dim if index == 0 else features, features) for index in range(layers)]
        self.frozen = nn.Sequential(*(_Frozen(*end, bandwidth, phase, act_of, draw) for end in ends))
        self.out = linear(features, out)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.frozen(x))


class _Frozen(nn.Module):
    map: Tensor
    offset: Tensor

    def __init__(
        self, inputs: int, outputs: int, bandwidth: float, phase: float, act: Activation, draw: torch.Generator
    ) -> None:
        super().__init__()
        rows = torch.randn(outputs, inputs, generator=draw, device="cpu")  # the same on every device
        radius = bandwidth * torch.rand(outputs, 1, generator=draw, device="cpu") ** (1 / inputs)
        offset = phase * (2 * torch.rand(outputs, generator=draw, device="cpu") - 1)
        device = torch.get_default_device()
        self.register_buffer("map", (F.normalize(rows, dim=1) * radius).to(device), persistent=False)
        self.register_buffer("offset", offset.to(device), persistent=False)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        return 2**0.5 * self.act(F.linear(x, self.map, self.offset))
