"""Training: repeatable, resumable bit for bit, honest about what diverges, and it leaves what is not its own alone."""

from __future__ import annotations

import copy
import json
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from shoal.building import build, complete_spec
from shoal.core.errors import BadArtifact, BadData, BadModel, BadSetting, BadSpec, Diverged, OutOfReach
from shoal.core.spec import Spec
from shoal.data import Dataset, open_data
from shoal.kinds import TASKS
from shoal.training import Checkpoint, TrainingRecipe, baselines, default_recipe, evaluate, fit, train
from shoal.training.augment import AUGMENTS, augmented
from shoal.training.objectives._teacher import Teacher
from shoal.training.objectives.distil import Distil
from shoal.training.optimizer import lr_share
from shoal.training.state import Average, Stream, copied, generator_of, tensors_of

ROWS = 350  # of the table: 6 batches of 64, the last of 30


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return open_data("digits")


@pytest.fixture(scope="module")
def table() -> Dataset:
    """600 rows of 6 numbers; the class is the sign of a product, so a line cannot tell it."""
    random = np.random.default_rng(0)
    x = random.normal(size=(600, 6)).astype(np.float32)
    data = open_data((x, (x[:, 0] * x[:, 1] > 0).astype(np.int64)))
    return replace(data, train=data.train.take(ROWS, 0))


@pytest.fixture(scope="module")
def curve() -> Dataset:
    random = np.random.default_rng(0)
    x = random.normal(size=(500, 4)).astype(np.float32)
    return open_data((x, np.sin(x[:, 0]) + 0.5 * x[:, 1]))


class Dropped(nn.Module):
    """A stranger with dropout and batch norm, both of which carry state."""

    def __init__(self, features: int, outputs: int) -> None:
        super().__init__()
        self.up, self.norm = nn.Linear(features, 16), nn.BatchNorm1d(16)
        self.drop, self.down = nn.Dropout(0.2), nn.Linear(16, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.drop(self.norm(self.up(x)).relu()))


def equal(a: nn.Module, b: nn.Module) -> bool:
    first, second = tensors_of(a), tensors_of(b)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def stranger(data: Dataset, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Dropped(data.signature.channels, 2)


# --- the recipe


def test_recipe_survives_json_with_every_field_changed():
    recipe = TrainingRecipe(optimizer="sgd", lr=0.3, augment=("flip", "crop"), ema=0.5, seconds=3.5, clip=2.0, batch=7)
    assert TrainingRecipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe


def test_unknown_field_of_a_recipe_lists_the_known():
    with pytest.raises(BadSetting, match=r"no setting 'learning_rate'.*known: augment, batch.*warmup, weight_decay"):
        TrainingRecipe.from_json({"learning_rate": 0.1, "epochs": 1})


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({}, "neither epochs nor seconds"),
        ({"epochs": 0}, "epochs=0 must be above 0"),
        ({"epochs": 1, "batch": 2.5}, "whole number"),
        ({"epochs": 1, "lr": float("nan")}, "lr=nan"),
        ({"epochs": 1, "lr": True}, "lr=True"),
        ({"epochs": 1, "ema": 1.0}, "below 1"),
        ({"epochs": float("inf")}, "finite"),
        ({"epochs": 1, "optimizer": "adamww"}, "did you mean 'adamw'"),
        ({"epochs": 1, "augment": ["flipp"]}, "did you mean 'flip'"),
        ({"epochs": 1, "augment": "flip"}, "list of names"),
    ],
)
def test_a_wrong_recipe_is_refused(wrong, said):
    with pytest.raises(BadSetting, match=said):
        TrainingRecipe.from_json(wrong)


def test_schedule_rises_then_falls():
    recipe = TrainingRecipe(epochs=1, warmup=0.1)
    shares = [lr_share(recipe, progress) for progress in np.linspace(0, 1, 101)]
    assert shares[0] == 0
    assert max(shares) == shares[10] == pytest.approx(1)
    assert shares[-1] == pytest.approx(0, abs=1e-9)
    assert lr_share(replace(recipe, schedule="constant"), 0.99) == 1
    assert lr_share(replace(recipe, warmup=1.0), 1.0) == pytest.approx(1)


# --- the loop


@pytest.mark.parametrize(
    "recipe",
    [
        TrainingRecipe(epochs=3, batch=16, ema=0.9, augment=("flip", "crop"), optimizer="sgd", lr=0.05, clip=0.5),
        TrainingRecipe(epochs=3, batch=16, ema=0.99, augment=("shift",), clip=1.0, smoothing=0.1, precision="bfloat16"),
    ],
)
def test_resume_is_bit_for_bit(digits, tmp_path, recipe):
    data = replace(digits, train=digits.train.take(90, 0))
    spec, half, whole = "residual(conv) 1x4-1x8", 9, 18  # 6 batches an epoch: half is in the middle of one

    straight = build(spec, like=data)
    assert [step.index for step in fit(straight, data, recipe, seed=3)] == list(range(1, whole + 1))

    first = build(spec, like=data)
    loop = fit(first, data, recipe, seed=3)
    for step in loop:
        if step.index == half:
            step.checkpoint().save(tmp_path)
            break
    loop.close()
    torch.manual_seed(99)  # neither the caller's random numbers nor the weights begun with may matter
    second = build(spec, like=data, seed=7)
    steps = list(fit(second, data, recipe, seed=3, resume=Checkpoint.load(tmp_path)))
    assert steps[0].index == half + 1
    assert equal(straight, second)
    assert not equal(straight, first)


def test_resume_is_bit_for_bit_with_dropout_and_adamw(table, tmp_path):
    recipe = TrainingRecipe(epochs=2, batch=64, ema=0.9, clip=0.1)
    straight, second = stranger(table), stranger(table, 5)
    for step in fit(straight, table, recipe):
        if step.index == 5:
            step.checkpoint().save(tmp_path)
    list(fit(second, table, recipe, resume=Checkpoint.load(tmp_path)))
    assert equal(straight, second)


def test_a_checkpoint_of_another_training_is_refused(table, digits, tmp_path):
    recipe = TrainingRecipe(epochs=1, batch=64)
    loop = fit(stranger(table), table, recipe)
    saved = next(loop).checkpoint()
    loop.close()
    for other in ({"recipe": replace(recipe, lr=0.5)}, {"seed": 1}, {"data": digits}):
        given = {"net": stranger(table), "data": table, "recipe": recipe, "seed": 0, **other}
        with pytest.raises(BadArtifact, match=f"another {next(iter(other))}"):
            fit(given["net"], given["data"], given["recipe"], seed=given["seed"], resume=saved)
    with pytest.raises(BadArtifact, match="does not fit this net"):
        next(fit(build("residual(mlp) 1x8", like=table), table, recipe, resume=saved))
    with pytest.raises(BadArtifact, match=r"no checkpoint\.safetensors"):
        Checkpoint.load(tmp_path)
    saved.save(tmp_path)
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BadArtifact, match="truncated"):
        Checkpoint.load(tmp_path)


def test_same_seed_same_net_and_the_callers_numbers_are_left_alone(table):
    recipe = TrainingRecipe(epochs=1, batch=64)
    nets = []
    for outside, seed in ((1, 0), (2, 0), (1, 4)):
        torch.manual_seed(outside)
        before = torch.get_rng_state()
        nets.append(stranger(table))
        for _ in fit(nets[-1], table, recipe, seed=seed):
            assert torch.equal(torch.get_rng_state(), before)
    assert equal(nets[0], nets[1])
    assert not equal(nets[0], nets[2])


def test_the_order_changes_each_epoch_and_every_row_is_seen_once(table):
    seen: list[Tensor] = []

    def objective(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        seen.append(x)
        return net(x).square().mean()

    steps = list(fit(stranger(table), table, TrainingRecipe(epochs=2, batch=50), objective=objective))
    assert [step.last for step in steps].count(True) == 2
    epochs = torch.cat(seen).chunk(2)
    rows = table.train.batch(slice(None))[0]
    assert not torch.equal(*epochs)
    assert all(torch.equal(epoch[:, 0].sort().values, rows[:, 0].sort().values) for epoch in epochs)


def test_a_last_batch_of_one_row_is_left_out(table):
    data = replace(table, train=table.train.take(65, 0))
    assert len(list(fit(stranger(table), data, TrainingRecipe(epochs=1, batch=32)))) == 2
    assert len(list(fit(stranger(table), data, TrainingRecipe(epochs=1, batch=31)))) == 3
    assert len(list(fit(stranger(table), data, TrainingRecipe(epochs=1.5, batch=32)))) == 3


def test_the_net_is_left_in_eval_mode_with_its_average(table):
    net = stranger(table)
    loop = fit(net, table, TrainingRecipe(epochs=1, batch=64, ema=0.9))
    own, shown = {}, {}
    for step in loop:
        assert net.training
        own = copied(tensors_of(net))
        with step.averaged():
            shown = copied(tensors_of(net))
        assert all(torch.equal(own[name], value) for name, value in tensors_of(net).items())
        if step.index == 5:
            break
    loop.close()
    assert not net.training
    assert all(torch.equal(shown[name], value) for name, value in tensors_of(net).items())
    assert not torch.equal(own["up.weight"], shown["up.weight"])
    assert not torch.equal(own["norm.running_mean"], shown["norm.running_mean"])
    with pytest.raises(BadSetting, match="gone on or ended"):
        step.checkpoint()


def test_average_forgets_its_start_and_never_looks_back_further_than_its_decay():
    net = nn.Linear(1, 1, bias=False)
    average = Average(net, 0.5)
    wanted = None
    for t in range(1, 40):
        nn.init.constant_(net.weight, float(t))
        average.update()
        d = min(0.5, (t - 1) / (t + 9))
        wanted = float(t) if wanted is None else d * wanted + (1 - d) * t
        assert average.tensors["weight"].item() == pytest.approx(wanted)


def test_biases_and_norms_are_not_decayed(table):
    net = stranger(table)
    before = copied(tensors_of(net))
    recipe = TrainingRecipe(epochs=1, batch=64, weight_decay=0.5, optimizer="sgd", lr=0.1, momentum=0.0)
    list(fit(net, table, recipe, objective=lambda model, x, _: 0.0 * model(x).sum()))
    assert net.up.weight.norm() < 0.9 * before["up.weight"].norm()
    assert torch.equal(net.up.bias, before["up.bias"])
    assert torch.equal(net.norm.weight, before["norm.weight"])


def test_clip_bounds_what_a_step_moves(table):
    net = stranger(table)
    before = copied(dict(net.named_parameters()))
    recipe = TrainingRecipe(epochs=1, clip=1e-3, optimizer="sgd", lr=1.0, momentum=0.0, warmup=0.0, weight_decay=0.0)
    step = next(fit(net, table, recipe))
    moved = torch.cat([(p.detach() - before[name]).flatten() for name, p in net.named_parameters()]).norm()
    assert moved.item() == pytest.approx(1e-3 * step.lr, rel=1e-3)


def test_frozen_parameters_stay_and_a_wholly_frozen_net_is_refused(table):
    net = stranger(table)
    net.up.requires_grad_(False)
    before = copied(tensors_of(net))
    list(fit(net, table, TrainingRecipe(epochs=1, ema=0.9)))
    assert torch.equal(net.up.weight, before["up.weight"])
    assert not torch.equal(net.down.weight, before["down.weight"])
    with pytest.raises(BadModel, match="thaw"):
        fit(net.requires_grad_(False), table, TrainingRecipe(epochs=1))


def test_the_clock_ends_training(table):
    def slow(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        time.sleep(0.02)
        return net(x).square().mean()

    began = time.perf_counter()
    steps = list(fit(stranger(table), table, TrainingRecipe(seconds=1.0, batch=64), objective=slow))
    took = time.perf_counter() - began
    assert 0.7 < took < 1.4  # a step is 2%; the rest is for a machine that is busy
    assert steps[-1].total is None
    assert steps[-1].lr < 0.1 * max(step.lr for step in steps)


def test_float16_on_a_cpu_scales_its_loss(table):
    net = stranger(table)
    losses = [step.loss for step in fit(net, table, TrainingRecipe(epochs=30, lr=0.01, precision="float16"))]
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])
    assert net.up.weight.dtype == torch.float32


# --- divergence


class Root(nn.Module):
    """Not finite below zero."""

    def forward(self, x: Tensor) -> Tensor:
        return (x - 1e6).sqrt()


def diverge(net: nn.Module, data: Dataset, **given) -> str:
    with pytest.raises(Diverged) as caught:
        list(fit(net, data, TrainingRecipe(epochs=2, batch=64, **given.pop("recipe", {})), **given))
    return str(caught.value)


def test_divergence_names_the_first_module(table):
    net = nn.Sequential(nn.Linear(6, 4), nn.Sequential(nn.ReLU(), Root()), nn.Linear(4, 2))
    before = copied(tensors_of(net))
    said = diverge(net, table)
    assert "epoch 0, step 0 of 6 (lr" in said
    assert "first in the output of 1.1; lower lr" in said
    assert "\n" not in said
    assert not net.training
    assert all(torch.equal(before[name], value) for name, value in tensors_of(net).items())


def test_divergence_names_a_parameter_the_loss_the_inputs_and_the_gradient(table):
    net = stranger(table)
    nn.init.constant_(net.down.bias, torch.nan)
    assert "first in the parameter down.bias" in diverge(net, table)
    assert "first in the loss, from finite" in diverge(
        stranger(table), table, objective=lambda model, x, _: (model(x).mean() - 1e6).log()
    )
    assert "first in the gradient of up.weight" in diverge(
        stranger(table), table, objective=lambda model, x, _: (model.up.weight * 0).sqrt().sum() + model(x).mean() * 0
    )
    spoilt = replace(table.train, prepare=lambda x: x / 0)
    assert "inputs of the batch; clean" in diverge(stranger(table), replace(table, train=spoilt))


def test_too_high_a_rate_diverges_in_a_net_of_ours(curve):
    net = build("plain(mlp) 4x16", like=curve)
    said = diverge(net, curve, recipe={"lr": 1e18, "optimizer": "sgd", "schedule": "constant", "warmup": 0.0})
    assert "lr 1e+18" in said


# --- augmentation


@pytest.mark.parametrize("name", AUGMENTS)
@pytest.mark.parametrize("shape", [(5, 8, 8, 1), (5, 32, 24, 3), (5, 1, 1, 2)])
def test_augmentation_keeps_the_shape_and_repeats(name, shape):
    x = torch.randn(shape)
    kept = x.clone()
    y = augmented(x, (name,), generator_of(0))
    assert y.shape == x.shape
    assert y.dtype == x.dtype
    assert torch.equal(y, augmented(x, (name,), generator_of(0)))
    assert torch.equal(x, kept)


def test_augmentation_does_what_it_says():
    x = torch.arange(1, 65, dtype=torch.float32).view(1, 8, 8, 1).repeat(200, 1, 1, 1)
    flipped = augmented(x, ("flip",), generator_of(0))
    mirrored = [torch.equal(row, x[0].flip(1)) for row in flipped]
    assert 60 < sum(mirrored) < 140
    assert all(torch.equal(row, x[0]) for row, turned in zip(flipped, mirrored, strict=True) if not turned)
    moved = augmented(x, ("shift",), generator_of(0))
    ways = {tuple(row.flatten().tolist()) for row in moved}
    assert len(ways) == 9
    assert tuple(x[0].flatten().tolist()) in ways
    with pytest.raises(BadSetting, match="no images"):
        augmented(torch.randn(3, 4), ("flip",), generator_of(0))


@pytest.mark.parametrize("name", AUGMENTS)
def test_images_of_others_are_changed_in_the_same_way(name):
    """Channels first, bytes or floats: what comes out is what channels last give, moved."""
    x = torch.randint(1, 255, (9, 12, 10, 3), dtype=torch.uint8)
    last = augmented(x, (name,), generator_of(0))
    first = augmented(x.movedim(-1, 1), (name,), generator_of(0))
    assert torch.equal(first, last.movedim(-1, 1))
    assert torch.equal(augmented(x.movedim(-1, 1).float(), (name,), generator_of(0)), first.float())
    assert not torch.equal(first, x.movedim(-1, 1))


def test_a_stream_of_random_numbers_is_its_own():
    stream, device = Stream(0, torch.device("cpu")), torch.device("cpu")
    with stream:
        first = torch.rand(3)
    torch.rand(100)
    with stream:
        second = torch.rand(3)
    stream.rewind()
    with stream:
        assert torch.equal(second, torch.rand(3))
    with Stream(0, device):
        assert torch.equal(torch.cat([first, second]), torch.cat([torch.rand(3), torch.rand(3)]))


# --- evaluate, distil, baselines


def test_evaluate_restores_each_flag_and_needs_no_module(table, curve):
    net = stranger(table).train()
    net.norm.eval()
    result = evaluate(net, table.test, table.signature.task, batch=7)
    assert net.training
    assert not net.norm.training
    assert result.scores.shape == (len(table.test),)
    assert result.quality.unit == "%"
    assert result.quality.value == result.scores.mean()
    same = evaluate(net.eval().forward, table.test, table.signature.task)
    assert np.array_equal(same.scores, result.scores)
    x, y = curve.test.batch(slice(None))
    half = evaluate(lambda x: x[:, :1], curve.test, curve.signature.task)
    assert half.quality.value == pytest.approx(
        1 - float((x[:, :1] - y).square().mean() / y.var(correction=0)), abs=1e-6
    )
    assert half.quality.low < half.quality.value < half.quality.high
    assert half.loss == pytest.approx(float((x[:, :1] - y).square().mean()), rel=1e-6)


def test_evaluate_refuses_what_is_not_an_answer(table, curve):
    for wrong in (torch.nan, torch.inf):
        with pytest.raises(Diverged, match="not finite"):
            evaluate(lambda x, wrong=wrong: x[:, :2].abs() * wrong, table.test, table.signature.task)
    with pytest.raises(BadModel, match="make them equal"):
        evaluate(lambda x: x[:, 0], curve.test, curve.signature.task)


def test_distil_reaches_its_teacher_and_leaves_it_alone(table):
    teacher = train("residual(mlp) 2x32", table, TrainingRecipe(epochs=40, batch=64, lr=3e-3)).net.train()
    before = copied(tensors_of(teacher))
    task = TASKS.make(table.signature.task)
    student = build("residual(mlp) 1x32", like=table, seed=1)
    blind = replace(table, train=replace(table.train, y=torch.zeros_like(table.train.y)))  # only the teacher knows
    recipe = TrainingRecipe(epochs=60, batch=64, lr=3e-3)
    list(fit(student, blind, recipe, objective=Distil(task, teacher, weight=1.0)))
    assert teacher.training
    assert all(torch.equal(before[name], value) for name, value in tensors_of(teacher).items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in teacher.parameters())
    x = table.train.batch(slice(None))[0]
    with torch.inference_mode():
        agree = (student(x).argmax(1) == teacher.eval()(x).argmax(1)).double().mean()
    assert agree > 0.95
    with pytest.raises(BadSetting, match="weight=2"):
        Distil(task, teacher, weight=2)


@pytest.mark.parametrize("views", [1, 3])
def test_batches_come_again_after_so_many_views(digits, views):
    seen: list[Tensor] = []

    def watch(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        seen.append(x.clone())
        return net(x).square().mean()

    net = build("plain(conv) 1x4", like=digits, seed=0)
    recipe = TrainingRecipe(epochs=2 * views, batch=256, augment=("shift",), views=views)
    list(fit(net, digits, recipe, objective=watch))
    batches = len(seen) // (2 * views)
    cycle = views * batches
    assert all(torch.equal(one, again) for one, again in zip(seen[:cycle], seen[cycle:], strict=True))
    others = [torch.equal(seen[0], one) for one in seen[1:cycle]]
    assert not any(others)
    with pytest.raises(BadSetting, match="views=0 must be a whole number at least 1"):
        TrainingRecipe(epochs=1, views=0)
    with pytest.raises(BadSetting, match=r"views=1\.5 must be a whole number"):
        TrainingRecipe(epochs=1, views=1.5)


class Counting(nn.Module):
    """Counts the rows that it was asked for, in a list that its copies share."""

    def __init__(self, inner: nn.Module, asked: list[int]) -> None:
        super().__init__()
        self.inner, self.asked = inner, asked

    def __deepcopy__(self, memo: dict[int, object]) -> Counting:
        return Counting(copy.deepcopy(self.inner, memo), self.asked)

    def forward(self, x: Tensor) -> Tensor:
        self.asked.append(len(x))
        return self.inner(x)


def test_a_teacher_is_asked_once_for_rows_that_come_again_and_nothing_else_changes(table, monkeypatch):
    task, asked = TASKS.make(table.signature.task), list[int]()
    inner = build("plain(mlp) 1x8", like=table, seed=3)
    net = build("plain(mlp) 1x8", like=table, seed=1)
    recipe = TrainingRecipe(epochs=6, batch=64, views=2, ema=0.9)
    teacher = Teacher(Counting(inner, asked))
    kept = train(net, table, recipe, objective=Distil(task, teacher))
    rows = sum(asked)
    assert 2 * len(table.train) - 2 <= rows <= 2 * len(table.train)  # a single last row of an epoch is left out
    train(build("plain(mlp) 1x4", like=table, seed=2), table, recipe, objective=Distil(task, teacher))
    assert sum(asked) == rows, "another net is taught by what is known"
    monkeypatch.setattr("shoal.training.objectives._teacher.ROOM", 0)
    anew = train(net, table, recipe, objective=Distil(task, Counting(inner, asked)))
    assert sum(asked) == rows + 3 * rows
    ours, theirs = tensors_of(kept.net), tensors_of(anew.net)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert dict(kept.history[-1], seconds=0) == dict(anew.history[-1], seconds=0)


class Apart(nn.Module):
    """What its arguments differ by."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a - b


def test_a_teacher_tells_rows_apart():
    teacher = Teacher(nn.Identity())
    cpu = torch.device("cpu")
    rows = [torch.zeros(2, 3), torch.zeros(3, 2), torch.zeros(2, 3, dtype=torch.float64), torch.ones(2, 3)]
    for x in rows:
        given = teacher.answer(x, cpu)
        assert given.dtype == x.dtype
        assert torch.equal(given, x)
        x.add_(1)
        assert torch.equal(teacher.answer(x - 1, cpu), x - 1), "what is kept is a copy"
    assert torch.equal(teacher.answer(torch.ones(3, 2).T, cpu), torch.ones(2, 3))
    apart = Teacher(Apart())
    a, b = torch.tensor([[5.0]]), torch.tensor([[2.0]])
    assert float(apart.answer({"a": a, "b": b}, cpu)) == 3
    assert float(apart.answer({"b": a, "a": b}, cpu)) == -3


def test_baselines_are_scored_on_the_same_rows(table, curve, digits):
    linear, boosting = baselines(table)
    assert boosting.quality.value > 0.8 > linear.quality.value
    assert boosting.against(linear.scores, 0.01).word == "worse"
    assert [len(found.scores) for found in (linear, boosting)] == [len(table.test)] * 2
    assert baselines(curve)[0].quality.value > 0.5
    with pytest.raises(BadData, match="tables"):
        baselines(digits)


# --- build and train


def test_build_completes_the_spec_and_repeats(table, digits):
    state = torch.get_rng_state()
    first, second = build("residual(mlp) 2x8", like=table), build(Spec.parse("residual(mlp) 2x8"), like=table)
    assert equal(first, second)
    assert not equal(first, build("residual(mlp) 2x8", like=table, seed=1))
    assert torch.equal(state, torch.get_rng_state())
    assert str(first.spec) == "vector[features=6] | residual(mlp) 2x8 | pool[outputs=2]"
    assert build(str(first.spec)).spec == first.spec
    assert complete_spec(None, digits.signature).stages[-1].dim == 64
    with pytest.raises(BadSpec, match="like=data"):
        build(None)


def test_every_kind_of_data_has_a_default_that_learns(tmp_path):
    random = np.random.default_rng(0)
    path = tmp_path / "abc.txt"
    path.write_text("abcdefgh" * 300)
    y = np.arange(60) % 2
    sources = [
        open_data(path, length=16),
        open_data((random.normal(size=(60, 12, 3)).astype(np.float32) + y[:, None, None], y)),
        open_data((random.normal(size=(60, 9, 7, 3)).astype(np.float32) + y[:, None, None, None], y)),
        open_data((random.normal(size=(60, 3)).astype(np.float32) + y[:, None], y)),
        open_data((random.integers(0, 9, size=(60, 5)), y), as_given=True),
    ]
    for data in sources:
        recipe = replace(default_recipe(data), epochs=2.0, batch=8)
        losses = [row["loss"] for row in train(None, data, recipe).history]
        assert losses[2] < losses[1], data


def test_train_keeps_the_best_epoch_and_changes_nothing_given(table, monkeypatch):
    given = stranger(table).train()
    before = copied(tensors_of(given))
    recipe = TrainingRecipe(epochs=25, batch=64, lr=0.01)
    seen: list[int] = []
    run = train(given, table, recipe, progress=lambda step: seen.append(step.index))
    assert given.training
    assert all(torch.equal(before[name], value) for name, value in tensors_of(given).items())
    assert seen == list(range(1, 25 * 6 + 1))
    qualities = [row["quality"] for row in run.history]
    assert len(qualities) == 26
    assert run.best == max(epoch for epoch, quality in enumerate(qualities) if quality == max(qualities))
    assert run.valid.quality.value == max(qualities) > 0.8
    assert np.array_equal(evaluate(run.net, table.test, table.signature.task).scores, run.test.scores)
    assert run.stopped == "epochs"
    assert json.loads(json.dumps(run.to_json(), allow_nan=False))["best"] == run.best
    assert equal(run.net, train(given, table, recipe).net)


def test_train_goes_on_from_its_folder(table, tmp_path):
    recipe = TrainingRecipe(epochs=4, batch=64, lr=0.01, ema=0.9)
    whole = train(stranger(table), table, recipe)

    class Cut(Exception):
        pass

    def cut(step):
        if step.index == 17:
            raise Cut

    with pytest.raises(Cut):
        train(stranger(table), table, recipe, progress=cut, checkpoint=tmp_path)
    rest = train(stranger(table), table, checkpoint=tmp_path, resume=True)
    assert equal(whole.net, rest.net)
    assert [row["quality"] for row in rest.history] == [row["quality"] for row in whole.history]
    assert rest.recipe == recipe
    with pytest.raises(BadSetting, match="checkpoint=FOLDER"):
        train(stranger(table), table, recipe, resume=True)


def test_an_interrupt_ends_training_with_the_best_so_far(table):
    def interrupt(step):
        if step.index == 10:
            raise KeyboardInterrupt

    run = train(stranger(table), table, TrainingRecipe(epochs=50, batch=64), progress=interrupt)
    assert run.stopped == "interrupt"
    assert [row["step"] for row in run.history] == [0, 6, 10]


def test_within_bounds_the_whole_run(table):
    began = time.perf_counter()
    run = train("residual(mlp) 1x8", table, TrainingRecipe(epochs=100_000, batch=64), within=1.5)
    assert run.stopped == "seconds"
    assert 0.8 < time.perf_counter() - began < 2.2
    with pytest.raises(OutOfReach, match="scoring alone"):
        train("residual(mlp) 1x8", table, within=1e-6)


def test_a_fresh_net_that_answers_nan_is_not_the_end(table):
    class Late(Dropped):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            return y if self.training or self.norm.running_mean.abs().sum() > 0 else y * torch.nan

    run = train(Late(6, 2), table, TrainingRecipe(epochs=1, batch=64))
    assert run.history[0]["quality"] is None
    assert run.best == 1


def test_digits_are_learned(digits):
    run = train("residual(conv) 1x16-1x32", digits, replace(default_recipe(digits), epochs=8.0))
    assert run.test.quality.value > 0.95
    assert copy.deepcopy(run.net).spec == run.net.spec
