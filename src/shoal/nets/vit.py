"""ViT: an image as a row of patches behind a class token, through a stack of transformer layers.

    patches -> layers x ( x + attention(norm x);  x + mlp(norm x) ) -> norm of the class token -> map

Shapes   x: (batch, height, width, channels);  y: (batch, outputs)
Cost     about 12 * layers * dim^2 weights and multiply-adds a patch
Papers   going-deeper-with-image-transformers, an-introduction-to-transformers
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from shoal.core.base import Architecture
from shoal.core.part import Part
from shoal.core.spec import LayerSpec, Spec, Stage
from shoal.nets._ends import at_least_one, patches
from shoal.nets._keys import renamed

LAYER = r"vit\.(?:encoder\.layer|layers)\.(\d+)\."  # as in published files, and as in models of transformers 5
HERE = r"stages.0.layers.\1.block."
KEYS: Mapping[str, str] = {
    r"vit\.embeddings\.cls_token": "stem.token",
    r"vit\.embeddings\.position_embeddings": "stem.position",
    r"vit\.embeddings\.patch_embeddings\.projection\.(\w+)": r"stem.map.\1",
    LAYER + r"layernorm_before\.(\w+)": HERE + r"before_attention.\2",
    LAYER + r"layernorm_after\.(\w+)": HERE + r"before_mlp.\2",
    LAYER + r"attention\.(?:attention\.query|q_proj)\.(\w+)": HERE + r"query.\2",
    LAYER + r"attention\.(?:attention\.key|k_proj)\.(\w+)": HERE + r"key.\2",
    LAYER + r"attention\.(?:attention\.value|v_proj)\.(\w+)": HERE + r"value.\2",
    LAYER + r"attention\.(?:output\.dense|o_proj)\.(\w+)": HERE + r"out.\2",
    LAYER + r"(?:intermediate\.dense|mlp\.fc1)\.(\w+)": HERE + r"up.\2",
    LAYER + r"(?:output\.dense|mlp\.fc2)\.(\w+)": HERE + r"down.\2",
    r"vit\.layernorm\.(\w+)": r"head.norm.\1",
    r"classifier\.(\w+)": r"head.map.\1",
}
FORMS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "stem.token": lambda token: token.flatten(),
    "stem.position": lambda position: position.squeeze(0),
    "stem.map.weight": lambda kernel: kernel.permute(0, 2, 3, 1).flatten(1),  # of a square, channels vary fastest
}


class ViT(Architecture):
    """Settings: `outputs`; `channels` and `size` of the images; `patch`, the side of a square; `dim`; `layers`;
    `heads`; `hidden`, units of the MLPs (4 * dim where not said); `eps` of the norms."""

    variants = {
        "vit_tiny": {"dim": 192, "heads": 3},
        "vit_small": {"dim": 384, "heads": 6},
        "vit_base": {"dim": 768, "heads": 12},
        "vit_large": {"dim": 1024, "heads": 16, "layers": 24},
    }
    published = {"vit_tiny": 5_717_416, "vit_small": 22_050_664, "vit_base": 86_567_656, "vit_large": 304_326_632}
    tiny = {"outputs": 3, "channels": 2, "size": (6, 6), "patch": 2, "dim": 8, "layers": 2, "heads": 2}

    def __init__(
        self,
        *,
        outputs: int = 1000,
        channels: int = 3,
        size: tuple[int, ...] = (224, 224),
        patch: int = 16,
        dim: int = 192,
        layers: int = 12,
        heads: int = 3,
        hidden: int | None = None,
        eps: float = 1e-6,
    ) -> None:
        at_least_one("vit", dim=dim, layers=layers, heads=heads)
        self.outputs, self.patches = outputs, patches("vit", channels, size, patch)
        self.dim, self.layers, self.heads, self.hidden, self.eps = dim, layers, heads, hidden, eps

    def spec(self) -> Spec:
        norm = Part("layer", {"eps": self.eps})
        layer = LayerSpec(Part("transformer", {"heads": self.heads, "hidden": self.hidden}), norm)
        return Spec(
            (Stage(Part("residual"), (layer,) * self.layers, self.dim),),
            Part("patches", {**self.patches, "class_token": True}),
            Part("first", {"outputs": self.outputs, "norm": str(norm)}),
        )

    def weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Those of a ``ViTForImageClassification`` of transformers."""
        found = renamed("vit", state, KEYS)
        return {name: FORMS[name](value) if name in FORMS else value for name, value in found.items()}
