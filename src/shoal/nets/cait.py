"""CaiT: patches among themselves for most of the depth, then a class token that alone reads them and changes.

    patches -> layers x ( x + s * talking_heads(norm x);  x + s * mlp(norm x) )
            -> class token -> class_layers x ( x_0 + s * class_attention(norm x);  x_0 + s * class_mlp(norm x_0) )
            -> norm of the class token -> map

Shapes   x: (batch, height, width, channels);  y: (batch, outputs)
Cost     about 12 * (layers + class_layers) * dim^2 weights
Exact when all s are zero: the answer is that to the class token alone, whatever the image
Papers   going-deeper-with-image-transformers
"""

from __future__ import annotations

from shoal.core.base import Architecture
from shoal.core.part import Part
from shoal.core.spec import LayerSpec, Spec, Stage
from shoal.nets._ends import at_least_one, patches


class CaiT(Architecture):
    """Settings: `outputs`; `channels` and `size` of the images; `patch`, the side of a square; `dim`; `layers` of
    patches; `class_layers`; `heads`; `init`, where the scales s begin; `eps` of the norms."""

    variants = {
        "cait_xxs24": {"dim": 192, "heads": 4, "layers": 24, "init": 1e-5},
        "cait_xxs36": {"dim": 192, "heads": 4, "layers": 36, "init": 1e-6},
        "cait_xs24": {"dim": 288, "heads": 6, "layers": 24, "init": 1e-5},
        "cait_s24": {"dim": 384, "heads": 8, "layers": 24, "init": 1e-5},
        "cait_s36": {"dim": 384, "heads": 8, "layers": 36, "init": 1e-6},
    }
    published = {"cait_xxs24": 11_956_264}
    tiny = {
        "outputs": 3, "channels": 2, "size": (6, 6), "patch": 2, "dim": 8, "layers": 2, "class_layers": 1, "heads": 2
    }  # fmt: skip

    def __init__(
        self,
        *,
        outputs: int = 1000,
        channels: int = 3,
        size: tuple[int, ...] = (224, 224),
        patch: int = 16,
        dim: int = 384,
        layers: int = 24,
        class_layers: int = 2,
        heads: int = 8,
        init: float = 1e-5,
        eps: float = 1e-6,
    ) -> None:
        at_least_one("cait", dim=dim, layers=layers, class_layers=class_layers, heads=heads)
        self.outputs, self.patches, self.dim = outputs, patches("cait", channels, size, patch), dim
        self.layers, self.class_layers, self.heads, self.init, self.eps = layers, class_layers, heads, init, eps

    def spec(self) -> Spec:
        norm, wiring = Part("layer", {"eps": self.eps}), Part("layer_scale", {"init": self.init})
        among, last = self._pair("talking_heads", "mlp", norm), self._pair("class_attention", "class_mlp", norm)
        return Spec(
            (
                Stage(wiring, among * self.layers, self.dim),
                Stage(wiring, last * self.class_layers, self.dim, join=Part("class_token")),
            ),
            Part("patches", self.patches),
            Part("first", {"outputs": self.outputs, "norm": str(norm)}),
        )

    def _pair(self, attention: str, mlp: str, norm: Part) -> tuple[LayerSpec, LayerSpec]:
        """A layer of attention and one of an MLP."""
        first = LayerSpec(Part(attention, {"heads": self.heads}), norm)
        return first, LayerSpec(Part(mlp, {"act": "gelu"}), norm)
