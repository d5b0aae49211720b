"""Compressing what takes its inputs by name, labelled or not, and models of transformers from a folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import Dataset as TorchDataset

import shoal
from conftest import CommandLine
from shoal import compression
from shoal.anatomy import anatomy
from shoal.commands._models import opened as opened_model
from shoal.core.errors import BadData, BadModel, BadSetting
from shoal.core.inputs import answer_to, count, first, joined, pieces, placed, run_on, taken
from shoal.core.scene import Batch, Scene
from shoal.data import Split, open_data
from shoal.edits.drop import Drop
from shoal.kinds import COMPRESSORS, TASKS
from shoal.recipe import done, replayed
from shoal.shrinking.controls import fresh
from shoal.shrinking.healer import Healer
from shoal.shrinking.planning import Plan
from shoal.shrinking.stages import Stages
from shoal.shrinking.unlabelled import inputs_of, opened
from shoal.shrinking.warning import foreseen
from shoal.training import TrainingRecipe, evaluate, train
from shoal.training.augment import augmented
from shoal.training.objectives.blockwise import Blockwise
from shoal.training.objectives.distil import Distil
from shoal.training.objectives.hints import Hints
from shoal.training.objectives.logit_mse import LogitMSE

QUICK = TrainingRecipe(lr=2e-3, batch=64, epochs=1)
ASKED: dict[str, Any] = {"to": "depth<=80%", "keep": "-30pt", "recipe": QUICK, "compressors": ("skip",)}
ROWS, LENGTH, WORDS, WIDTH = 240, 6, 13, 8


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """No goal here is a latency: it is timed for a moment only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compression, "TIMED", 0.05)
        yield


class Tagger(nn.Module):
    """Layers on the mean of some tokens, by the names that people give to their inputs."""

    def __init__(self, depth: int = 5) -> None:
        super().__init__()
        self.table = nn.Embedding(WORDS, WIDTH)
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh()) for _ in range(depth))
        self.last = nn.Linear(WIDTH, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        kept = attention_mask.unsqueeze(-1).float()
        x = (self.table(input_ids) * kept).sum(dim=1) / kept.sum(dim=1)
        for layer in self.layers:
            x = x + 0.3 * layer(x)
        return self.last(x)


class Positional(Tagger):
    """The same of one tensor, (rows, 2, length): what the names hold side by side."""

    def forward(self, x: Tensor) -> Any:  # type: ignore[override]
        return super().forward(x[:, 0], x[:, 1])


class Named(Tagger):
    """The same with its answer among others, by its name."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        logits = super().forward(input_ids, attention_mask)
        return {"loss": logits.mean(), "logits": logits, "pair": (logits, logits)}


class Several(Tagger):
    """The same with its answer as the first of a tuple."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        logits = super().forward(input_ids, attention_mask)
        return logits, logits.argmax(dim=-1), [logits]


def made(kind: type[Tagger] = Tagger) -> Tagger:
    torch.manual_seed(0)
    return kind().eval()


def sentences(rows: int = ROWS) -> tuple[dict[str, Tensor], Tensor]:
    draws = torch.Generator().manual_seed(0)
    ids = torch.randint(1, WORDS, (rows, LENGTH), generator=draws)
    ends = torch.randint(2, LENGTH + 1, (rows, 1), generator=draws)
    mask = (torch.arange(LENGTH) < ends).long()
    x = {"input_ids": ids * mask, "attention_mask": mask}
    return x, classes(x)


def classes(x: dict[str, Tensor]) -> Tensor:
    """Three, by the mean of the tokens."""
    mean = x["input_ids"].sum(dim=1) / x["attention_mask"].sum(dim=1)
    return (mean > 5.5).long() + (mean > 7.5).long()


def batches(size: int = 50) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
    x, y = sentences()
    yield from zip(pieces(x, size), y.split(size), strict=True)


def same(one: nn.Module, other: nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 2**31))
def test_rows_stay_together(rows: int, size: int, seed: int) -> None:
    """Cut into pieces and joined, or taken in another order and back, inputs of both kinds are what they were."""
    draws = torch.Generator().manual_seed(seed)
    for x in (
        torch.randn(rows, 2, generator=draws),
        {"a": torch.randn(rows, generator=draws), "b": torch.ones(rows, 3)},
    ):
        assert count(x) == rows
        assert sum(count(part) for part in pieces(x, size)) == rows
        order = torch.randperm(rows, generator=draws)
        back = taken(taken(x, order), order.argsort())
        for other in (joined(list(pieces(x, size))), back, placed(x, torch.device("cpu"))):
            assert type(other) is type(x)
            assert all(map(torch.equal, each(other), each(x)))
        assert first(x) is each(x)[0]


def each(x: Any) -> list[Tensor]:
    return list(x.values()) if isinstance(x, dict) else [x]


def test_plain_tensors_are_called_as_ever() -> None:
    """What a module gives for a tensor is passed on itself, also where ``answer`` would find no number in it."""
    x = torch.arange(3)
    assert answer_to(lambda given: given, x) is x
    assert run_on(lambda given: [given], x)[0] is x
    with pytest.raises(BadModel, match="no tensor of numbers"):
        answer_to(lambda given: (given,), x)


@pytest.mark.parametrize("labelled", [True, False])
def test_names_change_nothing(labelled: bool) -> None:
    """By name or side by side in one tensor: the same rows, steps, weights and scores, bit for bit."""
    x, y = sentences()
    side = torch.stack((x["input_ids"], x["attention_mask"]), dim=1)
    by_name: Any = (x, y) if labelled else x
    as_one: Any = (side, y) if labelled else side
    one = shoal.compress(made(), by_name, **ASKED, controls=not labelled)
    other = shoal.compress(made(Positional), as_one, **ASKED, controls=not labelled)
    assert one.goals_met
    assert same(one.module, other.module)
    assert [control.name for control in one.controls] == [control.name for control in other.controls]
    for a, b in ((one.after, other.after), *zip(one.controls, other.controls, strict=True)):
        assert torch.equal(*(torch.from_numpy(found.result.scores) for found in (a, b)))
    assert one.task.name == ("classification" if labelled else "fidelity")
    assert one.dataset.train.x.keys() == x.keys()
    assert one.report["data"]["sizes"] == other.report["data"]["sizes"]


@pytest.mark.parametrize("kind", [Named, Several])
def test_answers_among_others_are_found_everywhere(kind: type[Tagger]) -> None:
    """In the original, the teacher, the students, the plans and the controls: as if the answer came alone."""
    x, _ = sentences()
    one, other = (shoal.compress(made(one), x, **ASKED, controls=False) for one in (Tagger, kind))
    assert same(one.module, other.module)
    assert torch.equal(*(torch.from_numpy(found.after.result.scores) for found in (one, other)))


class Rows(TorchDataset):  # type: ignore[type-arg]
    """The sentences one by one, as a dataset of torch."""

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return taken(sentences()[0], index)


LABELLED: dict[str, Callable[[], Any]] = {
    "whole": sentences,
    "arrays": lambda: ({name: value.numpy() for name, value in sentences()[0].items()}, sentences()[1].numpy()),
    "batches": batches,
    "list": lambda: list(batches(100)),
}
ALONE: dict[str, Callable[[], Any]] = {
    "whole": lambda: sentences()[0],
    "batches": lambda: (x for x, _ in batches()),
    "list": lambda: [x for x, _ in batches(100)],
    "rows": Rows,
}


@pytest.mark.parametrize("form", LABELLED)
def test_labelled_by_name_in_every_form(form: str) -> None:
    found, wanted = opened(made(), LABELLED[form](), None, 0), open_data(sentences(), as_given=True)
    assert found.fingerprint == wanted.fingerprint
    assert found.signature.task == wanted.signature.task
    assert (len(found.train), len(found.valid), len(found.test)) == (132, 36, 72)
    assert "input_ids (6,) torch.int64" in repr(found.train)
    x, y = found.test.batch(slice(0, 4))
    assert {name: tuple(value.shape) for name, value in x.items()} == dict.fromkeys(x, (4, LENGTH))
    assert torch.equal(y, classes(x))
    few = found.train.take(10, 0)
    assert torch.equal(few.y, classes(few.x))


@pytest.mark.parametrize("form", ALONE)
def test_inputs_alone_by_name_in_every_form(form: str) -> None:
    net = made()
    found, wanted = opened(net, ALONE[form](), None, 0), opened(net, sentences()[0], None, 0)
    assert found.fingerprint == wanted.fingerprint
    assert found.signature.task.name == "fidelity"
    with torch.no_grad():
        torch.testing.assert_close(found.test.y, net(**found.test.x), rtol=0, atol=1e-6)


def test_an_official_test_part_by_name_is_kept() -> None:
    (x, y), (more, labels) = sentences(), sentences(40)
    found = open_data((x, y, more, labels), as_given=True)
    assert all(map(torch.equal, found.test.x.values(), more.values()))
    with pytest.raises(BadData, match=r"training part: rows of input_ids are .* pad all to one length"):
        open_data((x, y, CUT, Y), as_given=True)


def test_a_token_at_every_place_by_name() -> None:
    x, _ = sentences()
    found = open_data((x, x["input_ids"].roll(-1, dims=1)), as_given=True)
    assert str(found.signature.task) == f"next_token[vocabulary={WORDS}]"


def shorter(number: int) -> Iterator[dict[str, Tensor]]:
    """Batches of which one is padded less than the others, as a tokenizer pads them by itself."""
    for at, (x, _) in enumerate(batches()):
        yield {name: value[:, : LENGTH - (at == number)] for name, value in x.items()}


X, Y = sentences(20)
CUT = {name: value[:, 1:] for name, value in X.items()}
REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "lengths": (lambda: shorter(2), r"batch 2: rows of input_ids are .* pad all to one length"),
    "labelled lengths": (lambda: [(X, Y), (CUT, Y)], "batch 1: rows of input_ids are"),
    "names": (lambda: [X, {"input_ids": X["input_ids"]}], "batch 1: inputs is input_ids, of batch 0 attention_mask"),
    "kinds": (lambda: [X, X["input_ids"]], "batch 1: inputs is one tensor, of batch 0 attention_mask, input_ids"),
    "unequal": (lambda: {**X, "position_ids": torch.arange(LENGTH)[None]}, "input_ids 20, .*position_ids 1"),
    "words": (lambda: [{"text": ["one", "two"]}], r"batch 0: text: 'one' is not a number"),
    "flag": (lambda: {**X, "return_dict": True}, "inputs: 'return_dict' is a bool; give each argument of the module"),
    "empty": (dict, "inputs: an empty dict holds no rows"),
    "not finite": (lambda: {"x": torch.full((20, 2), float("nan"))}, "inputs: x: 40 of 40 values are not finite"),
    "targets": (lambda: (X, {"y": Y}), "y: a dict; give one tensor of targets"),
    "targets in batches": (lambda: [(X, {"y": Y})], "batch 0: y is a dict"),
    "number of targets": (lambda: (X, Y[:-1]), "X has 20 rows and y has 19"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_inputs_by_name_that_cannot_be_read(case: str) -> None:
    data, said = REFUSED[case]
    with pytest.raises(BadData, match=said) as error:
        opened(made(), data(), None, 0)
    assert "\n" not in str(error.value)


def test_what_takes_other_names_is_said_before_any_work() -> None:
    with pytest.raises(BadModel, match=r"Tagger does not run .*unexpected keyword argument 'ids'"):
        shoal.compress(made(), {"ids": X["input_ids"]})
    with pytest.raises(BadData, match="without targets, which cannot be scored"):
        open_data(X)
    with pytest.raises(BadData, match="a net takes one tensor"):
        open_data((X, Y))
    with pytest.raises(BadSetting, match="are no images"):
        augmented(X, ("flip",), torch.Generator())


def test_labels_among_the_inputs_are_told() -> None:
    class WithLabels(Tagger):
        def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> Any:  # type: ignore[override]
            return super().forward(input_ids, attention_mask)

    x, y = sentences()
    found = opened(made(WithLabels), {**x, "labels": y}, None, 0)
    assert any(note.startswith("labels is taken as an input like the others") for note in found.notes)


def test_objectives_ask_by_name() -> None:
    """Each gives the loss that the same rows give in one tensor."""
    x, y = sentences(32)
    side = torch.stack((x["input_ids"], x["attention_mask"]), dim=1)
    task: Any = TASKS.get("classification")(classes=3)
    makers: list[Callable[[nn.Module], Any]] = [
        lambda net: Distil(task, net),
        lambda net: Hints(task, net),
        lambda net: Hints(task, net, share=1.0),
        lambda net: LogitMSE(task, net, weight=0.5),
        lambda net: Blockwise(task, net, lessons=[("layers.1", "layers.0", "layers.2", True)]),
    ]
    for make in makers:
        losses = [make(made(kind))(off(made(kind)), rows, y) for kind, rows in ((Tagger, x), (Positional, side))]
        assert torch.equal(*losses)
        assert losses[0] > 0
    with pytest.raises(BadModel, match=r"input_ids, attention_mask are inputs by names.*leave token out"):
        LogitMSE(task, made(), token=0)(made(), x, y)


def test_answers_that_are_the_targets_are_not_asked_for_again() -> None:
    """The loss is the same to rounding, and the teacher rests; rows that are changed it must be asked for."""
    asked: list[int] = []
    teacher = made()
    teacher.register_forward_hook(lambda *_: asked.append(1))
    data = opened(made(), sentences(64)[0], None, 0)
    task, rows = TASKS.make(data.signature.task), data.train.batch(slice(8))

    def learned(recipe: TrainingRecipe) -> Tensor:
        stages = Stages(None, {}, resume=False)
        answers = Healer(task, teacher, (), data.example(1), data, recipe, 0, stages).answers
        assert answers is not None
        return answers(off(made()), *rows)

    loss = learned(QUICK)
    assert not asked
    torch.testing.assert_close(loss, learned(replace(QUICK, augment=("flip",))), rtol=1e-5, atol=0)
    assert asked


def off(net: nn.Module) -> nn.Module:
    with torch.no_grad():
        for value in net.parameters():
            value.add_(0.01)
    return net


def test_a_net_is_trained_and_scored_by_name() -> None:
    run = train(made(Named), open_data(sentences(), as_given=True), TrainingRecipe(lr=2e-2, batch=32, epochs=10))
    assert run.test.quality.value > 0.6
    split = Split(*sentences(60))
    alone, among = (evaluate(made(kind), split, TASKS.get("classification")(classes=3)) for kind in (Tagger, Named))
    assert torch.equal(torch.from_numpy(alone.scores), torch.from_numpy(among.scores))


def test_fidelity_is_the_mean_cosine_and_its_floor_is_in_points() -> None:
    """The original has 100%; what the floor tests is the mean over test rows of 1 - cosine."""
    net, x = made(), sentences()[0]
    said: list[str] = []
    found = shoal.compress(net, x, **{**ASKED, "keep": "-2pt", "controls": False}, progress=said.append)
    rows = found.dataset.test.x
    with torch.no_grad():
        wanted, got = (module(**rows).double() for module in (net, found.module))
    cosine = torch.nn.functional.cosine_similarity(wanted, got)
    assert found.before.result.quality.value == pytest.approx(1.0, abs=1e-9)
    assert found.before.result.quality.unit == "%"
    assert found.after.result.quality.value == pytest.approx(float(cosine.mean()), abs=1e-7)
    lost = found.floor.difference
    assert lost.value == pytest.approx(float(cosine.mean()) - 1, abs=1e-7)
    assert lost.unit == "pt"
    assert found.floor.word == ("pass" if lost.low > -0.02 else "fail" if lost.high < -0.02 else "inconclusive")
    (told,) = [line for line in said if "its mean answer" in line]
    mean = found.dataset.train.y.mean(dim=0, keepdim=True)
    share = torch.nn.functional.cosine_similarity(mean.double(), found.dataset.test.y.double()).mean()
    assert told.endswith(f"has {100 * float(share):.1f}%")
    assert not any("test rows" in line for line in said)
    with pytest.raises(BadSetting, match="say what may be lost, as -1pt"):
        shoal.compress(net, x, **{**ASKED, "keep": "+1%"})


def test_what_takes_names_is_saved_and_runs_by_name(tmp_path: Path) -> None:
    found = shoal.compress(made(), sentences()[0], **ASKED, controls=False)
    folder = shoal.save(found, tmp_path / "small")
    facts = json.loads((folder / "shoal.json").read_text(encoding="utf-8"))
    assert [each["name"] for each in facts["example"]] == ["input_ids", "attention_mask"]
    assert facts["programs"]["model.pt2"]["batch"] == "any"
    assert facts["programs"]["model.onnx"]["batch"] == "any"
    assert "`attention_mask`, torch.int64 of shape [1, 6]" in (folder / "README.md").read_text(encoding="utf-8")
    rows = taken(found.dataset.test.x, slice(5))
    with torch.no_grad():
        wanted = found.module(**rows)
        for again in (shoal.load(folder), shoal.load(folder, base=made)):
            torch.testing.assert_close(again(**rows), wanted, rtol=0, atol=1e-6)
    assert shoal.cost(found.module, rows).macs == shoal.cost(made(), rows).macs - 5 * WIDTH**2 * len(found.steps)


def test_a_run_by_name_goes_on(tmp_path: Path) -> None:
    first_lines, later = list[str](), list[str]()
    whole = shoal.compress(made(), batches(), **ASKED, controls=False, checkpoint=tmp_path, progress=first_lines.append)
    again = shoal.compress(
        made(), batches(), **ASKED, controls=False, checkpoint=tmp_path, resume=True, progress=later.append
    )
    assert same(whole.module, again.module)
    assert not any(line.startswith(("round", "plan ")) for line in later)


class Attention(nn.Module):
    """What torch initialises by a method of another name."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(4, 2)


class Bare(nn.Module):
    """A weight that nobody draws."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.scale = nn.Linear(3, 3), nn.Parameter(torch.ones(3))


def test_a_control_from_scratch_keeps_no_weight() -> None:
    net = Attention()
    drawn = fresh(Plan(net, [], []), 0).module
    assert all(value.isfinite().all() for value in drawn.parameters())
    assert not torch.equal(drawn.inner.in_proj_weight, net.inner.in_proj_weight)  # type: ignore[union-attr, arg-type]
    with pytest.raises(BadModel, match=r"control: no reset_parameters\(\) draws scale anew") as error:
        fresh(Plan(Bare(), [], []), 0)
    assert "\n" not in str(error.value)


def test_what_cannot_be_drawn_anew_is_said_before_any_work() -> None:
    class Scaled(Tagger):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

    with pytest.raises(BadModel, match=r"draws scale anew.*compress without controls"):
        shoal.compress(made(Scaled), sentences(), **ASKED)


transformers = pytest.importorskip("transformers", reason="needs the extra 'huggingface': models of transformers")

SIZES = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 24}
TEXT = {"vocab_size": WORDS, "max_position_embeddings": 12}
ENDS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert": ("BertModel", "BertConfig", {**SIZES, **TEXT}),
    "classes": ("BertForSequenceClassification", "BertConfig", {**SIZES, **TEXT, "num_labels": 3}),
    "gpt2": ("GPT2LMHeadModel", "GPT2Config",
             {"n_embd": 16, "n_layer": 4, "n_head": 2, "n_inner": 24, "n_positions": 12, "vocab_size": WORDS, **ENDS}),
    "llama": ("LlamaForCausalLM", "LlamaConfig", {**SIZES, **TEXT, **ENDS}),
}  # fmt: skip


def bert(name: str = "bert") -> Any:
    cls, config, sizes = MODELS[name]
    torch.manual_seed(0)
    net = getattr(transformers, cls)(getattr(transformers, config)(**sizes)).eval()
    with torch.no_grad():
        for value in net.parameters():
            value.add_(torch.randn_like(value) / 10)
    return net


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama"])
def test_models_of_transformers_are_drawn_anew_for_a_control(name: str) -> None:
    net = bert(name)
    drawn = fresh(Plan(net, [], []), 0).module
    for path, value in drawn.named_parameters():
        assert value.isfinite().all(), path
        assert not torch.equal(value, net.get_parameter(path)), path


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama"])
def test_models_of_transformers_without_labels(name: str, tmp_path: Path) -> None:
    """Healed, judged by their own answers, and saved so that their own library opens them."""
    net = bert(name)
    wanted = {**ASKED, "to": "params<=90%", "keep": "none", "compressors": ("skip[whole=true]",)}
    found = shoal.compress(net, sentences(120)[0], **wanted, controls=name == "llama")
    assert found.goals_met
    assert len(found.controls) == 2 * (name == "llama")
    assert found.after.result.quality.value > 0.5
    folder = shoal.save(found, tmp_path / "small", onnx=False)
    again = type(net).from_pretrained(folder / "huggingface").eval()
    rows = taken(found.dataset.test.x, slice(4))
    with torch.no_grad():
        torch.testing.assert_close(answer_to(again, rows), answer_to(found.module, rows), rtol=1e-4, atol=1e-4)


def test_layers_made_of_branches_go_whole() -> None:
    """They give what the same network gives with all of their branches gone; others write to nothing here."""
    net, (x, _) = bert("llama"), sentences(4)
    found = list(COMPRESSORS.get("skip")(whole=True).propose(Scene(net, anatomy(net, x), (Batch(x),))))
    names = [f"model.layers.{number}" for number in range(4)]
    assert [one.edits for one in found] == [(Drop(path=name),) for name in names]
    assert [one.paths for one in found] == [(f"{name}.self_attn.o_proj", f"{name}.mlp") for name in names]
    every = list(COMPRESSORS.get("skip")().propose(Scene(net, anatomy(net, x), (Batch(x),))))
    assert len(every) == 12
    with torch.no_grad():
        whole = answer_to(done(net, found[1]), x)
        apart = answer_to(replayed(net, [edit for one in every[2:4] for edit in one.edits]), x)
    assert torch.equal(whole, apart)
    pooled = bert()
    alone = COMPRESSORS.get("skip")(whole=True).propose(Scene(pooled, anatomy(pooled, x), (Batch(x),)))
    assert [one.paths for one in alone] == [(f"encoder.layer.{number}",) for number in range(4)]


def test_a_model_of_transformers_with_labels() -> None:
    found = shoal.compress(bert("classes"), sentences(), **{**ASKED, "to": "params<=90%"}, controls=False)
    assert found.goals_met
    assert str(found.task) == "classification[classes=3]"
    assert found.before.result.quality.n == len(found.dataset.test) == 72


def test_half_precision_is_told() -> None:
    net = bert("classes").to(torch.bfloat16)
    data = opened(net, sentences(), None, 0)
    (told,) = [note for note in foreseen(net, data, TASKS.make(data.signature.task), None) if "torch.bfloat16" in note]
    assert "give it in float32" in told


def test_what_was_edited_before_keeps_its_edits(tmp_path: Path) -> None:
    """Compressed, saved, opened on its base and compressed again: the base is still the first one."""
    bert().save_pretrained(tmp_path / "tiny")
    base, wanted = f"hf:{tmp_path / 'tiny'}", {**ASKED, "to": "params<=90%", "keep": "none", "controls": False}
    module, first_base, _ = opened_model(base, None)
    once = shoal.compress(module, sentences(60)[0], base=first_base, **wanted)
    shoal.save(once, tmp_path / "once", onnx=False)
    module, second_base, _ = opened_model(str(tmp_path / "once"), base)
    assert same(module, once.module)
    twice = shoal.compress(module, sentences(60)[0], base=second_base, **wanted)
    assert twice.recipe.base == base
    assert len(twice.recipe.edits) == len(once.recipe.edits) + len(twice.edits)
    shoal.save(twice, tmp_path / "twice", onnx=False)
    assert same(shoal.load(tmp_path / "twice", base=lambda: opened_model(base, None)[0]), twice.module)


MINE = """
import torch
def inputs():
    ids = torch.arange(720).view(120, 6) * 7 % 12 + 1
    for rows in ids.split(40):
        yield {"input_ids": rows, "attention_mask": torch.ones_like(rows)}
def short():
    yield {"input_ids": torch.ones(20, 6, dtype=torch.int64)}
    yield {"input_ids": torch.ones(20, 5, dtype=torch.int64)}
"""


def test_a_folder_of_transformers_by_the_command_line(cli: CommandLine, tmp_path: Path) -> None:
    bert().save_pretrained(tmp_path / "tiny")
    (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
    (tmp_path / "short.json").write_text('{"epochs": 2, "lr": 0.002, "batch": 32}', encoding="utf-8")
    asked = ("--to", "params<=90%", "--keep", "-20pt", "--compressor", "skip", "--recipe", "short.json", "--json")
    words = ("compress", "hf:tiny", "mine.py:inputs", *asked)
    code, out, err = cli(*words, "--out", "small", "--resume", "--no-controls")
    assert code in (0, 3), err
    report = json.loads(out)["report"]
    assert report["metric"]["name"] == "cosine"
    assert any("its mean answer, given to every row, has" in remark for remark in report["remarks"])
    assert not (tmp_path / "small.part").exists()
    facts = json.loads((tmp_path / "small" / "shoal.json").read_text(encoding="utf-8"))
    assert facts["recipe"]["base"] == "hf:tiny"
    assert facts["huggingface"] == {"folder": "huggingface"}
    x, _ = sentences(8)
    again = transformers.AutoModel.from_pretrained(tmp_path / "small" / "huggingface").eval()
    assert again.config.num_hidden_layers < 4
    with torch.no_grad():
        wanted = again(**x).last_hidden_state
        got = answer_to(shoal.load(tmp_path / "small"), x)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)

    code, out, err = cli("show", "small")
    assert code == 0, err
    assert "huggingface: from_pretrained of transformers opens it" in out
    for target in (("small",), ("hf:tiny", "--data", "mine.py:inputs", "--batch", "2")):
        code, out, err = cli("cost", *target, "--no-time", "--json")
        assert code == 0, err
        assert json.loads(out)["cost"]["macs"] > 0
    code, _, err = cli("compress", "hf:tiny", "--data", "mine.py:short", *asked)
    assert code == 2
    assert "pad all to one length" in err
    code, _, err = cli("compress", "small", "--data", "mine.py:inputs", *asked)
    assert code == 2
    assert "say --base hf:tiny" in err


def test_words_of_the_iterator_are_not_lost() -> None:
    """What is looked into to see what it holds is gone through whole."""
    inputs, _ = inputs_of(x for x, _ in batches())
    assert count(inputs) == ROWS
    nothing, rest = inputs_of(batches())
    assert nothing is None
    assert sum(len(y) for _, y in rest) == ROWS
