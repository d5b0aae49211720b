"""WideNet: one layer of attention and one mixture of experts, visited again and again, each time with norms of its own.

    patches -> layers x ( x + attention(norm_l x);  x + moe(norm'_l x) ) -> norm of the class token -> map

The norms make the tokens of each visit differ, and so reach different experts.

Shapes   x: (batch, height, width, channels);  y: (batch, outputs)
Cost     the multiply-adds of `layers` layers; the weights of one, and 4 * layers * dim of the norms
Exact when the norms are shared too: one layer looped
Papers   go-wider-instead-of-deeper
"""

from __future__ import annotations

from shoal.core.base import Architecture
from shoal.core.part import Part
from shoal.core.spec import LayerSpec, Spec, Stage
from shoal.nets._ends import at_least_one, patches


class WideNet(Architecture):
    """Settings: `outputs`; `channels` and `size` of the images; `patch`, the side of a square; `dim`; `layers`, how
    often the two are visited; `heads`; `experts`; `top`, how many experts a place is given to; `hidden`, units of an
    expert (4 * dim where not said); `own_norms`, whether each visit has its own."""

    variants = {
        "widenet_base": {"dim": 768, "heads": 12, "layers": 12},
        "widenet_large": {"dim": 1024, "heads": 16, "layers": 24},
    }
    tiny = {
        "outputs": 3, "channels": 2, "size": (6, 6), "patch": 2, "dim": 8, "layers": 2, "heads": 2, "experts": 3
    }  # fmt: skip

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
        experts: int = 4,
        top: int = 2,
        hidden: int | None = None,
        own_norms: bool = True,
    ) -> None:
        at_least_one("widenet", dim=dim, layers=layers, heads=heads)
        self.outputs, self.patches = outputs, patches("widenet", channels, size, patch)
        self.dim, self.layers, self.heads, self.own_norms = dim, layers, heads, own_norms
        self.experts, self.top, self.hidden = experts, top, hidden

    def spec(self) -> Spec:
        attention = LayerSpec(Part("attention", {"heads": self.heads}))
        experts = LayerSpec(Part("moe", {"experts": self.experts, "top": self.top, "hidden": self.hidden}))
        order = (0, 1) * self.layers
        return Spec(
            (Stage(Part("residual"), (attention, experts), self.dim, order, own_norms=self.own_norms),),
            Part("patches", {**self.patches, "class_token": True}),
            Part("first", {"outputs": self.outputs}),
        )
