"""DeLighT: blocks that are narrow and deep, the deeper and wider the nearer to the output, with small MLPs between.

    tokens -> blocks x ( x + delight(norm x);  x + mlp(norm x), of dim / 4 units ) -> norm -> map

    layers of block b = shortest + (longest - shortest) * b / (blocks - 1)                      rounded
    widening of block b = widen + (longest - shortest) * b / (shortest * (blocks - 1))

Shapes   x: (batch, length) integers below vocabulary;  y: (batch, outputs), or where causal (batch, length, outputs)
Cost     see the block; in depth, the sum over blocks of (layers of block b + 4): two of attention, two of the MLP
Exact when shortest = longest: all blocks are alike
Papers   delight-deep-and-light-weight-transformer
"""

from __future__ import annotations

from shoal.core.base import Architecture
from shoal.core.errors import BadSetting
from shoal.core.part import Part
from shoal.core.spec import LayerSpec, Spec, Stage
from shoal.nets._ends import answer, at_least_one


class DeLighTNet(Architecture):
    """Settings: `outputs`; `vocabulary`; `length`, the longest sequence; `dim`; `blocks`; `shortest` and `longest`, the
    grouped matrices of the first block and of the last; `widen` of the first block; `groups`, at most; `causal`,
    whether each place answers and reads only those before it."""

    tiny = {"outputs": 3, "vocabulary": 7, "length": 6, "dim": 8, "blocks": 2, "shortest": 2, "longest": 4, "groups": 4}

    def __init__(
        self,
        *,
        outputs: int = 2,
        vocabulary: int = 256,
        length: int = 256,
        dim: int = 128,
        blocks: int = 4,
        shortest: int = 4,
        longest: int = 8,
        widen: float = 2.0,
        groups: int = 8,
        causal: bool = False,
    ) -> None:
        at_least_one("delight", dim=dim, blocks=blocks, groups=groups)
        if not 2 <= shortest <= longest:
            raise BadSetting(
                f"net delight: shortest={shortest}, longest={longest}; give at least 2, and longest no less"
            )
        self.outputs, self.vocabulary, self.length, self.dim, self.blocks = outputs, vocabulary, length, dim, blocks
        self.shortest, self.longest, self.widen, self.groups, self.causal = shortest, longest, widen, groups, causal

    def spec(self) -> Spec:
        light = LayerSpec(Part("mlp", {"hidden": max(self.dim // 4, 1), "act": "gelu"}))
        layers = [each for block in range(self.blocks) for each in (LayerSpec(self._block(block)), light)]
        return Spec(
            (Stage(Part("residual"), tuple(layers), self.dim),),
            Part("tokens", {"vocabulary": self.vocabulary, "length": self.length}),
            answer(self.outputs, "layer", every=self.causal),
        )

    def _block(self, number: int) -> Part:
        """The block of that number, scaled by how near to the output it stands."""
        longer = (self.longest - self.shortest) * number / max(self.blocks - 1, 1)
        sizes = {"layers": self.shortest + round(longer), "widen": self.widen + longer / self.shortest}
        return Part("delight", {**sizes, "groups": self.groups, "causal": self.causal})
