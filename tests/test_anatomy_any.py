"""Anatomy and runs of whatever modules there are: tuples, dicts, ModelOutputs, keywords, caches, hooks, things written
in place and used again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shoal.anatomy import anatomy
from shoal.core.errors import BadModel
from shoal.core.resuming import Resumable
from shoal.core.scene import Batch, Scene, answer
from shoal.core.spans import Anatomy, Step, Visit
from shoal.edits.drop import Drop
from shoal.interventions.loop import Loop
from shoal.interventions.skip import Skip
from shoal.recipe import edited

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24}
IDS = torch.randint(0, 11, (2, 7), generator=torch.Generator().manual_seed(0))


def hugging(name: str, config: str, **settings: Any) -> nn.Module:
    """A tiny model of transformers, its weights drawn at random."""
    transformers = pytest.importorskip("transformers", reason="needs the extra 'huggingface'")
    torch.manual_seed(0)
    made: nn.Module = getattr(transformers, name)(getattr(transformers, config)(**settings))
    return made.eval()


def bert() -> tuple[nn.Module, Any]:
    sizes = {"vocab_size": 11, "max_position_embeddings": 12, "num_labels": 5}
    example = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}
    return hugging("BertForSequenceClassification", "BertConfig", **SIZES, **sizes), example


def gpt2() -> tuple[nn.Module, Any]:
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_inner": 24, "n_positions": 12, "vocab_size": 11}
    return hugging("GPT2LMHeadModel", "GPT2Config", **sizes, bos_token_id=0, eos_token_id=0), {"input_ids": IDS}


def llama() -> tuple[nn.Module, Any]:
    sizes = {"num_key_value_heads": 2, "vocab_size": 11, "max_position_embeddings": 12}
    return hugging("LlamaForCausalLM", "LlamaConfig", **SIZES, **sizes, bos_token_id=0, eos_token_id=0), IDS


def vit() -> tuple[nn.Module, Any]:
    sizes = {"image_size": 12, "patch_size": 4, "num_channels": 3, "num_labels": 5}
    images = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    return hugging("ViTForImageClassification", "ViTConfig", **SIZES, **sizes), (images,)


def t5() -> tuple[nn.Module, Any]:
    sizes = {"d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 2, "num_heads": 4, "vocab_size": 11}
    model = hugging("T5ForConditionalGeneration", "T5Config", **sizes, decoder_start_token_id=0, pad_token_id=0)
    return model, {"input_ids": IDS, "decoder_input_ids": IDS}


class TupleOut(nn.Module):
    """A sublayer that gives its scores beside its answer, and one that takes its input by name."""

    def __init__(self, dim: int = 8) -> None:
        super().__init__()
        self.first, self.second = Scored(dim), Named(dim)

    def forward(self, x: Tensor) -> tuple[None, dict[str, Tensor]]:
        y, scores = self.first(x)
        x = x + y
        x = x + self.second(states=x)
        return None, {"last": x, "scores": scores}


class Scored(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.map = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.map(x).tanh()
        return y, y.softmax(dim=-1)


class Named(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.map = nn.Linear(dim, dim)

    def forward(self, *, flag: bool = True, states: Tensor) -> Tensor:
        return self.map(states).relu() if flag else states


class OneReLU(nn.Module):
    """One ReLU object, in place, behind every convolution; a norm and a block that are called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.block, self.norm, self.relu = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU(inplace=True)
        self.last = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.a(x)))
        x = x + self.relu(self.block(x))
        x = self.relu(self.norm(self.b(x)))
        x += self.relu(self.block(x))
        return self.last(self.relu(x).mean(dim=(2, 3)))


class WritesItsInput(nn.Module):
    """Pre-activation in place: the stream itself is cut off at zero before the branch reads it."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Cutting() for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = x * 1.0
        for block in self.blocks:
            x = x + block(x)
        return x


class Cutting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.map(F.relu_(x))


def tuple_out() -> tuple[nn.Module, Any]:
    return TupleOut().eval(), torch.randn(3, 8)


def one_relu() -> tuple[nn.Module, Any]:
    return OneReLU().eval(), torch.randn(3, 3, 5, 5)


def writes() -> tuple[nn.Module, Any]:
    return WritesItsInput().eval(), torch.randn(4, 6)


def post_norm() -> tuple[nn.Module, Any]:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    return nn.TransformerEncoder(layer, 3, enable_nested_tensor=False).eval(), torch.randn(2, 5, 8)


def decoder() -> tuple[nn.Module, Any]:
    layer = nn.TransformerDecoderLayer(8, 2, 16, batch_first=True)
    return nn.TransformerDecoder(layer, 2).eval(), {"tgt": torch.randn(2, 5, 8), "memory": torch.randn(2, 4, 8)}


STREAM, BRANCH = (False, True), (True, False)  # (branch, skip)
WANTED: dict[Callable[[], tuple[nn.Module, Any]], dict[str, tuple[bool, bool]]] = {
    bert: {"bert.encoder.layer.0": STREAM, "bert.encoder.layer.1": STREAM, "bert.pooler.dense": (False, False)},
    gpt2: {f"transformer.h.{i}.{part}": BRANCH for i in range(2) for part in ("attn", "mlp")},
    llama: {f"model.layers.{i}.{part}": BRANCH for i in range(2) for part in ("self_attn", "mlp")},
    vit: {f"vit.layers.{i}.{part}": BRANCH for i in range(2) for part in ("attention", "mlp")},
    t5: {
        f"{side}.block.{i}.layer.{j}": STREAM
        for side, parts in (("encoder", 2), ("decoder", 3))
        for i in range(2)
        for j in range(parts)
    },
    tuple_out: {"first": BRANCH, "second": BRANCH},
    one_relu: {"a": (False, False), "block": BRANCH, "b": (False, False)},
    writes: {f"blocks.{i}": BRANCH for i in range(3)},
    post_norm: {f"layers.{i}": STREAM for i in range(3)},
    decoder: {f"layers.{i}": STREAM for i in range(2)},
}
CASES = list(WANTED)


def run(module: nn.Module, example: Any) -> Any:
    args, kwargs = example if isinstance(example, tuple) else (), example if isinstance(example, dict) else {}
    with torch.no_grad():
        return module(*((example.clone(),) if isinstance(example, Tensor) else args), **kwargs)


def scene_of(make: Callable[[], tuple[nn.Module, Any]]) -> tuple[Scene, Anatomy]:
    module, example = make()
    found = anatomy(module, example)
    return Scene(module, found, (Batch(example),)), found


@pytest.mark.parametrize("make", CASES)
def test_spans_are_found_and_all_others_have_a_reason(make: Callable[[], tuple[nn.Module, Any]]) -> None:
    scene, found = scene_of(make)
    assert {span.path: (span.branch, span.skip) for span in found.visits} == WANTED[make]
    names = {name for name, _ in scene.module.named_modules() if name}
    assert names == {span.path for span in found.visits} | set(found.unvisited)
    assert names == {span.path for span in found.spans} | set(found.left)
    assert all("\n" not in why for why in [*found.left.values(), *found.unvisited.values()])


@pytest.mark.parametrize("make", CASES)
def test_unchanged_runs_are_equal_to_the_bit_from_every_visit(make: Callable[[], tuple[nn.Module, Any]]) -> None:
    scene, _ = scene_of(make)
    example = scene.batches[0].example
    wanted = answer(run(scene.module, example))
    before = {name: value.clone() for name, value in scene.module.state_dict().items()}
    with scene.runs() as runs:
        tape = runs.record(example)
        assert torch.equal(answer(tape.output), wanted)
        for span in scene.spans:
            same = runs.resume(tape, {span.at: lambda step: step.give(step.run(step.main))})
            assert torch.equal(answer(same), wanted), span.at
    assert torch.equal(answer(run(scene.module, example)), wanted)
    assert all(torch.equal(value, before[name]) for name, value in scene.module.state_dict().items())
    assert not any("forward" in part.__dict__ for part in scene.module.modules())


@pytest.mark.parametrize("make", CASES)
def test_every_skip_changes_the_answer_and_the_next_run_does_not_remember(
    make: Callable[[], tuple[nn.Module, Any]],
) -> None:
    scene, _ = scene_of(make)
    with scene.runs() as runs:
        tape = runs.record(scene.batches[0].example)
        wanted = answer(tape.output).clone()
        for span in scene.spans:
            assert not torch.equal(answer(runs.resume(tape, Skip().changes((span,)))), wanted), span.at
            assert torch.equal(answer(runs.resume(tape, {})), wanted)


@pytest.mark.parametrize("make", CASES)
def test_a_skipped_span_is_a_dropped_span(make: Callable[[], tuple[nn.Module, Any]]) -> None:
    scene, found = scene_of(make)
    example = scene.batches[0].example
    looked = {span.path for span in found.visits}
    with scene.runs() as runs:
        tape = runs.record(example)
        skipped = {
            span.path: answer(runs.resume(tape, Skip().changes((span,)))) for span in found.spans if span.path in looked
        }
    for span in found.spans:
        if span.path in looked:
            dropped = edited(scene.module, Drop(path=span.path, branch=span.branch))
            torch.testing.assert_close(answer(run(dropped, example)), skipped[span.path])


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_a_stack_without_its_first_layer_still_takes_masks() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    stack = nn.TransformerEncoder(layer, 3).eval()
    x, mask = torch.randn(2, 5, 8), torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    dropped = edited(stack, Drop(path="layers.0"))
    with torch.no_grad():
        wanted = stack.layers[2](stack.layers[1](x, src_key_padding_mask=mask), src_key_padding_mask=mask)
        found = dropped(x, src_key_padding_mask=mask)
    torch.testing.assert_close(found[~mask], wanted[~mask])
    assert stack.use_nested_tensor


def test_visits_of_a_module_that_is_called_twice_are_told_apart() -> None:
    module, x = one_relu()
    found = anatomy(module, x)
    assert [span.at for span in found.visits if span.path == "block"] == [Visit("block", 0), Visit("block", 1)]
    assert "shared" in found.left["block"]
    with Resumable(module, {"block"}) as runs:
        tape = runs.record(x)
        second = [span for span in found.visits if span.at == Visit("block", 1)]
        skipped = runs.resume(tape, Skip().changes((second[0],)))
    with torch.no_grad():
        y = module.relu(module.norm(module.a(x)))
        y = module.relu(module.norm(module.b(y + module.relu(module.block(y)))))
        assert torch.equal(skipped, module.last(y.mean(dim=(2, 3))))


@pytest.mark.parametrize("make", [gpt2, llama])
def test_a_looped_layer_does_not_read_what_its_first_run_cached(make: Callable[[], tuple[nn.Module, Any]]) -> None:
    scene, _ = scene_of(make)
    scene.module.config.use_cache = True  # type: ignore[union-attr]
    example, span = scene.batches[0].example, scene.spans[0]
    with scene.runs() as runs:
        found = answer(runs.resume(runs.record(example), Loop().changes((span,))))
    scene.module.config.use_cache = False  # type: ignore[union-attr]
    with scene.runs() as runs:
        assert torch.equal(found, answer(runs.resume(runs.record(example), Loop().changes((span,)))))


def test_hooks_of_others_go_on_working_also_on_shared_modules() -> None:
    module, x = one_relu()
    seen: list[str] = []
    handles = [
        module.block.register_forward_hook(lambda *_: seen.append("block")),
        module.relu.register_forward_pre_hook(lambda *_: seen.append("relu")),
    ]
    run(module, x)
    order = list(seen)
    assert order.count("block") == 2
    with Scene(module, anatomy(module, x), (Batch(x),)).runs() as runs:
        runs.record(x)  # finds out what is written to
        seen.clear()
        runs.record(x)
    assert seen == order
    assert len(module.block._forward_hooks) == 1
    for handle in handles:
        handle.remove()


def test_a_change_that_fails_leaves_nothing_behind() -> None:
    scene, _ = scene_of(gpt2)

    def fails(step: Step) -> Any:
        raise ValueError("on purpose")

    with pytest.raises(BadModel, match="on purpose"), scene.runs() as runs:
        runs.resume(runs.record(scene.batches[0].example), {scene.spans[1].at: fails})
    assert not any("forward" in part.__dict__ for part in scene.module.modules())


def test_a_module_in_the_tree_twice_is_looked_at_visit_by_visit() -> None:
    block = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
    module = nn.Sequential(nn.Linear(3, 4), block, nn.Linear(4, 4), block)
    found = anatomy(module, torch.randn(2, 3))
    assert [span.at for span in found.visits] == [Visit("1", 0), Visit("2", 0), Visit("1", 1)]


def test_a_layer_most_of_whose_sums_are_its_own_goes_as_a_whole() -> None:
    """One of its two sublayers is no module: only together can they be left out."""

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.up, self.down = Cutting(), nn.Linear(6, 9), nn.Linear(9, 6)

        def forward(self, x: Tensor) -> Tensor:
            x = x + self.first(x * 1.0)
            return x + self.down(self.up(x).relu())

    found = anatomy(nn.Sequential(Layer(), Layer()), torch.randn(2, 6))
    assert [(span.path, span.sums) for span in found.spans] == [("0", 2), ("1", 2)]
    assert found.left["0.first"] == "it is part of the span 0, which goes as a whole"
