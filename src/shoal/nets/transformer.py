"""Transformer: tokens through a stack of attention and MLPs; an encoder, or a decoder that reads only backwards.

    tokens -> layers x ( x + attention(norm x);  x + mlp(norm x) ) -> norm -> map          norm before: "pre"
    tokens -> layers x ( norm(x + attention x);  norm(x + mlp x) ) -> map                  norm behind: "post"

An encoder answers once, from the mean over all places; a decoder at every place.

Shapes   x: (batch, length) integers below vocabulary;  y: (batch, outputs), of a decoder (batch, length, outputs)
Cost     about 12 * layers * dim^2 weights and multiply-adds a place
Papers   an-introduction-to-transformers
"""

from __future__ import annotations

from typing import Literal

from shoal.core.base import Architecture
from shoal.core.part import Part, Value
from shoal.core.spec import LayerSpec, Spec, Stage
from shoal.nets._ends import answer, at_least_one


class TransformerNet(Architecture):
    """Settings: `outputs`; `vocabulary`; `length`, the longest sequence; `dim`; `layers`; `heads`; `hidden`, units of
    the MLPs (4 * dim where not said); `act`; `norm`, "pre" or "post"; `causal`, whether it is a decoder."""

    variants = {"transformer_encoder": {"causal": False}, "transformer_decoder": {"causal": True}}
    tiny = {"outputs": 3, "vocabulary": 7, "length": 6, "dim": 8, "layers": 2, "heads": 2}

    def __init__(
        self,
        *,
        outputs: int = 2,
        vocabulary: int = 256,
        length: int = 256,
        dim: int = 128,
        layers: int = 4,
        heads: int = 4,
        hidden: int | None = None,
        act: str = "gelu",
        norm: Literal["pre", "post"] = "pre",
        causal: bool = False,
    ) -> None:
        at_least_one("transformer", dim=dim, layers=layers, heads=heads)
        self.outputs, self.vocabulary, self.length, self.dim, self.layers = outputs, vocabulary, length, dim, layers
        self.heads, self.hidden, self.act, self.norm, self.causal = heads, hidden, act, norm, causal

    def spec(self) -> Spec:
        return Spec(
            (self._stage(),),
            Part("tokens", {"vocabulary": self.vocabulary, "length": self.length}),
            answer(self.outputs, "layer" if self.norm == "pre" else "none", every=self.causal),
        )

    def _stage(self) -> Stage:
        """A layer of both where the norm comes before; where it comes behind, a layer of each."""
        attention: dict[str, Value] = {"heads": self.heads, "causal": self.causal}
        mlp: dict[str, Value] = {"hidden": self.hidden, "act": self.act}
        if self.norm == "pre":
            layer = LayerSpec(Part("transformer", {**attention, **mlp}))
            return Stage(Part("residual"), (layer,) * self.layers, self.dim)
        bare = Part("none")
        pair = LayerSpec(Part("attention", attention), bare), LayerSpec(Part("mlp", mlp), bare)
        return Stage(Part("post_norm"), pair * self.layers, self.dim)
