"""Measures of one module: what they say of nets in which it is known, and the identities that they must keep."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from planted import Deep, Row, shaken
from shoal.anatomy import anatomy
from shoal.core.errors import BadData, BadSetting, Refused
from shoal.core.part import Part
from shoal.core.scene import Batch, Scene
from shoal.core.spec import Spec
from shoal.intervening import split
from shoal.kinds import MEASURES, TASKS
from shoal.measures._tables import entropy_rank
from shoal.measures._watching import every_update
from shoal.measures.deep_taylor import DeepTaylor
from shoal.measures.depth_use import DepthUse
from shoal.measures.direct_effect import DirectEffect
from shoal.measures.influence import Influence
from shoal.measures.integrated_gradients import IntegratedGradients
from shoal.measures.linear_maps import LinearMaps
from shoal.net import Net

MINE = (
    *(
        "deep_taylor",
        "depth_use",
        "direct_effect",
        "effective_rank",
        "gradient_share",
        "influence",
        "information_plane",
    ),
    *("integrated_gradients", "lazy_neuron", "linear_maps", "local_rank", "logit_lens", "rank_collapse"),
)


def scene_of(module: nn.Module, x: Any, target: Tensor | None = None, size: int = 1 << 20) -> Scene:
    """The scene of a module in front of rows; a task where there are targets."""
    module = module.eval()
    batches = tuple(split([Batch(x, target)], size))
    task = None
    if target is not None:
        task = TASKS.make(Part("classification", {"classes": int(target.max()) + 1}))
    return Scene(module, anatomy(module, batches[0].example), batches, task)


def table(name: str, scene: Scene, **settings: Any) -> pd.DataFrame:
    found: pd.DataFrame = MEASURES.make(Part(name, settings)).table(scene)
    return found


def deep(count: int = 4, dim: int = 8, outputs: int = 5, act: Any = F.relu) -> Deep:
    """A residual net of rows in double precision."""
    torch.manual_seed(0)
    rows = [shaken(Row(dim, act)) for _ in range(count)]
    return Deep(nn.Linear(6, dim), rows, nn.Linear(dim, outputs)).double()


def rows(count: int = 64, size: int = 6) -> Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(1)).double()


def targets(count: int = 64, classes: int = 5) -> Tensor:
    return torch.arange(count) % classes


class Attention(nn.Module):
    """Attention alone, with or without a skip."""

    def __init__(self, dim: int, skip: bool) -> None:
        super().__init__()
        self.query, self.value, self.skip = nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim, bias=False), skip

    def forward(self, x: Tensor) -> Tensor:
        q = self.query(x)
        y = (q @ q.mT / 8).softmax(dim=-1) @ self.value(x)
        return x + y if self.skip else y


class Normed(nn.Module):
    """Branches behind a norm, and scaled, that the module adds to its stream itself, one of them in place."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.first = nn.Linear(6, dim)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2))
        self.parts = nn.ModuleList(nn.Sequential(nn.Linear(dim, dim), nn.Tanh(), nn.Linear(dim, dim)) for _ in range(2))
        self.last = nn.Linear(dim, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        h = h + 0.5 * self.parts[0](self.norms[0](h))
        y = self.parts[1](self.norms[1](h))
        y += h
        return self.last(y)


FAMILIES: Sequence[tuple[str, Any]] = (
    ("rows", lambda: (deep(), rows())),
    ("branches", lambda: (Normed(8).double(), rows())),
    ("net", lambda: (Net(Spec.parse("vector[features=6] | residual(mlp) 3x8 | pool[outputs=5]")).double(), rows())),
    ("stages", lambda: (stages(), torch.randn(6, 4, 4, 2).double())),
    ("tokens", lambda: (tokens(), torch.randint(0, 9, (6, 7)))),
)


def stages() -> nn.Module:
    torch.manual_seed(0)
    text = "residual(basic) 2x6 - residual(basic) 2x8"
    return Net(Spec.parse(f"convolution[channels=2,kernel=[3,3]] | {text} | pool[outputs=5]")).double()


def tokens() -> nn.Module:
    torch.manual_seed(0)
    text = "residual(transformer[causal=true]) 3x8"
    return Net(Spec.parse(f"tokens[vocabulary=9,length=7] | {text} | every[outputs=9]")).double()


REFUSED = {("deep_taylor", "tokens"), ("deep_taylor", "branches"), ("direct_effect", "branches")}  # tested below
PAIRS = [(name, family) for name in MINE for family, _ in FAMILIES if (name, family) not in REFUSED]


@pytest.mark.parametrize(("name", "family"), PAIRS)
def test_one_finite_row_a_span_the_same_in_small_batches_and_nothing_left_behind(name: str, family: str) -> None:
    module, x = dict(FAMILIES)[family]()
    module.train()
    before, state = {key: value.clone() for key, value in module.state_dict().items()}, torch.get_rng_state()
    found = []
    for size in (1 << 20, 5):
        scene = scene_of(module, x, size=size)
        module.train()
        found.append(table(name, scene))
        assert module.training
    for one in found:
        assert list(one.columns[:2]) == ["path", "visit"]
        assert [tuple(at) for at in one[["path", "visit"]].to_numpy()] == [tuple(span.at) for span in scene.spans]
        assert np.isfinite(one.drop(columns="path").to_numpy().astype(float)).all()
    alone = {"ratio_median", "near"}  # by what is said of them, these depend on the batch
    if name not in ("rank_collapse", "lazy_neuron", "depth_use", "local_rank"):
        pd.testing.assert_frame_equal(*(one.drop(columns=alone & set(one)) for one in found), atol=1e-8, rtol=1e-6)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert not any(
        part._forward_hooks or part._forward_pre_hooks or "forward" in vars(part) for part in module.modules()
    )
    assert all(weight.grad is None and weight.requires_grad for weight in module.parameters())


@pytest.mark.parametrize("make", [make for _, make in FAMILIES[:3]])
def test_the_first_stream_and_all_that_is_added_are_the_last_stream(make: Any) -> None:
    module, x = make()
    scene = scene_of(module, x)
    (_, _, found), *_ = every_update(scene)
    updates = [found[span.at] for span in scene.spans]
    whole = updates[0].stream + torch.stack([one.added for one in updates]).sum(dim=0)
    torch.testing.assert_close(whole, updates[-1].behind, atol=1e-10, rtol=0)
    for one, following in pairwise(updates):
        torch.testing.assert_close(one.behind, following.stream, atol=1e-10, rtol=0)


def test_the_stream_of_a_branch_is_what_it_is_added_to_with_its_scale() -> None:
    module, x = Normed(8).double(), rows()
    scene = scene_of(module, x)
    assert [span.branch for span in scene.spans] == [True, True]
    (_, _, found), *_ = every_update(scene)
    with torch.no_grad():
        h = module.first(x)
        added = 0.5 * module.parts[0](module.norms[0](h))
    torch.testing.assert_close(found[scene.spans[0].at].stream, h)
    torch.testing.assert_close(found[scene.spans[0].at].added, added)
    torch.testing.assert_close(found[scene.spans[1].at].stream, h + added)


def test_depth_use_sees_a_span_at_itself_and_not_before() -> None:
    module = deep()
    found = DepthUse().map(scene_of(module, rows())).to_numpy()
    assert np.allclose(np.diag(found), 1)
    assert np.allclose(np.tril(found, -1), 0)
    assert (np.triu(found, 1)[np.triu_indices(4, 1)] > 0).all()


def test_depth_use_of_a_dead_span() -> None:
    module = deep()
    for weight in module.layers[1].down.parameters():
        weight.data.zero_()
    found = table("depth_use", scene_of(module, rows()))
    assert found.loc[1, ["added", "ratio", "ratio_max", "cosine", "later"]].tolist() == [0.0] * 5
    assert found["cosine"].between(-1, 1).all()
    assert found["later"].iloc[-1] == 0


def test_depth_use_knows_what_erases_and_what_amplifies() -> None:
    module = deep(2)
    half = torch.cat((torch.eye(8), -torch.eye(8))).double()
    for layer, size in zip(module.layers, (0.5, -0.5), strict=True):  # x + size * x
        layer.up.weight.data, layer.down.weight.data = half.clone(), size * half.T.clone()
        layer.up.bias.data.zero_()
        layer.down.bias.data.zero_()
    found = table("depth_use", scene_of(module, rows()))
    assert found["cosine"].tolist() == pytest.approx([1, -1])
    assert found["ratio"].tolist() == pytest.approx([0.5, 0.5])
    assert found["ratio_max"].tolist() == pytest.approx([0.5, 0.5])


def test_of_a_deep_net_at_random_no_part_is_used_more() -> None:
    torch.manual_seed(0)
    net = Net(Spec.parse("vector[features=6] | residual(mlp) 8x32 | pool[outputs=5]"))
    found = table("depth_use", scene_of(net, rows(128).float()))
    early, late = found["later"][:3].mean(), found["later"][3:6].mean()
    assert 1 / 3 < early / late < 3


def test_what_is_behind_a_split_is_reached_through_attention_alone() -> None:
    x = torch.randint(0, 9, (4, 7))
    there = table("depth_use", scene_of(tokens(), x))
    assert (there["future"][:-1] > 0).all()
    assert there["future"].iloc[-1] == 0
    assert (there["future_answer"][:-1] > 0).all()
    assert there["future_answer"].iloc[-1] == 0  # it moves the places before the split alone
    alone = Net(Spec.parse("tokens[vocabulary=9,length=7] | residual(mlp) 3x8 | every[outputs=9]"))
    assert (table("depth_use", scene_of(alone, x))["future"] == 0).all()
    assert "future" not in table("depth_use", scene_of(deep(), rows()))


def test_the_direct_effect_is_that_of_the_span_without_what_was_added() -> None:
    module, x = deep(3), rows(20)
    found = DirectEffect().map(scene_of(module, x)).to_numpy()
    with torch.no_grad():
        h = [module.first(x)]
        for layer in module.layers:
            h.append(layer(h[-1]))
        first, reads = h[1] - h[0], h[2]
        own = module.layers[2](reads) - reads
        other = module.layers[2](reads - first) - (reads - first)
    assert found[0, 2] == pytest.approx(float((own - other).norm() / own.norm()), abs=1e-10)
    assert np.allclose(np.tril(found), 0)
    assert found[0, 1] == pytest.approx(float(DepthUse()._effects(scene_of(module, x))[0, 1]))  # nothing between


def test_no_direct_effect_where_norms_of_others_are_between() -> None:
    with pytest.raises(Refused, match="through a norm of another module"):
        table("direct_effect", scene_of(Normed(8).double(), rows()))


def test_the_lens_is_the_head_on_the_stream() -> None:
    module, x = deep(), rows()
    found = table("logit_lens", scene_of(module, x, targets()))
    with torch.no_grad():
        own, h = module(x).log_softmax(dim=-1), module.layers[0](module.first(x))
        lens = module.last(h).log_softmax(dim=-1)
        far, same = (own.exp() * (own - lens)).sum(dim=-1).mean(), own.argmax(-1) == lens.argmax(-1)
    assert found["lens"][0] == pytest.approx(float(far), abs=1e-10)
    assert found["agree"][0] == pytest.approx(float(same.double().mean()))
    assert found["lens"].iloc[-1] == pytest.approx(0, abs=1e-12)
    assert found["agree"].iloc[-1] == 1


def test_attributions_are_all_that_the_spans_change_together() -> None:
    module, x, y = deep(act=torch.tanh), rows(), targets()
    found = table("integrated_gradients", scene_of(module, x, y, size=16), steps=24)
    with torch.no_grad():
        own, none = module(x), module.last(module.first(x))
        best = own.argmax(dim=1, keepdim=True)
        change = own.log_softmax(dim=1).gather(1, best).mean() - none.log_softmax(dim=1).gather(1, best).mean()
    assert found["attribution"].sum() == pytest.approx(float(change), abs=1e-6)
    assert found["share"].sum() == pytest.approx(1)


@pytest.mark.parametrize("at", [0, 3])
def test_attributions_find_the_one_span_that_matters(at: int) -> None:
    module = deep()
    for number, layer in enumerate(module.layers):
        for weight in layer.down.parameters() if number != at else ():
            weight.data.zero_()
    scene = scene_of(module, rows())
    assert table("integrated_gradients", scene)["share"].tolist() == pytest.approx([float(i == at) for i in range(4)])
    assert IntegratedGradients().depth(scene) == pytest.approx((at + 1) / 4)


def test_a_module_maps_to_itself() -> None:
    scene = scene_of(deep(), rows(200))
    found = LinearMaps(ridge=0.0).between(scene, scene)
    assert np.abs(np.diag(found.to_numpy())).max() < 1e-10
    assert list(found.index) == list(found.columns) == [f"layers.{i}" for i in range(4)]


def test_a_deep_net_maps_to_the_shallow_one_that_it_holds() -> None:
    """Every other layer of the deep one does nothing: its streams are those of the shallow one, each of them twice."""
    shallow = deep(2)
    large = deep(4)
    large.load_state_dict(shallow.state_dict(), strict=False)
    for at, layer in enumerate(large.layers):
        layer.load_state_dict(shallow.layers[at // 2].state_dict())
        if at % 2:
            for weight in layer.down.parameters():
                weight.data.zero_()
    found = LinearMaps(ridge=0.0).between(scene_of(shallow, rows(200)), scene_of(large, rows(200))).to_numpy()
    assert found[0, [0, 1]].max() < 1e-10
    assert found[1, [2, 3]].max() < 1e-10
    assert min(found[0, 2], found[0, 3]) > 1e-3
    with pytest.raises(BadData, match="200 rows and 100"):
        LinearMaps().between(scene_of(shallow, rows(200)), scene_of(large, rows(100)))


def test_influence_of_a_span_that_does_nothing_turns_or_turns_round() -> None:
    module = deep(3)
    both = torch.cat((torch.eye(8), -torch.eye(8))).double()
    for layer, size in zip(module.layers, (0.0, 3.0, -2.0), strict=True):  # x + size * x
        layer.up.weight.data, layer.down.weight.data = both.clone(), size * both.T.clone()
        layer.up.bias.data.zero_()
        layer.down.bias.data.zero_()
    found = table("influence", scene_of(module, rows()))
    assert found["influence"].tolist() == pytest.approx([0, 0, 2], abs=1e-10)
    assert found["angle_1"].tolist() == pytest.approx([0, 0, 1], abs=1e-6)
    assert found["angle_2"].tolist() == pytest.approx([0, 1, 1], abs=1e-6)
    angles = Influence().map(scene_of(module, rows())).to_numpy()
    assert angles[0] == pytest.approx([0, 0, 1], abs=1e-6)
    assert angles[1, 0] == 0


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=8))
@settings(max_examples=30, deadline=None)
def test_the_effective_rank_is_at_most_how_many_there_are(values: list[float]) -> None:
    s = torch.tensor(values, dtype=torch.float64)
    rank = float(entropy_rank(s))
    assert 1 - 1e-9 <= rank <= len(values) + 1e-9
    assert float(entropy_rank(3 * s)) == pytest.approx(rank)
    assert float(entropy_rank(torch.cat((s, s)))) == pytest.approx(2 * rank)


def test_the_effective_rank_of_a_stream_of_few_directions() -> None:
    module = deep(2)
    module.first.weight.data, module.first.bias.data = torch.eye(8, 6).double(), torch.zeros(8).double()
    for layer in module.layers:
        for weight in layer.down.parameters():
            weight.data.zero_()
    x = torch.eye(6).double()[:3].repeat(5, 1)
    found = table("effective_rank", scene_of(module, x))
    assert found["rank"].tolist() == pytest.approx([3, 3], abs=1e-5)
    assert found["share"].tolist() == pytest.approx([3 / 8, 3 / 8], abs=1e-5)
    assert found["rank_added"].tolist() == [0, 0]


def test_gradients_are_those_of_the_loss() -> None:
    module, x, y = deep(), rows(), targets()
    found = table("gradient_share", scene_of(module, x, y, size=16))
    wanted = torch.autograd.grad(F.cross_entropy(module(x), y), list(module.layers.parameters()))
    squares = torch.stack([each.square().sum() for each in wanted]).view(4, -1).sum(dim=1)
    assert found["weights"].tolist() == pytest.approx(squares.sqrt().tolist(), rel=1e-8)
    assert found["share"].tolist() == pytest.approx((squares / squares.sum()).tolist(), rel=1e-8)
    last = module.first(x)
    for layer in module.layers:
        last = layer(last)
    pulls = torch.autograd.grad(F.cross_entropy(module.last(last), y, reduction="sum"), last)[0]
    assert found["output"].iloc[-1] == pytest.approx(float(pulls.norm(dim=1).mean()), rel=1e-8)


def test_without_a_task_gradients_are_those_of_the_answers() -> None:
    """Behind a norm the square of the answers is what it is; a direction of them is not."""
    module, x = deep(), rows()
    module.last = nn.Sequential(nn.Linear(8, 5), nn.LayerNorm(5)).double()
    found = table("gradient_share", scene_of(module, x))
    assert (found["weights"] > 1e-3).all()
    assert (found["output"] > 1e-3).all()


def test_frozen_weights_have_a_gradient_too_and_stay_frozen() -> None:
    module, x, y = deep(), rows(), targets()
    wanted = table("gradient_share", scene_of(module, x, y))
    for weight in module.layers[0].parameters():
        weight.requires_grad_(False)
    pd.testing.assert_frame_equal(table("gradient_share", scene_of(module, x, y)), wanted)
    assert [weight.requires_grad for weight in module.layers[0].parameters()] == [False] * 4


def test_what_is_planted_among_the_units_is_found() -> None:
    module = deep(2)
    first = module.layers[0].up
    first.weight.data[:4], first.bias.data[:4] = 0, -1.0  # never awake
    first.weight.data[5], first.bias.data[5] = 2 * first.weight.data[4], 2 * first.bias.data[4]
    found = table("lazy_neuron", scene_of(module, rows(), size=16))
    with torch.no_grad():
        a = F.relu(first(module.first(rows())))
    assert found["activations"].tolist() == [1, 1]
    assert found["zero"][0] == pytest.approx(float((a == 0).double().mean()))
    assert found["dead"][0] == pytest.approx(float((a == 0).all(dim=0).double().mean()))
    assert found["dead"][0] >= 4 / 16
    assert found["twin"].tolist() == [1 / 16, 0]


class RoundGELU(nn.Module):
    """An activation of somebody's own, made of what is none, and of one that counts for nothing by itself."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x) * torch.sigmoid(x)


@pytest.mark.parametrize("act", [F.relu, nn.ReLU(), nn.ReLU(inplace=True), RoundGELU()])
def test_an_activation_counts_once_however_it_is_called(act: Any) -> None:
    found = table("lazy_neuron", scene_of(deep(2, act=act), rows()))
    assert found["activations"].tolist() == [1, 1]
    assert found["zero"].between(0.2, 0.8).all()


def test_units_without_an_activation_that_is_seen_are_channels() -> None:
    found = table("lazy_neuron", scene_of(deep(2, act=torch.tanh), rows()))
    assert found["activations"].tolist() == [0, 0]
    assert found["dead"].tolist() == [0, 0]


def test_attention_alone_makes_all_places_alike_and_a_skip_does_not() -> None:
    """What is left is about the third power of what was, from layer to layer: doubly exponential in the depth."""
    torch.manual_seed(0)
    alone, passed = (
        Deep(nn.Identity(), [Attention(8, skip) for _ in range(4)], nn.Linear(8, 2)).double() for skip in (False, True)
    )
    for module in (alone, passed):
        for layer in module.layers:
            nn.init.orthogonal_(layer.value.weight)
    x = torch.randn(3, 7, 8).double()
    found = table("rank_collapse", scene_of(alone, x))
    values = found[found["path"].str.endswith("value")]["residual"].to_numpy()  # spans of their own where no skip is
    falls = np.log(values[2:]) / np.log(values[1:-1])
    assert (falls > 2.5).all()
    assert values[-1] < 1e-6
    assert table("rank_collapse", scene_of(passed, x))["residual"].min() > 0.1


def test_places_that_are_alike_stay_alike() -> None:
    torch.manual_seed(0)
    module = Deep(nn.Identity(), [Attention(8, False) for _ in range(2)], nn.Linear(8, 2)).double()
    found = table("rank_collapse", scene_of(module, torch.randn(3, 1, 8).double().expand(-1, 7, -1)))
    assert found[["residual", "composite", "residual_added"]].to_numpy() == pytest.approx(0, abs=1e-12)


class Product(nn.Module):
    """Matrices in a row, with an activation or without."""

    def __init__(self, matrices: Sequence[Tensor], act: Any) -> None:
        super().__init__()
        self.first, self.act = nn.Identity(), act
        self.layers = nn.ModuleList(nn.Linear(m.shape[1], m.shape[0], bias=False) for m in matrices)
        for layer, matrix in zip(self.layers, matrices, strict=True):
            layer.weight.data = matrix

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = self.act(layer(x))
        return x


def low(rank: int, dim: int = 8) -> Tensor:
    return torch.randn(dim, rank).double() @ torch.randn(rank, dim).double()


def test_the_local_rank_of_matrices_is_their_rank() -> None:
    torch.manual_seed(0)
    module = Product([low(8), low(5), low(3)], lambda x: x)
    found = table("local_rank", scene_of(module, rows(4, 8)), eps=1e-9)
    assert found["rank"].tolist() == [8, 5, 3]
    assert found["spread"].tolist() == [0, 0, 0]
    assert (found["effective"] <= found["rank"]).all()
    few = table("local_rank", scene_of(module, rows(4, 8)), eps=1e-9, directions=4)
    assert few["rank"].tolist() == [4, 4, 3]


def test_the_local_rank_is_at_most_the_units_that_are_awake_and_does_not_turn_with_the_input() -> None:
    torch.manual_seed(0)
    matrices, x = [low(8) for _ in range(3)], rows(6, 8)
    found = table("local_rank", scene_of(Product(matrices, F.relu), x), eps=1e-9)
    awake, h = [], x
    for matrix in matrices:
        h = F.relu(h @ matrix.T)
        awake.append((h > 0).sum(dim=1))
    before = torch.stack([torch.full((6,), 8), *awake[:-1]])  # the span is the matrix: its own units come after it
    least = before.cummin(dim=0).values.double().mean(dim=1)
    assert (torch.tensor(found["rank"].to_numpy()) <= least + 1e-9).all()
    turn = torch.linalg.qr(torch.randn(8, 8).double()).Q
    turned = table("local_rank", scene_of(Product([matrices[0] @ turn.T, *matrices[1:]], F.relu), x @ turn.T), eps=1e-9)
    pd.testing.assert_frame_equal(found, turned, atol=1e-8)


def test_the_local_rank_of_tokens_begins_at_their_embedding() -> None:
    found = table("local_rank", scene_of(tokens(), torch.randint(0, 9, (4, 7))), directions=8)
    assert (found["rank"] == 8).all()


@pytest.mark.parametrize("act", [torch.tanh, F.relu])
def test_information_is_within_its_bounds(act: Any) -> None:
    module, x, y = deep(act=act), rows(300), targets(300)
    found = table("information_plane", scene_of(module, x, y, size=64), bins=4)
    assert (found["about_input"] <= math.log2(300) + 1e-9).all()
    assert (found["about_target"] <= math.log2(5) + 1e-9).all()
    assert (found["about_target"] <= found["about_input"] + 1e-9).all()
    assert (found[["about_input", "about_target"]] >= 0).to_numpy().all()


def test_information_of_a_net_that_forgets_all_but_the_class() -> None:
    """The stream is one of two numbers, by the sign of the first input; then nothing."""
    layers = [Sign(), Sign(), Nothing()]
    x = torch.tensor([[a, b] for a in (-1.0, 1.0) for b in torch.linspace(0, 1, 32).tolist()])
    module = Deep(nn.Identity(), layers, nn.Linear(2, 3))
    found = table("information_plane", scene_of(module, x, (x[:, 0] > 0).long()))
    assert found["about_input"].tolist() == pytest.approx([1, 1, 0])
    assert found["about_target"].tolist() == pytest.approx(
        [1, 1, 0]
    )  # never more than before: all is of the one before


class Sign(nn.Module):
    """The sign of the first channel, in both."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(2, 2, bias=False)
        self.map.weight.data = torch.tensor([[1.0, 0.0], [1.0, 0.0]])

    def forward(self, x: Tensor) -> Tensor:
        return self.map(x).sign()


class Nothing(nn.Module):
    """Nothing is left."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(2, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.map(x) * 0


def positive(module: nn.Module) -> nn.Module:
    """With no bias above 0."""
    for name, weight in module.named_parameters():
        if name.endswith("bias"):
            weight.data = -0.01 * weight.data.abs()
    return module


def test_relevance_of_positive_matrices_is_their_share() -> None:
    torch.manual_seed(0)
    matrix, x = torch.rand(8, 8).double(), rows(5, 8).abs()
    module = Product([matrix], lambda y: y)
    scene = scene_of(module, x)
    found = DeepTaylor().inputs(scene, scene.batches[0])
    best = module(x).argmax(dim=1)
    torch.testing.assert_close(found, x * matrix[best], atol=1e-10, rtol=0)
    assert table("deep_taylor", scene)["kept"].tolist() == pytest.approx([1])


class Picture(nn.Module):
    """A small ResNet: blocks that write in place, norms whose factors are of both signs, pooling, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1, bias=False), nn.ReLU(), nn.MaxPool2d(2))
        self.blocks = nn.Sequential(*(Bottle(6) for _ in range(3)))
        self.pool, self.last = nn.AdaptiveAvgPool2d(1), nn.Linear(6, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.pool(self.blocks(self.first(x))).flatten(1))


class Bottle(nn.Module):
    """relu(x + norm(down(relu(norm(up x)))))."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.up, self.down = (nn.Conv2d(dim, dim, 3, padding=1, bias=False) for _ in range(2))
        self.norms = nn.ModuleList(nn.BatchNorm2d(dim) for _ in range(2))
        self.act = nn.ReLU(inplace=True)
        for norm in self.norms:
            norm.weight.data = torch.randn(dim)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norms[1](self.down(self.act(self.norms[0](self.up(x)))))
        y += x
        return self.act(y)


def test_relevance_is_conserved_and_never_negative() -> None:
    torch.manual_seed(0)
    module, x = Picture().double(), torch.rand(4, 2, 8, 8).double()
    scene = scene_of(module, x)
    assert [span.path for span in scene.spans] == [f"blocks.{i}" for i in range(3)]
    wanted = float(module(x).max(dim=1).values.clamp_min(0).sum().detach())
    found = table("deep_taylor", scene)
    assert found["kept"].tolist() == pytest.approx([1, 1, 1], abs=1e-8)
    assert found["relevance"].between(0.01, 0.99).all()
    inputs = DeepTaylor().inputs(scene, scene.batches[0])
    assert (inputs >= 0).all()
    assert float(inputs.sum()) == pytest.approx(wanted, rel=1e-8)


def test_relevance_is_that_of_the_module_with_its_norms_folded() -> None:
    """A factor below 0 behind a matrix is a matrix of the other sign."""
    torch.manual_seed(0)
    module, folded = Picture().double(), Picture().double()
    folded.load_state_dict(module.state_dict())
    for block in folded.blocks:
        for conv, norm in zip((block.up, block.down), block.norms, strict=True):
            conv.weight.data *= (norm.weight.data / (norm.running_var + norm.eps).sqrt()).view(-1, 1, 1, 1)
            norm.weight.data, norm.running_var = (
                torch.ones_like(norm.weight),
                torch.ones_like(norm.running_var) - norm.eps,
            )
    x = torch.rand(4, 2, 8, 8).double()
    found = [table("deep_taylor", scene_of(one, x)) for one in (module, folded)]
    pd.testing.assert_frame_equal(*found, atol=1e-8)


def test_relevance_passes_a_dead_span_by() -> None:
    module = positive(deep())
    for weight in module.layers[2].down.parameters():
        weight.data.zero_()
    found = table("deep_taylor", scene_of(module, rows()))
    assert found["relevance"][2] == pytest.approx(0, abs=1e-12)
    assert (found["relevance"].drop(2) > 0.01).all()


def test_an_operation_without_a_rule_is_named() -> None:
    with pytest.raises(Refused, match="no rule for 'scaled_dot_product_attention'"):
        table("deep_taylor", scene_of(tokens(), torch.randint(0, 9, (6, 7))))
    with pytest.raises(Refused, match="no rule for 'tanh'"):
        table("deep_taylor", scene_of(deep(act=torch.tanh), rows()))


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("deep_taylor", {"rows": 0}),
        ("depth_use", {"rows": 0}),
        ("direct_effect", {"rows": 0}),
        ("influence", {"lengths": ()}),
        ("information_plane", {"bins": 1}),
        ("integrated_gradients", {"steps": 0}),
        ("lazy_neuron", {"rows": 1}),
        ("linear_maps", {"ridge": -1.0}),
        ("local_rank", {"eps": 1.0}),
    ],
)
def test_a_setting_out_of_range_is_refused_when_built(name: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(BadSetting, match=f"measure {name}: .*give"):
        MEASURES.make(Part(name, wrong))
