"""Published weights of transformers, from random tiny configurations: ViT, BERT and GPT-2 give equal outputs here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from shoal.core.base import Architecture
from shoal.core.errors import BadModel, Refused
from shoal.core.part import Part
from shoal.kinds import NETS
from shoal.net import Net, load_net

transformers = pytest.importorskip("transformers", reason="needs the extra 'huggingface': the models are transformers'")

DIM, DEPTH, HEADS, INNER, WORDS, LENGTH = 16, 3, 4, 24, 11, 12
SIZES = {"hidden_size": DIM, "num_hidden_layers": DEPTH, "num_attention_heads": HEADS, "intermediate_size": INNER}
OURS = {"dim": DIM, "layers": DEPTH, "heads": HEADS, "hidden": INNER}


def theirs(name: str, config: str, **settings: Any) -> nn.Module:
    """A model of transformers in float64 and eval, all its weights off their initial values."""
    torch.manual_seed(0)
    made: nn.Module = getattr(transformers, name)(getattr(transformers, config)(**settings)).double().eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.empty_like(parameter).uniform_(-0.3, 0.3))
    return made


def vit() -> nn.Module:
    image = {"image_size": 12, "patch_size": 4, "num_channels": 3, "num_labels": 5}
    return theirs("ViTForImageClassification", "ViTConfig", **SIZES, **image, layer_norm_eps=1e-6)


def bert() -> nn.Module:
    text = {"vocab_size": WORDS, "max_position_embeddings": LENGTH, "type_vocab_size": 2, "num_labels": 5}
    return theirs("BertForSequenceClassification", "BertConfig", **SIZES, **text)


def gpt2() -> nn.Module:
    sizes = {"n_embd": DIM, "n_layer": DEPTH, "n_head": HEADS, "n_inner": INNER, "n_positions": LENGTH}
    ends = {"vocab_size": WORDS, "bos_token_id": 0, "eos_token_id": 0}
    return theirs("GPT2LMHeadModel", "GPT2Config", **sizes, **ends)


def architecture(name: str) -> Architecture:
    settings = {
        "vit": {**OURS, "outputs": 5, "size": (12, 12), "patch": 4},
        "bert": {**OURS, "outputs": 5, "vocabulary": WORDS, "length": LENGTH},
        "gpt2": {**OURS, "vocabulary": WORDS, "length": LENGTH},
    }[name]
    made: Architecture = NETS.make(Part(name, settings))
    return made


def loaded(name: str, state: Mapping[str, Tensor]) -> Net:
    made = architecture(name)
    return load_net(made.spec(), made.weights(state))


def published(model: nn.Module, folder: Path) -> dict[str, Tensor]:
    """The weights as a published file holds them."""
    model.save_pretrained(folder)
    return load_file(folder / "model.safetensors")


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("from_file", [False, True])
def test_vit(from_file: bool, tmp_path: Path) -> None:
    model = vit()
    net = loaded("vit", published(model, tmp_path) if from_file else model.state_dict())
    x = torch.randn(2, 3, 12, 12, dtype=torch.float64)
    close(net(x.movedim(1, -1)), model(x).logits)
    assert sum(w.numel() for w in net.parameters()) == sum(w.numel() for w in model.parameters())


@pytest.mark.parametrize("from_file", [False, True])
def test_bert(from_file: bool, tmp_path: Path) -> None:
    model = bert()
    net = loaded("bert", published(model, tmp_path) if from_file else model.state_dict())
    words = torch.randint(WORDS, (2, 7))
    close(net(words), model(words).logits)
    assert sum(w.numel() for w in net.parameters()) == sum(w.numel() for w in model.parameters())


def test_bert_with_segments_and_a_mask() -> None:
    model = bert()
    net = loaded("bert", model.state_dict())
    words, kinds = torch.randint(WORDS, (2, 7)), torch.randint(2, (2, 7))
    mask = torch.ones(2, 7, dtype=torch.bool)
    mask[1, 4:] = False
    wanted = model(words, token_type_ids=kinds, attention_mask=mask.long()).logits
    close(net(torch.stack((words, kinds), dim=-1), context={"mask": mask}), wanted)
    assert not torch.allclose(net(words), wanted)


def test_bert_at_every_layer() -> None:
    model = bert()
    net = loaded("bert", model.state_dict())
    words = torch.randint(WORDS, (2, 7))
    states = model(words, output_hidden_states=True).hidden_states
    stream = {}
    net(words, see=lambda place, x: stream.update({place.layer: x}) if place.end == "in" else None)
    for index in range(DEPTH):
        close(stream[2 * index], states[index])


def test_old_files_say_gamma_and_beta_and_hold_positions() -> None:
    state = dict(bert().state_dict())
    old = {name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
           for name, value in state.items()}  # fmt: skip
    old["bert.embeddings.position_ids"] = torch.arange(LENGTH)[None]
    words = torch.randint(WORDS, (2, 7))
    assert torch.equal(loaded("bert", old)(words), loaded("bert", state)(words))


@pytest.mark.parametrize("from_file", [False, True])
def test_gpt2(from_file: bool, tmp_path: Path) -> None:
    model = gpt2()
    net = loaded("gpt2", published(model, tmp_path) if from_file else model.state_dict())
    words = torch.randint(WORDS, (2, 9))
    close(net(words), model(words).logits)
    tied = sum(w.numel() for w in model.parameters())
    assert sum(w.numel() for w in net.parameters()) == tied + WORDS * DIM


def test_gpt2_from_a_file_of_the_model_without_scores() -> None:
    """The first published files: no prefix, no scores, and the causal mask among the weights."""
    model = gpt2()
    state = {name.removeprefix("transformer."): w for name, w in model.state_dict().items() if "lm_head" not in name}
    state |= {f"h.{i}.attn.bias": torch.ones(1, 1, LENGTH, LENGTH) for i in range(DEPTH)}
    words = torch.randint(WORDS, (2, 9))
    close(loaded("gpt2", state)(words), model(words).logits)


@pytest.mark.parametrize("name", ["vit", "bert", "gpt2"])
def test_the_map_does_not_touch_what_it_is_given(name: str) -> None:
    state = {"vit": vit, "bert": bert, "gpt2": gpt2}[name]().state_dict()
    before = {key: value.clone() for key, value in state.items()}
    net = loaded(name, state)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    assert state.keys() == before.keys()
    assert all(torch.equal(state[key], value) for key, value in before.items())


@pytest.mark.parametrize("name", ["vit", "bert", "gpt2"])
def test_what_has_no_place_and_what_is_missing_is_said(name: str) -> None:
    state = dict({"vit": vit, "bert": bert, "gpt2": gpt2}[name]().state_dict())
    with pytest.raises(Refused, match=rf"net {name}: the weight 'extra\.weight' has no place in it"):
        loaded(name, {**state, "extra.weight": torch.zeros(1)})
    norm = next(key for key in state if any(word in key for word in ("LayerNorm", "layernorm", "ln_")))
    with pytest.raises(BadModel, match="missing"):
        loaded(name, {key: value for key, value in state.items() if key != norm})


def test_two_weights_of_one_name_are_refused() -> None:
    state = dict(gpt2().state_dict())
    with pytest.raises(Refused, match=r"'wte\.weight' is the second weight that would become 'stem\.table\.weight'"):
        loaded("gpt2", {**state, "wte.weight": state["transformer.wte.weight"]})
