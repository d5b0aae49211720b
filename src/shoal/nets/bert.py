"""BERT: an encoder with norms behind its sums, two kinds of segments, and an answer from the first token.

    norm(tokens + positions + kinds) -> layers x ( norm(x + attention x);  norm(x + mlp x) ) -> tanh(pool x_0) -> map

Shapes   x: (batch, length) integers below vocabulary, or (batch, length, 2) with their kinds;  y: (batch, outputs)
Cost     about 12 * layers * dim^2 weights and multiply-adds a place
Papers   an-introduction-to-transformers
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from shoal.core.base import Architecture
from shoal.core.part import Part
from shoal.core.spec import LayerSpec, Spec, Stage
from shoal.nets._ends import at_least_one
from shoal.nets._keys import LEFT_OUT, renamed

LAYER = r"bert\.encoder\.layer\.(\d+)\."
ATTENTION, MLP = r"stages.0.layers.attention.\1.block.", r"stages.0.layers.mlp.\1.block."
NORMS = "stages.0.wiring.norms."
KEYS: Mapping[str, str] = {  # "attention.3" and "mlp.3" stand for layers 6 and 7: a layer of BERT is two here
    r"bert\.embeddings\.word_embeddings\.weight": "stem.table.weight",
    r"bert\.embeddings\.position_embeddings\.weight": "stem.position.weight",
    r"bert\.embeddings\.token_type_embeddings\.weight": "stem.kind.weight",
    r"bert\.embeddings\.position_ids": LEFT_OUT,  # older files hold 0, 1, 2 ...
    r"bert\.embeddings\.LayerNorm\.(\w+)": r"stem.norm.\1",
    LAYER + r"attention\.self\.(query|key|value)\.(\w+)": ATTENTION + r"\2.\3",
    LAYER + r"attention\.output\.dense\.(\w+)": ATTENTION + r"out.\2",
    LAYER + r"attention\.output\.LayerNorm\.(\w+)": NORMS + r"attention.\1.\2",
    LAYER + r"intermediate\.dense\.(\w+)": MLP + r"up.\2",
    LAYER + r"output\.dense\.(\w+)": MLP + r"down.\2",
    LAYER + r"output\.LayerNorm\.(\w+)": NORMS + r"mlp.\1.\2",
    r"bert\.pooler\.dense\.(\w+)": r"head.pool.\1",
    r"classifier\.(\w+)": r"head.map.\1",
}
PLACE = re.compile(r"(attention|mlp)\.(\d+)")


class BERT(Architecture):
    """Settings: `outputs`; `vocabulary`; `length`, the longest sequence; `kinds` of segments; `dim`; `layers`; `heads`;
    `hidden`, units of the MLPs (4 * dim where not said); `eps` of the norms."""

    variants = {"bert_base": {}, "bert_large": {"dim": 1024, "layers": 24, "heads": 16}}
    published = {"bert_base": 109_483_778}  # of them 109,482,240 without the map to two classes
    tiny = {"outputs": 3, "vocabulary": 7, "length": 6, "dim": 8, "layers": 2, "heads": 2}

    def __init__(
        self,
        *,
        outputs: int = 2,
        vocabulary: int = 30522,
        length: int = 512,
        kinds: int = 2,
        dim: int = 768,
        layers: int = 12,
        heads: int = 12,
        hidden: int | None = None,
        eps: float = 1e-12,
    ) -> None:
        at_least_one("bert", dim=dim, layers=layers, heads=heads)
        self.outputs, self.vocabulary, self.length, self.kinds = outputs, vocabulary, length, kinds
        self.dim, self.layers, self.heads, self.hidden, self.eps = dim, layers, heads, hidden, eps

    def spec(self) -> Spec:
        norm, bare = str(Part("layer", {"eps": self.eps})), Part("none")
        attention = LayerSpec(Part("attention", {"heads": self.heads}), bare)
        mlp = LayerSpec(Part("mlp", {"hidden": self.hidden, "act": "gelu"}), bare)
        words = {"vocabulary": self.vocabulary, "length": self.length, "kinds": self.kinds}
        return Spec(
            (Stage(Part("post_norm", {"norm": norm}), (attention, mlp) * self.layers, self.dim),),
            Part("tokens", {**words, "norm": norm}),
            Part("pooler", {"outputs": self.outputs}),
        )

    def weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Those of a ``BertForSequenceClassification`` of transformers."""
        found = renamed("bert", state, KEYS)
        return {_own(name): value for name, value in found.items()}


def _own(name: str) -> str:
    """A name of KEYS as the net has it: layers by number, weight and bias of norms where files say gamma and beta."""
    numbered = PLACE.sub(lambda found: str(2 * int(found[2]) + (found[1] == "mlp")), name)
    return numbered.replace(".gamma", ".weight").replace(".beta", ".bias")
