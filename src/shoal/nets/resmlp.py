"""ResMLP: an image as a row of patches; a matrix along the places and an MLP along the channels take turns.

    patches -> layers x ( x + s1 * A affine(x);  x + s2 * mlp(affine x) ) -> mean of affine -> map

The norms measure nothing: each only scales and shifts its channels. s1 and s2 are scales of channels that begin small.

Shapes   x: (batch, height, width, channels);  y: (batch, outputs)
Cost     layers * (places^2 + 8 * dim^2) weights and a little
Papers   resmlp-feedforward-networks-for-image-classification
"""

from __future__ import annotations

from shoal.core.base import Architecture
from shoal.core.part import Part
from shoal.core.spec import LayerSpec, Spec, Stage
from shoal.nets._ends import at_least_one, patches, squares


class ResMLP(Architecture):
    """Settings: `outputs`; `channels` and `size` of the images; `patch`, the side of a square; `dim`; `layers`, each of
    a matrix and an MLP; `hidden`, units of the MLPs (4 * dim where not said); `init`, where the scales begin."""

    variants = {
        "resmlp_s12": {"dim": 384, "layers": 12, "init": 0.1},
        "resmlp_s24": {"dim": 384, "layers": 24, "init": 1e-5},
        "resmlp_b24": {"dim": 768, "layers": 24, "patch": 8, "init": 1e-6},
    }
    published = {"resmlp_s12": 15_350_872, "resmlp_s24": 30_020_680}
    tiny = {"outputs": 3, "channels": 2, "size": (6, 6), "patch": 2, "dim": 8, "layers": 2}

    def __init__(
        self,
        *,
        outputs: int = 1000,
        channels: int = 3,
        size: tuple[int, ...] = (224, 224),
        patch: int = 16,
        dim: int = 384,
        layers: int = 12,
        hidden: int | None = None,
        init: float = 0.1,
    ) -> None:
        at_least_one("resmlp", dim=dim, layers=layers)
        self.outputs, self.patches, self.places = (
            outputs,
            patches("resmlp", channels, size, patch),
            squares(size, patch),
        )
        self.dim, self.layers, self.hidden, self.init = dim, layers, hidden, init

    def spec(self) -> Spec:
        norm = Part("affine")
        tokens = LayerSpec(Part("token_linear", {"places": self.places}), norm)
        channels = LayerSpec(Part("mlp", {"hidden": self.hidden, "act": "gelu"}), norm)
        return Spec(
            (Stage(Part("layer_scale", {"init": self.init}), (tokens, channels) * self.layers, self.dim),),
            Part("patches", {**self.patches, "position": False}),
            Part("norm_pool", {"outputs": self.outputs, "norm": "affine", "act": "identity"}),
        )
