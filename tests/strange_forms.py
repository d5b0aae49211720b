"""Other people's models with the multiply-adds that a person works out: message passing of PyG, tiny transformers.

As in closed_forms.py; the packages are imported when a case is made.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from closed_forms import Case, X

NODES, FROM, TO = 6, 5, 4
EDGES = torch.tensor([[0, 0, 1, 1, 2, 3, 4, 5, 5], [1, 2, 2, 3, 4, 5, 0, 1, 3]])
COUNT = EDGES.shape[1]
LOOPED = COUNT + NODES  # with an edge from each node to itself


def layer(name: str, *given: Any, **settings: Any) -> nn.Module:
    """A layer of PyG."""
    from torch_geometric import nn as layers

    made: nn.Module = getattr(layers, name)(*given, **settings)
    return made


def graph() -> tuple[Tensor, Tensor]:
    return X(NODES, FROM), EDGES


def graph_as_matrix() -> tuple[Tensor, Tensor]:
    from torch_geometric.utils import to_torch_csr_tensor

    return X(NODES, FROM), to_torch_csr_tensor(EDGES.flip(0), size=(NODES, NODES))


GRAPHS: dict[str, Case] = {  # a matrix product at each node, a sum over each edge
    "PyG GraphConv": Case(lambda: layer("GraphConv", FROM, TO), graph, 2 * NODES * FROM * TO + COUNT * FROM, 1),
    "PyG GraphConv, csr": Case(
        lambda: layer("GraphConv", FROM, TO), graph_as_matrix, 2 * NODES * FROM * TO + COUNT * FROM, 1
    ),
    "PyG SAGEConv": Case(
        lambda: layer("SAGEConv", FROM, TO, aggr="sum"), graph, 2 * NODES * FROM * TO + COUNT * FROM, 1
    ),
    "PyG GCNConv, csr": Case(
        lambda: layer("GCNConv", FROM, TO, normalize=False), graph_as_matrix, NODES * FROM * TO + COUNT * TO, 1
    ),
    "PyG GCNConv": Case(  # the degrees are sums over edges too
        lambda: layer("GCNConv", FROM, TO), graph, NODES * FROM * TO + LOOPED * TO + LOOPED, 1
    ),
    "PyG GINConv": Case(
        lambda: layer("GINConv", nn.Linear(FROM, TO)), graph, NODES * FROM * TO + COUNT * FROM, 1
    ),
    "PyG GATConv": Case(  # two heads: the sums of the softmax, and the messages
        lambda: layer("GATConv", FROM, TO, heads=2), graph, NODES * FROM * 2 * TO + LOOPED * 2 + LOOPED * 2 * TO, 1
    ),
    "PyG EdgeConv": Case(lambda: layer("EdgeConv", nn.Linear(2 * FROM, TO)), graph, COUNT * 2 * FROM * TO, 1),
}  # fmt: skip

ROWS, PLACES, DIM, HEADS, DEPTH, INNER, WORDS = 2, 7, 16, 4, 3, 32, 50
TOKENS, PATCHES = ROWS * PLACES, 16
SCORES = 2 * ROWS * PLACES * PLACES * DIM  # queries by keys, and weights by values
LAYER = TOKENS * (4 * DIM * DIM + 2 * DIM * INNER) + SCORES
HEAD = TOKENS * DIM * WORDS
ANGLES = PLACES * DIM // HEADS // 2  # of rotations: an outer product of places and frequencies
SIZES = {"hidden_size": DIM, "num_hidden_layers": DEPTH, "num_attention_heads": HEADS, "intermediate_size": INNER}
TEXT = {"vocab_size": WORDS, "max_position_embeddings": 16, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}


def model(name: str, config: str, **settings: Any) -> nn.Module:
    """A model of transformers with random weights."""
    import transformers

    made: nn.Module = getattr(transformers, name)(getattr(transformers, config)(**settings))
    return made


def gpt2(attention: str) -> nn.Module:
    sizes = {"n_embd": DIM, "n_layer": DEPTH, "n_head": HEADS, "n_inner": INNER, "n_positions": 16}
    ends = {"vocab_size": WORDS, "bos_token_id": 0, "eos_token_id": 0}
    return model("GPT2LMHeadModel", "GPT2Config", attn_implementation=attention, **sizes, **ends)


def llama() -> nn.Module:
    return model("LlamaForCausalLM", "LlamaConfig", num_key_value_heads=HEADS // 2, **SIZES, **TEXT)


def mixtral() -> nn.Module:
    experts = {"num_local_experts": 4, "num_experts_per_tok": 2, "num_key_value_heads": HEADS}
    return model("MixtralForCausalLM", "MixtralConfig", **{**SIZES, "num_hidden_layers": 1}, **TEXT, **experts)


def text() -> dict[str, Tensor]:
    return {"input_ids": torch.arange(TOKENS).view(ROWS, PLACES)}


def seen(places: int) -> int:
    """One layer over pictures of so many places."""
    return ROWS * places * (4 * DIM * DIM + 2 * DIM * INNER) + 2 * ROWS * places * places * DIM


MODELS: dict[str, Case] = {
    "BERT": Case(
        lambda: model("BertModel", "BertConfig", **SIZES, **TEXT), text, DEPTH * LAYER + ROWS * DIM * DIM, 4 * DEPTH + 1
    ),
    "GPT-2": Case(lambda: gpt2("sdpa"), text, DEPTH * LAYER + HEAD, 4 * DEPTH + 1),
    "GPT-2, attention written out": Case(lambda: gpt2("eager"), text, DEPTH * LAYER + HEAD, 4 * DEPTH + 1),
    "Llama": Case(  # half as many keys and values, three matrices in its MLP
        llama, text,
        DEPTH * (TOKENS * (3 * DIM * DIM + 3 * DIM * INNER) + SCORES) + HEAD + ANGLES, 4 * DEPTH + 1,
    ),
    "Mixtral": Case(  # one layer; each token goes to two experts of four
        mixtral, text, TOKENS * (4 * DIM * DIM + 4 * DIM + 2 * 3 * DIM * INNER) + SCORES + HEAD + ANGLES, 6,
    ),
    "ViT": Case(
        lambda: model("ViTModel", "ViTConfig", image_size=16, patch_size=4, **SIZES), lambda: X(ROWS, 3, 16, 16),
        ROWS * PATCHES * 3 * 16 * DIM + DEPTH * seen(PATCHES + 1) + ROWS * DIM * DIM, 1 + 4 * DEPTH + 1,
    ),
}  # fmt: skip
STRANGERS = {**GRAPHS, **MODELS}
