"""GPT-2: a decoder with norms before, the tanh form of GELU, and scores of all tokens at every place.

    tokens -> layers x ( x + attention(norm x);  x + mlp(norm x) ) -> norm -> map without bias

The published model scores with the table of its tokens; here the head has a copy, vocabulary * dim weights more.

Shapes   x: (batch, length) integers below vocabulary;  y: (batch, length, outputs), outputs = vocabulary
Cost     about 12 * layers * dim^2 weights and multiply-adds a place, and 2 * vocabulary * dim weights
Papers   an-introduction-to-transformers
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from shoal.core.base import Architecture
from shoal.core.part import Part
from shoal.core.spec import LayerSpec, Spec, Stage
from shoal.nets._ends import at_least_one
from shoal.nets._keys import LEFT_OUT, renamed

LAYER = r"(?:transformer\.)?h\.(\d+)\."
HERE = r"stages.0.layers.\1.block."
KEYS: Mapping[str, str] = {
    r"(?:transformer\.)?wte\.weight": "stem.table.weight",
    r"(?:transformer\.)?wpe\.weight": "stem.position.weight",
    LAYER + r"attn\.(?:bias|masked_bias)": LEFT_OUT,  # what older files hold of the causal mask
    LAYER + r"ln_1\.(\w+)": HERE + r"before_attention.\2",
    LAYER + r"ln_2\.(\w+)": HERE + r"before_mlp.\2",
    LAYER + r"attn\.c_attn\.(\w+)": HERE + r"qkv.\2",
    LAYER + r"attn\.c_proj\.(\w+)": HERE + r"out.\2",
    LAYER + r"mlp\.c_fc\.(\w+)": HERE + r"up.\2",
    LAYER + r"mlp\.c_proj\.(\w+)": HERE + r"down.\2",
    r"(?:transformer\.)?ln_f\.(\w+)": r"head.norm.\1",
    r"lm_head\.weight": "head.map.weight",
}


class GPT2(Architecture):
    """Settings: `vocabulary`; `length`, the longest sequence; `dim`; `layers`; `heads`; `hidden`, units of the MLPs
    (4 * dim where not said); `eps` of the norms."""

    variants = {
        "gpt2_medium": {"dim": 1024, "layers": 24, "heads": 16},
        "gpt2_large": {"dim": 1280, "layers": 36, "heads": 20},
        "gpt2_xl": {"dim": 1600, "layers": 48, "heads": 25},
    }
    tiny = {"vocabulary": 7, "length": 6, "dim": 8, "layers": 2, "heads": 2}

    def __init__(
        self,
        *,
        vocabulary: int = 50257,
        length: int = 1024,
        dim: int = 768,
        layers: int = 12,
        heads: int = 12,
        hidden: int | None = None,
        eps: float = 1e-5,
    ) -> None:
        at_least_one("gpt2", dim=dim, layers=layers, heads=heads)
        self.vocabulary, self.length, self.dim, self.layers = vocabulary, length, dim, layers
        self.heads, self.hidden, self.eps = heads, hidden, eps

    def spec(self) -> Spec:
        norm = Part("layer", {"eps": self.eps})
        sizes = {"heads": self.heads, "hidden": self.hidden}
        layer = LayerSpec(Part("transformer", {**sizes, "act": "gelu_tanh", "causal": True}), norm)
        return Spec(
            (Stage(Part("residual"), (layer,) * self.layers, self.dim),),
            Part("tokens", {"vocabulary": self.vocabulary, "length": self.length}),
            Part("every", {"outputs": self.vocabulary, "norm": str(norm), "bias": False}),
        )

    def weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Those of a ``GPT2LMHeadModel`` or ``GPT2Model`` of transformers, with or without the scores' copy of the
        table; matrices are stored there as (inputs, outputs)."""
        found: dict[str, Tensor] = {}
        for name, value in renamed("gpt2", state, KEYS).items():
            if ".block." in name and value.dim() == 2:
                value = value.mT
            if ".qkv." in name:
                parts = zip(("query", "key", "value"), value.chunk(3), strict=True)
                found |= {name.replace("qkv", part): each for part, each in parts}
            else:
                found[name] = value
        if "stem.table.weight" in found:
            found.setdefault("head.map.weight", found["stem.table.weight"])
        return found
