"""Mixer: an image as a row of patches; MLPs along the places and along the channels take turns.

    patches -> layers x ( x + token_mixing(norm x);  x + mlp(norm x) ) -> mean of norm -> map

Shapes   x: (batch, height, width, channels);  y: (batch, outputs)
Cost     layers * 2 * (places * token_hidden + dim * hidden) weights and a little
Papers   mlp-mixer-an-all-mlp-architecture
"""

from __future__ import annotations

from shoal.core.base import Architecture
from shoal.core.part import Part
from shoal.core.spec import LayerSpec, Spec, Stage
from shoal.nets._ends import at_least_one, patches, squares


class Mixer(Architecture):
    """Settings: `outputs`; `channels` and `size` of the images; `patch`, the side of a square; `dim`; `layers`, each of
    two MLPs; `token_hidden`, units along the places (dim / 2 where not said); `hidden`, units along the channels
    (4 * dim where not said); `eps` of the norms."""

    variants = {
        "mixer_s16": {"dim": 512, "layers": 8},
        "mixer_s32": {"dim": 512, "layers": 8, "patch": 32},
        "mixer_b16": {"dim": 768, "layers": 12},
        "mixer_b32": {"dim": 768, "layers": 12, "patch": 32},
        "mixer_l16": {"dim": 1024, "layers": 24},
    }
    published = {"mixer_s16": 18_528_264, "mixer_b16": 59_880_472}
    tiny = {"outputs": 3, "channels": 2, "size": (6, 6), "patch": 2, "dim": 8, "layers": 2}

    def __init__(
        self,
        *,
        outputs: int = 1000,
        channels: int = 3,
        size: tuple[int, ...] = (224, 224),
        patch: int = 16,
        dim: int = 512,
        layers: int = 8,
        token_hidden: int | None = None,
        hidden: int | None = None,
        eps: float = 1e-6,
    ) -> None:
        at_least_one("mixer", dim=dim, layers=layers)
        self.outputs, self.patches, self.places = outputs, patches("mixer", channels, size, patch), squares(size, patch)
        self.dim, self.layers, self.token_hidden, self.hidden, self.eps = dim, layers, token_hidden, hidden, eps

    def spec(self) -> Spec:
        norm = Part("layer", {"eps": self.eps})
        tokens = LayerSpec(Part("token_mixing", {"places": self.places, "hidden": self.token_hidden}), norm)
        channels = LayerSpec(Part("mlp", {"hidden": self.hidden, "act": "gelu"}), norm)
        return Spec(
            (Stage(Part("residual"), (tokens, channels) * self.layers, self.dim),),
            Part("patches", {**self.patches, "position": False}),
            Part("norm_pool", {"outputs": self.outputs, "norm": str(norm), "act": "identity"}),
        )
