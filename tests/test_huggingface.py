"""Edited models of transformers: what from_pretrained opens gives the same, or why it cannot be written is said."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import shoal
from shoal.artifact.huggingface import is_pretrained, save_pretrained
from shoal.core.errors import BadArtifact, BadModel
from shoal.core.scene import answer
from shoal.edits.drop import Drop
from shoal.edits.quantize import Quantize
from shoal.recipe import edited

transformers = pytest.importorskip("transformers", reason="needs the extra 'huggingface': the models are transformers'")

SIZES = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 24}
TEXT = {"vocab_size": 11, "max_position_embeddings": 12}
ENDS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
IDS = torch.randint(1, 11, (2, 7), generator=torch.Generator().manual_seed(0))
WORDS = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}
IMAGES = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
PAIRS = {"input_ids": IDS, "decoder_input_ids": IDS}
SLIDING = {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 2}

# class, config, its settings, the list of layers, an example, the Auto class
CASES: dict[str, tuple[str, str, dict[str, Any], str, Any, str]] = {
    "bert": ("BertForSequenceClassification", "BertConfig", {**SIZES, **TEXT, "num_labels": 5},
             "bert.encoder.layer", WORDS, "AutoModelForSequenceClassification"),
    "roberta": ("RobertaForMaskedLM", "RobertaConfig", {**SIZES, **TEXT, **ENDS},
                "roberta.encoder.layer", WORDS, "AutoModelForMaskedLM"),
    "distilbert": ("DistilBertForSequenceClassification", "DistilBertConfig",
                   {"dim": 16, "n_layers": 4, "n_heads": 4, "hidden_dim": 24, **TEXT},
                   "distilbert.transformer.layer", WORDS, "AutoModelForSequenceClassification"),
    "gpt2": ("GPT2LMHeadModel", "GPT2Config",
             {"n_embd": 16, "n_layer": 4, "n_head": 4, "n_inner": 24, "n_positions": 12, "vocab_size": 11, **ENDS},
             "transformer.h", WORDS, "AutoModelForCausalLM"),
    "llama": ("LlamaForCausalLM", "LlamaConfig", {**SIZES, **TEXT, **ENDS, "num_key_value_heads": 2},
              "model.layers", WORDS, "AutoModelForCausalLM"),
    "mistral": ("MistralForCausalLM", "MistralConfig",
                {**SIZES, **TEXT, **ENDS, "num_key_value_heads": 2, "sliding_window": 4},
                "model.layers", WORDS, "AutoModelForCausalLM"),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config",
              {**SIZES, **TEXT, **ENDS, **SLIDING, "num_key_value_heads": 2, "tie_word_embeddings": True},
              "model.layers", WORDS, "AutoModelForCausalLM"),
    "vit": ("ViTForImageClassification", "ViTConfig", {**SIZES, "image_size": 12, "patch_size": 4, "num_labels": 5},
            "vit.encoder.layer", (IMAGES,), "AutoModelForImageClassification"),
    "t5": ("T5ForConditionalGeneration", "T5Config",
           {"d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 4, "num_heads": 4, "vocab_size": 11,
            "decoder_start_token_id": 0, "pad_token_id": 0},
           "decoder.block", PAIRS, "AutoModelForSeq2SeqLM"),
}  # fmt: skip
MLPS: dict[str, tuple[tuple[str, int], ...]] = {  # the matrices of an MLP within a layer, and the axis of its units
    "bert": (("intermediate.dense", 0), ("output.dense", 1)),
    "roberta": (("intermediate.dense", 0), ("output.dense", 1)),
    "distilbert": (("ffn.lin1", 0), ("ffn.lin2", 1)),
    "gpt2": (("mlp.c_fc", 1), ("mlp.c_proj", 0)),
    "llama": (("mlp.gate_proj", 0), ("mlp.up_proj", 0), ("mlp.down_proj", 1)),
    "mistral": (("mlp.gate_proj", 0), ("mlp.up_proj", 0), ("mlp.down_proj", 1)),
    "qwen2": (("mlp.gate_proj", 0), ("mlp.up_proj", 0), ("mlp.down_proj", 1)),
    "t5": (("layer.2.DenseReluDense.wi", 0), ("layer.2.DenseReluDense.wo", 1)),
}


def model(name: str, **more: Any) -> Any:
    """A tiny model with all its weights off their initial values, so that no two layers are alike."""
    cls, config, settings, *_ = CASES[name]
    torch.manual_seed(0)
    made = getattr(transformers, cls)(getattr(transformers, config)(**{**settings, **more})).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) / 5)
    return made


def layers_of(made: nn.Module, name: str) -> nn.ModuleList:
    """The list of layers; where a version of transformers names it otherwise, the one that is as long."""
    path = CASES[name][3]
    found = [part for at, part in made.named_modules() if isinstance(part, nn.ModuleList) and len(part) == 4]
    named = dict(made.named_modules()).get(path)
    assert found
    return named if isinstance(named, nn.ModuleList) else found[0]


def path_of(made: nn.Module, part: nn.Module) -> str:
    return next(path for path, each in made.named_modules() if each is part)


def shortened(name: str, *gone: int, **more: Any) -> Any:
    """The model without some layers: by the edit, or out of the list where a layer gives a tuple."""
    made = model(name, **more)
    layers = layers_of(made, name)
    path = path_of(made, layers)
    if name == "t5":
        made.set_submodule(path, nn.ModuleList(layer for i, layer in enumerate(layers) if i not in gone))
        return made
    for number in gone:
        made = edited(made, Drop(path=f"{path}.{number}"))
    return made


def given(module: nn.Module, name: str) -> Tensor:
    example = CASES[name][4]
    with torch.no_grad():
        return answer(module(**example) if isinstance(example, dict) else module(*example))


def opened(name: str, folder: Path) -> Any:
    return getattr(transformers, CASES[name][5]).from_pretrained(folder).eval()


@pytest.mark.parametrize("gone", [(1,), (1, 3)], ids=["one", "two"])
@pytest.mark.parametrize("name", CASES)
def test_a_model_without_layers_comes_back_the_same(name: str, gone: tuple[int, ...], tmp_path: Path) -> None:
    made = shortened(name, *gone)
    before = {key: value.clone() for key, value in made.state_dict().items()}
    wanted = given(made, name)
    assert not torch.allclose(wanted, given(model(name), name), atol=1e-3)
    folder = save_pretrained(made, CASES[name][4], tmp_path / "model")
    again = opened(name, folder)
    assert torch.allclose(given(again, name), wanted, atol=1e-5)
    assert len(dict(again.named_modules())[path_of(made, layers_like(made, name))]) == 4 - len(gone)
    assert sum(p.numel() for p in again.parameters()) < sum(p.numel() for p in model(name).parameters())
    assert all(torch.equal(value, before[key]) for key, value in made.state_dict().items())
    numbers = [part.layer_idx for path, part in again.named_modules() if getattr(part, "layer_idx", None) is not None]
    assert set(numbers) <= set(range(4))


def layers_like(made: nn.Module, name: str) -> nn.Module:
    """The list of layers of a model from which some may have gone."""
    path = path_of(fresh := model(name), layers_of(fresh, name))
    return made.get_submodule(path)


@pytest.mark.parametrize("name", MLPS)
def test_a_model_whose_inner_widths_fell_alike_comes_back_the_same(name: str, tmp_path: Path) -> None:
    made = model(name)
    narrow(made, name, range(4), 10)
    wanted = given(made, name)
    folder = save_pretrained(made, CASES[name][4], tmp_path / "model")
    assert torch.allclose(given(opened(name, folder), name), wanted, atol=1e-5)
    with pytest.raises(BadArtifact, match="exists already"):
        save_pretrained(made, CASES[name][4], folder)


def narrow(made: nn.Module, name: str, numbers: Any, width: int) -> None:
    """The first units of some MLPs alone; of an encoder and a decoder alike."""
    lists = [part for part in made.modules() if isinstance(part, nn.ModuleList) and len(part) == 4]
    for layers in lists:
        for number in numbers:
            for path, axis in MLPS[name]:
                if name == "t5" and len(layers[0].layer) == 2:
                    path = path.replace("layer.2", "layer.1")
                matrix: Any = layers[number].get_submodule(path)
                matrix.weight = nn.Parameter(matrix.weight.detach().narrow(axis, 0, width).clone())
                units = axis == (1 if name == "gpt2" else 0)
                if matrix.bias is not None and units:
                    matrix.bias = nn.Parameter(matrix.bias.detach()[:width].clone())
                if name == "gpt2" and units:
                    matrix.nf = width


def test_fewer_heads_are_said_where_the_config_can(tmp_path: Path) -> None:
    """Llama has the width of a head in its config: half of the heads may go, of every layer."""
    made = model("llama")
    for layer in made.model.layers:
        attention = layer.self_attn
        for linear, axis, kept in (
            (attention.q_proj, 0, 8),
            (attention.k_proj, 0, 4),
            (attention.v_proj, 0, 4),
            (attention.o_proj, 1, 8),
        ):
            linear.weight = nn.Parameter(linear.weight.detach().narrow(axis, 0, kept).clone())
    wanted = given(made, "llama")
    again = opened("llama", save_pretrained(made, WORDS, tmp_path / "model"))
    assert (again.config.num_attention_heads, again.config.num_key_value_heads, again.config.head_dim) == (2, 1, 4)
    assert torch.allclose(given(again, "llama"), wanted, atol=1e-5)


def test_sliding_layers_keep_their_kind(tmp_path: Path) -> None:
    again = opened("qwen2", save_pretrained(shortened("qwen2", 1), WORDS, tmp_path / "model"))
    assert again.config.layer_types == ["full_attention", "sliding_attention", "sliding_attention"]
    assert again.config.max_window_layers == 1


@pytest.mark.parametrize("tied", [True, False])
def test_ties_stay_what_they_are(tied: bool, tmp_path: Path) -> None:
    again = opened("llama", save_pretrained(shortened("llama", 0, tie_word_embeddings=tied), WORDS, tmp_path / "model"))
    assert (again.lm_head.weight is again.model.embed_tokens.weight) == tied


def test_a_tie_that_was_cut_is_said(tmp_path: Path) -> None:
    made = shortened("qwen2", 2)
    made.lm_head.weight = nn.Parameter(torch.randn_like(made.lm_head.weight))
    wanted = given(made, "qwen2")
    again = opened("qwen2", save_pretrained(made, WORDS, tmp_path / "model"))
    assert torch.allclose(given(again, "qwen2"), wanted, atol=1e-5)


def half(made: Any) -> nn.Module:
    return edited(made, Drop(path="model.layers.1.mlp", branch=True))


def uneven(made: Any) -> nn.Module:
    narrow(made, "llama", [1], 10)
    return made


def quantised(made: Any) -> nn.Module:
    return edited(made, Quantize(kind="weights", paths=("model.layers.0.mlp.up_proj",)))


def none_left(made: Any) -> nn.Module:
    for number in range(4):
        made = edited(made, Drop(path=f"model.layers.{number}"))
    return made


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (half, "model.layers.1.mlp was taken out of a layer"),
        (uneven, "narrow all layers alike, or use the .pt2"),
        (quantised, "is no weight that its config says"),
        (none_left, "model.layers has no layer left"),
    ],
)
def test_what_the_format_cannot_say_is_said_and_nothing_is_written(
    change: Callable[[Any], nn.Module], said: str, tmp_path: Path
) -> None:
    with pytest.raises(BadModel, match=said) as error:
        save_pretrained(change(model("llama")), WORDS, tmp_path / "model")
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_what_hangs_on_a_layer_s_number_is_found_out(tmp_path: Path) -> None:
    """This GPT-2 divides by the number of the layer, which is another one once a layer has gone."""
    made = shortened("gpt2", 1, scale_attn_by_inverse_layer_idx=True)
    with pytest.raises(BadModel, match=r"read again it is .* off"):
        save_pretrained(made, WORDS, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_only_models_of_transformers(tmp_path: Path) -> None:
    assert is_pretrained(model("bert"))
    assert not is_pretrained(nn.Linear(2, 2))
    with pytest.raises(BadModel, match="Linear: is no model of transformers"):
        save_pretrained(nn.Linear(2, 2), torch.randn(1, 2), tmp_path / "model")


def test_a_run_folder_holds_it(tmp_path: Path) -> None:
    made = shortened("bert", 2)
    shoal.save(made, tmp_path / "run", example=WORDS, onnx=False)
    again = opened("bert", tmp_path / "run" / "huggingface")
    assert torch.allclose(given(again, "bert"), given(made, "bert"), atol=1e-5)
    facts = json.loads((tmp_path / "run" / "shoal.json").read_text())
    assert facts["huggingface"] == {"folder": "huggingface"}
    assert "huggingface/model.safetensors" in facts["files"]
    assert "from_pretrained" in (tmp_path / "run" / "README.md").read_text()
    loaded = shoal.load(tmp_path / "run")
    assert torch.allclose(answer(loaded(**WORDS)), given(made, "bert"), atol=1e-5)
    path = tmp_path / "run" / "huggingface" / "config.json"
    path.write_text(path.read_text().replace("16", "17"))
    with pytest.raises(BadArtifact, match=r"config\.json: is truncated or was changed"):
        shoal.load(tmp_path / "run")


def test_a_run_folder_says_why_it_holds_none(tmp_path: Path) -> None:
    made = copy.deepcopy(half(model("llama")))
    shoal.save(made, tmp_path / "run", example=WORDS, onnx=False)
    facts = json.loads((tmp_path / "run" / "shoal.json").read_text())
    assert "was taken out of a layer" in facts["huggingface"]["missing"]
    assert not (tmp_path / "run" / "huggingface").exists()
    assert "`huggingface` is not there" in (tmp_path / "run" / "README.md").read_text()
