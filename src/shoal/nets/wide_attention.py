"""Wide attention: a number of heads spread over few layers, or over many; all else is kept.

    tokens -> layers x ( x + attention(norm x);  x + mlp(norm x) ) -> mean of norm -> map        heads / layers a layer

There are as many weights of attention at any number of layers, and as many MLPs as layers: the shallow net is small.

Shapes   x: (batch, length) integers below vocabulary;  y: (batch, outputs), or where causal (batch, length, outputs)
Cost     4 * heads * head_dim * dim weights of attention, 2 * layers * dim * hidden of MLPs
Papers   wide-attention-is-the-way-forward
"""

from __future__ import annotations

from shoal.core.base import Architecture
from shoal.core.errors import BadSetting
from shoal.core.part import Part
from shoal.core.spec import LayerSpec, Spec, Stage
from shoal.nets._ends import answer, at_least_one


class WideAttention(Architecture):
    """Settings: `outputs`; `vocabulary`; `length`, the longest sequence; `dim`; `layers`; `heads` of all layers
    together; `head_dim`; `hidden`, units of an MLP (4 * dim where not said); `causal`, whether each place answers and
    reads only those before it."""

    variants = {
        "wide_attention_6x8": {"layers": 6},
        "wide_attention_3x16": {"layers": 3},
        "wide_attention_2x24": {"layers": 2},
        "wide_attention_1x48": {"layers": 1},
    }
    tiny = {"outputs": 3, "vocabulary": 7, "length": 6, "dim": 8, "layers": 2, "heads": 4, "head_dim": 4}

    def __init__(
        self,
        *,
        outputs: int = 2,
        vocabulary: int = 256,
        length: int = 256,
        dim: int = 128,
        layers: int = 1,
        heads: int = 48,
        head_dim: int = 16,
        hidden: int | None = None,
        causal: bool = False,
    ) -> None:
        at_least_one("wide_attention", dim=dim, layers=layers, heads=heads, head_dim=head_dim)
        if heads % layers:
            raise BadSetting(f"net wide_attention: {heads} heads cannot be spread evenly over {layers} layers")
        self.outputs, self.vocabulary, self.length, self.dim, self.layers = outputs, vocabulary, length, dim, layers
        self.heads, self.head_dim, self.hidden, self.causal = heads // layers, head_dim, hidden, causal

    def spec(self) -> Spec:
        sizes = {"heads": self.heads, "head_dim": self.head_dim, "hidden": self.hidden}
        layer = LayerSpec(Part("transformer", {**sizes, "causal": self.causal}))
        return Spec(
            (Stage(Part("residual"), (layer,) * self.layers, self.dim),),
            Part("tokens", {"vocabulary": self.vocabulary, "length": self.length}),
            answer(self.outputs, "layer", every=self.causal),
        )
