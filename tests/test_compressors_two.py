"""Compressors that write new weights with their edits: each identity of their papers, and planted structure found."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from shoal.anatomy import anatomy
from shoal.blocks.rep_mlp import as_matrix
from shoal.compressors._alignment import aligned
from shoal.compressors._densities import kept, weighted
from shoal.compressors._lasso import chosen, refitted, squares
from shoal.compressors._neurons import Neurons, neurons_of
from shoal.compressors._products import products
from shoal.compressors._transport import distances, fused, fusible, laid, transport
from shoal.compressors._units import units_of
from shoal.compressors.channel_prune import ChannelPrune
from shoal.compressors.fuse_layers import FuseLayers, streams
from shoal.compressors.fuse_ot import FuseOT
from shoal.compressors.lorap import LoRAP, ranks, weighted_svd, worthy
from shoal.compressors.ntk_fuse import NTKFuse
from shoal.compressors.ntk_fuse import fused as clustered
from shoal.compressors.random_prune import RandomPrune
from shoal.compressors.repmlp import RepMLP
from shoal.core.base import Proposal
from shoal.core.errors import Refused
from shoal.core.scene import Batch, Scene
from shoal.core.spec import Spec
from shoal.data import Dataset, open_data
from shoal.edits.collapse import Collapse
from shoal.edits.narrow import Narrow
from shoal.kinds import TASKS
from shoal.net import Net, load_net
from shoal.recipe import done, edited, replayed
from shoal.training import TrainingRecipe, train
from strangers import TinyResNet, randomised

EXACT = 1e-10
IMAGE, ROW = (6, 5, 1), (5,)
NETS = {
    "mlp": ("vector[features=5] | residual(mlp[hidden=12]) 3x8 | pool[outputs=3]", ROW),
    "gelu": ("vector[features=5] | residual(mlp[act=gelu,hidden=12]) 3x8 | pool[outputs=3]", ROW),
    "gated": ("vector[features=5] | residual(gated_mlp[hidden=12]) 3x8 | pool[outputs=3]", ROW),
    "conv": ("convolution[channels=1] | residual(conv[hidden=12]) 3x8 | pool[outputs=3]", IMAGE),
    "transformer": (
        "convolution[channels=1] | residual(transformer[heads=4,head_dim=2,hidden=20]) 2x8 | pool[outputs=3]", IMAGE,
    ),
}  # fmt: skip


def net_of(name: str) -> Net:
    net = randomised(Net(Spec.parse(NETS[name][0])))
    assert isinstance(net, Net)
    return net


def rows_for(name: str, count: int = 40) -> Tensor:
    return drawn(count, *NETS[name][1])


def drawn(*shape: int, seed: int = 0) -> Tensor:
    """The same random numbers each time."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def scene_of(module: nn.Module, x: Tensor, y: Tensor | None = None) -> Scene:
    task = TASKS.get("classification")(classes=3) if y is not None else None
    return Scene(module, anatomy(module, x[:2]), (Batch(x, y),), task)


def with_weights(net: Net, **values: Any) -> Net:
    """The net with some weights set; ``__`` stands for a dot."""
    state = {name: value.clone() for name, value in net.state_dict().items()}
    for name, value in values.items():
        state[name.replace("__", ".")].copy_(value)
    return load_net(net.spec, state)


def far(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max().detach())


# --- units and products


@pytest.mark.parametrize(
    ("block", "widths"),
    [
        ("mlp[hidden=12]", {"hidden": 1}),
        ("conv[hidden=12]", {"hidden": 1}),
        ("transformer[heads=4,head_dim=2,hidden=20]", {"heads": 2, "hidden": 1}),
        ("squeeze[hidden=6,reduced=2,branches=2]", {"hidden": 1}),  # branches share what `reduced` sizes
        ("bottleneck[hidden=6]", {}),  # a matrix goes from the width to itself
        ("moe[experts=2,hidden=3]", {}),  # experts see each other in the router
    ],
)
def test_units_are_those_that_do_not_see_each_other(block: str, widths: dict[str, int]) -> None:
    net = Net(Spec.parse(f"convolution[channels=1] | residual({block}) 1x8 | pool[outputs=3]"))
    assert {units.width: units.each for units in units_of(net)} == widths


@pytest.mark.parametrize("name", ["mlp", "conv", "transformer"])
def test_products_are_what_a_matrix_reads_and_gives(name: str) -> None:
    net = net_of(name)
    paths = [path for units in units_of(net) for path in (*units.makers, *units.readers)]
    for path, product in products(scene_of(net, rows_for(name)), net, paths, 30).items():
        assert len(product.x) == len(product.y) == 30
        assert far(product.x.flatten(1) @ net.get_submodule(path).weight.flatten(1).T, product.y) < EXACT


def test_products_of_a_stranger_with_strides_and_padding() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, (3, 5), stride=(2, 1), padding=(0, 2)), nn.ReLU(), nn.Conv2d(4, 2, 2)).double()
    x = torch.randn(3, 3, 9, 7, dtype=torch.float64)
    before = net.training
    scene = Scene(net, anatomy(net, x), (Batch(x[:1]), Batch(x[1:])))
    for path, product in products(scene, net, ["0", "2"], 12).items():
        assert len(product.x) == 12
        assert far(product.x.flatten(1) @ net.get_submodule(path).weight.flatten(1).T, product.y) < EXACT
    assert net.training == before


def test_the_stream_is_what_goes_into_the_layer() -> None:
    net, x = net_of("mlp"), rows_for("mlp")
    readers = {f"stages.0.layers.{i}.block.down": f"stages.0.layers.{i}" for i in range(3)}
    for path, product in products(scene_of(net, x), net, list(readers), 20, readers).items():
        assert product.stream is not None
        layer = net.get_submodule(readers[path])
        assert far(layer(product.stream), product.y + net.get_submodule(path).bias) < EXACT


def test_there_is_no_stream_where_the_layer_gives_something_else() -> None:
    net, x = net_of("mlp"), rows_for("mlp")
    path = "stages.0.layers.1.block.up"
    assert products(scene_of(net, x), net, [path], 20, {path: "stages.0.layers.1"})[path].stream is None


# --- channel_prune


def problem(
    seed: int, units: int = 6, each: int = 3, outputs: int = 4, rows: int = 60
) -> tuple[Tensor, Tensor, Tensor]:
    maker = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, units * each, generator=maker, dtype=torch.float64)
    weight = torch.randn(outputs, units * each, generator=maker, dtype=torch.float64)
    return x, weight, x @ weight.T


def loss(x: Tensor, y: Tensor, weight: Tensor, columns: Tensor) -> float:
    return float((y - x[:, columns] @ weight.T).square().sum())


def columns_of(units: list[int], each: int = 3) -> Tensor:
    return torch.tensor([unit * each + column for unit in units for column in range(each)])


UNITS = torch.arange(18).view(6, 3)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_the_refit_is_the_best_and_gets_better_with_more_channels(seed: int) -> None:
    x, weight, y = problem(seed)
    y = y + torch.randn(y.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = squares(x, y, centred=False)
    before = math.inf
    for count in range(1, 7):
        columns = columns_of(list(range(count)))
        new = refitted(found, weight, columns, ridge=1e-9)
        now = loss(x, y, new, columns)
        best = torch.linalg.lstsq(x[:, columns], y).solution.T
        assert now == pytest.approx(loss(x, y, best, columns), rel=1e-6)
        assert now <= before * (1 + 1e-6)
        assert loss(x, y, refitted(found, weight, columns, ridge=0.1), columns) <= loss(
            x, y, weight[:, columns], columns
        )
        before = now


def test_all_channels_kept_give_the_weights_back() -> None:
    x, weight, y = problem(0)
    every = columns_of(list(range(6)))
    for ridge in (1e-9, 1e-3):
        assert far(refitted(squares(x, y, centred=False), weight, every, ridge), weight) < EXACT
    assert chosen(squares(x, y, centred=True), weight, UNITS, 6) == list(range(6))


def test_of_channels_that_have_nothing_to_do_with_each_other_the_largest_stay() -> None:
    x, _ = torch.linalg.qr(torch.randn(40, 6, dtype=torch.float64))
    weight = torch.randn(3, 6, dtype=torch.float64)
    found = squares(x, x @ weight.T, centred=False)
    largest = weight.norm(dim=0).argsort(descending=True)
    for keep in range(1, 6):
        assert chosen(found, weight, torch.arange(6)[:, None], keep) == sorted(largest[:keep].tolist())


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.sets(st.integers(0, 5), min_size=1, max_size=4))
def test_dead_and_doubled_channels_go_first(seed: int, dead: set[int]) -> None:
    x, weight, _ = problem(seed)
    for unit in dead:
        (x if unit % 2 else weight)[:, columns_of([unit])] = 0
    y = x @ weight.T
    assert set(chosen(squares(x, y, centred=False), weight, UNITS, 6 - len(dead))) == set(range(6)) - dead


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return open_data("digits")


@pytest.fixture(scope="module")
def trained(digits: Dataset) -> Net:
    net = train("residual(conv[hidden=16]) 3x16", digits, TrainingRecipe(lr=5e-3, batch=64, epochs=3)).net
    assert isinstance(net, Net)
    return net.eval()


def digit_scene(net: Net, digits: Dataset) -> Scene:
    x, y = digits.valid.take(256, 0).batch(slice(None))
    return Scene(net, anatomy(net, x[:2]), (Batch(x, y),), TASKS.make(digits.signature.task))


def valid_loss(net: nn.Module, digits: Dataset) -> float:
    x, y = digits.test.batch(slice(None))
    with torch.no_grad():
        return float(nn.functional.cross_entropy(net(x), y))


def test_planted_dead_channels_of_a_trained_net_are_found(digits: Dataset, trained: Net) -> None:
    dead, name = [1, 4, 5, 9, 10, 11, 13, 15], "stages.0.layers.1.block.inner"
    state = {key: value.clone() for key, value in trained.state_dict().items()}
    for key in (f"{name}.weight", f"{name}.bias"):
        state[key][dead] = 0
    net = load_net(trained.spec, state)
    single = list(ChannelPrune().propose(digit_scene(net, digits)))[1]
    assert single.edits == (Narrow(path="stages.0.layers.1", width="hidden", keep=(0, 2, 3, 6, 7, 8, 12, 14)),)
    x = digits.test.batch(slice(None))[0]
    assert far(done(net, single)(x), net(x)) < 1e-3


def test_lasso_loses_less_than_the_first_or_the_largest_channels(digits: Dataset, trained: Net) -> None:
    """Before any fine-tuning, layer by layer and all layers together."""
    *single, every = list(ChannelPrune().propose(digit_scene(trained, digits)))
    assert [one.paths for one in single] == [(f"stages.0.layers.{i}",) for i in range(3)]
    largest, first = [], []
    for index in range(3):
        path = f"stages.0.layers.{index}"
        sizes = trained.get_submodule(path + ".block.first").weight.flatten(1).abs().sum(1)
        keep = tuple(sorted(sizes.argsort(descending=True)[:8].tolist()))
        largest.append(Narrow(path=path, width="hidden", keep=keep))
        first.append(Narrow(path=path, width="hidden", keep=tuple(range(8))))
    for index in range(3):
        others = [valid_loss(edited(trained, each[index]), digits) for each in (first, largest)]
        assert valid_loss(done(trained, single[index]), digits) < min(others)
    together = valid_loss(done(trained, every), digits)
    assert together < min(valid_loss(replayed(trained, each), digits) for each in (first, largest))
    apart = Proposal(
        tuple(edit for one in single for edit in one.edits),
        (),
        weights={k: v for one in single for k, v in one.weights.items()},
    )
    assert together < valid_loss(done(trained, apart), digits)


def test_heads_are_pruned_as_channels_are() -> None:
    net, x = net_of("transformer"), rows_for("transformer")
    silent = net.get_submodule("stages.0.layers.1.block.out").weight.detach().clone()
    silent[:, [0, 1, 4, 5]] = 0  # heads 0 and 2
    net = with_weights(net, stages__0__layers__1__block__out__weight=silent)
    edits = {
        (e.path, e.width): e.keep
        for one in ChannelPrune().propose(scene_of(net, x))
        for e in one.edits
        if len(one.edits) == 1
    }
    assert edits["stages.0.layers.1", "heads"] == (1, 3)


class Chain(nn.Module):
    """A plain net: each width is made by one convolution and read by the next, the last one flattened."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 6, 3, stride=2), nn.Conv2d(6, 4, 1)])
        self.norm, self.linear = nn.BatchNorm2d(6), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.convs[0](x).relu()
        x = self.norm(self.convs[1](x)).relu()
        return self.linear(self.convs[2](x).relu().flatten(1))


def test_channels_of_a_stranger_with_dead_ones() -> None:
    """Chained widths, each also narrowed with what the next one sets; the dead go, and nothing else changes."""
    chain, x = randomised(Chain()), drawn(60, 1, 6, 6)
    with torch.no_grad():
        chain.convs[0].weight[[0, 2, 5, 6]] = 0
        chain.convs[0].bias[[0, 2, 5, 6]] = -1
        chain.norm.weight[[1, 2, 4]] = 0
        chain.norm.bias[[1, 2, 4]] = 0
        chain.convs[2].weight[[0, 3]] = 0
        chain.convs[2].bias[[0, 3]] = 0
    *single, every = ChannelPrune(rows=500).propose(scene_of(chain, x))
    assert [one.edits[0].keep for one in single] == [(1, 3, 4, 7), (0, 3, 5), (1, 2)]  # type: ignore[attr-defined]
    for one in (*single, every):
        assert far(done(chain, one)(x), chain(x)) < EXACT
    assert sum(p.numel() for p in done(chain, every).parameters()) < sum(p.numel() for p in chain.parameters()) / 2


def test_channels_within_the_blocks_of_a_stranger() -> None:
    net, x = randomised(TinyResNet(2)), torch.randn(20, 1, 8, 8, dtype=torch.float64)
    *single, every = ChannelPrune(rows=300).propose(scene_of(net, x))
    assert [one.into for one in single] == ["layer1.0", "layer1.1", None, "layer2.1"]  # layer2.0 gives another shape
    assert single[2].paths == ("layer2.0.conv1", "layer2.0.bn1", "layer2.0.conv2")
    for one in single:
        (reader,) = (name for name in one.weights if name.endswith("weight"))
        pruned = done(net, one)
        assert torch.equal(pruned.state_dict()[reader], one.weights[reader])
        assert pruned.get_parameter(reader).shape[1] * 2 == net.get_parameter(reader).shape[1]
    assert bool(done(net, every)(x).isfinite().all())


# --- ntk_fuse


def test_neurons_of_a_stranger_are_fused() -> None:
    net = randomised(nn.Sequential(nn.Linear(5, 8), nn.GELU(), nn.Linear(8, 5)))
    with torch.no_grad():
        for tensor in (net[0].weight, net[0].bias, net[2].weight.T):
            tensor[4:] = tensor[:4].clone()
    x = torch.randn(9, 5, dtype=torch.float64)
    (one,) = NTKFuse(restarts=2).propose(scene_of(net, x))
    assert far(done(net, one)(x), net(x)) < EXACT
    assert done(net, one).get_parameter("0.weight").shape == (4, 5)


@pytest.mark.parametrize("name", ["mlp", "gelu", "gated", "conv"])
def test_doubled_neurons_are_fused_without_loss(name: str) -> None:
    """Six neurons twice: six are left, and they give what twelve gave."""
    net, x = net_of(name), rows_for(name)
    state = {key: value.clone() for key, value in net.state_dict().items()}
    order = torch.tensor([0, 1, 2, 3, 4, 5, 3, 1, 0, 5, 4, 2])
    for key, value in state.items():
        if key.startswith("stages.0.layers.1.block.") and 12 in value.shape:
            axis = value.shape.index(12)
            state[key] = value.index_select(axis, order).contiguous()
    net = load_net(net.spec, state)
    one = list(NTKFuse(restarts=3).propose(scene_of(net, x)))[1]
    small = done(net, one)
    assert far(small(x), net(x)) < EXACT
    assert isinstance(small, Net)
    assert small.spec.stages[0].layers[1].block.settings["hidden"] == 6


@pytest.mark.parametrize("split", [True, False])
def test_as_many_clusters_as_neurons_change_nothing(split: bool) -> None:
    net = net_of("mlp")
    neurons = neurons_of(net, next(units_of(net)))
    keep, found = clustered(neurons, 12, split, 2, 0)
    assert keep == list(range(12))
    assert far(found.flat(), neurons.flat()) < EXACT


def test_the_root_on_either_side_is_the_whole_on_one() -> None:
    net, x = net_of("mlp"), torch.randn(20, 8, dtype=torch.float64)
    neurons = neurons_of(net, next(units_of(net)))

    def run(few: Neurons) -> Tensor:
        return (x @ few.rows[0].T + few.shifts[0]).relu() @ few.columns

    keeps, both = zip(*(clustered(neurons, 5, split, 2, 0) for split in (True, False)), strict=True)
    assert keeps[0] == keeps[1]
    assert far(run(both[0]), run(both[1])) < EXACT
    assert far(both[0].rows[0], both[1].rows[0]) > 0.1


def test_a_fused_norm_does_the_same_in_training() -> None:
    """Its statistics are those of the rows it was set by, so a step of training begins where eval was."""
    net, x = net_of("conv"), rows_for("conv")
    small = done(net, next(NTKFuse(rows=10**6).propose(scene_of(net, x))))
    layer = small.get_submodule("stages.0.layers.0.block")
    stream = net.stem(x)
    given = (
        layer.eval()(net.get_submodule("stages.0.layers.0").norm(stream))
        if net.get_submodule("stages.0.layers.0").norm is not None
        else layer.eval()(stream)
    )
    trains = (
        layer.train()(net.get_submodule("stages.0.layers.0").norm(stream))
        if net.get_submodule("stages.0.layers.0").norm is not None
        else layer.train()(stream)
    )
    assert far(given, trains) < 1e-8


# --- lorap


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5))
def test_the_thin_matrices_are_the_nearest_in_what_they_give(seed: int, rank: int) -> None:
    maker = torch.Generator().manual_seed(seed)
    weight = torch.randn(7, 5, generator=maker, dtype=torch.float64)
    moved = torch.rand(5, generator=maker, dtype=torch.float64) + 0.1
    up, down = weighted_svd(weight, moved, rank)
    tail = torch.linalg.svdvals(weight * moved)[rank:].square().sum()
    assert float(((weight - up @ down) * moved).square().sum()) == pytest.approx(float(tail), abs=1e-9)
    if rank == 5:
        assert far(up @ down, weight) < EXACT
    plain = weighted_svd(weight, torch.ones(5, dtype=torch.float64), rank)
    left, values, right = torch.linalg.svd(weight, full_matrices=False)
    assert far(plain[0] @ plain[1], left[:, :rank] * values[:rank] @ right[:rank]) < EXACT


def test_values_and_outputs_get_three_times_as_much() -> None:
    assert ranks([(64, 64)] * 4, 0.25) == [4, 4, 12, 12]  # of 4 * 64^2 / 4 weights, 1/8 and 3/8 each, 128 a rank
    assert ranks([(64, 64)] * 4, 0.9) == [25, 25, 32, 32]  # value and output have all, the others share what is left
    assert ranks([(4, 4)] * 4, 0.01) == [1, 1, 1, 1]


def test_the_least_hundredth_stays() -> None:
    worth = torch.arange(200.0)
    assert worthy(worth, 100) == (0, 1, *range(102, 200))
    assert worthy(worth[:20], 10) == tuple(range(10, 20))
    assert worthy(worth, 1) == (199,)


def test_attention_gets_thin_and_the_mlp_narrow() -> None:
    net, x = net_of("transformer"), rows_for("transformer")
    first, second = LoRAP(share=0.6).propose(scene_of(net, x))
    assert (first.paths, second.paths) == (("stages.0.layers.0",), ("stages.0.layers.1",))
    small = done(net, first)
    assert isinstance(small, Net)
    spec = small.spec.stages[0].layers[0]
    assert spec.block.settings["hidden"] == 8
    assert {name: part.settings["rank"] for name, part in spec.linears.items()} == {
        "query": 1,
        "key": 1,
        "value": 2,
        "out": 2,
    }
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in net.parameters())
    assert bool(small(x).isfinite().all())


class Layer(nn.Module):
    """A transformer layer as strangers write it, without norms."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(16, 16) for _ in range(4))
        self.up, self.down, self.heads = nn.Linear(16, 40), nn.Linear(40, 16), 4

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.q_proj, self.k_proj, self.v_proj)
        )
        y = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + self.o_proj(y)
        return x + self.down(nn.functional.gelu(self.up(x)))


def test_attention_of_a_stranger_gets_thin_and_its_mlp_narrow() -> None:
    net, x = randomised(nn.Sequential(Layer(), Layer())), drawn(6, 5, 16)
    first, second = LoRAP(share=0.5).propose(scene_of(net, x))
    assert (first.into, second.into) == ("0", "1")
    small = done(net, first)
    sizes = {name: tuple(value.shape) for name, value in small.state_dict().items()}
    assert (sizes["0.q_proj.up"], sizes["0.v_proj.up"], sizes["0.o_proj.down"]) == ((16, 2), (16, 6), (6, 16))
    assert sizes["0.down.weight"] == (16, 20)
    assert far(small(x), net(x)) < far(torch.zeros_like(net(x)), net(x))


# --- fuse_ot and fuse_layers


@settings(max_examples=20, deadline=None)
@given(st.permutations(list(range(12))), st.sampled_from(["mlp", "gated", "conv"]))
def test_a_permuted_copy_is_found_out(order: list[int], name: str) -> None:
    net = net_of(name)
    neurons = neurons_of(net, next(units_of(net)))
    other = neurons.like(neurons.flat()[order])
    plan = transport(distances(torch.cat(other.rows, 1), torch.cat(neurons.rows, 1)))
    assert [int(row.argmax()) for row in plan] == order
    assert far(12 * plan.sum(0), torch.ones(12).double()) < EXACT
    assert far(12 * plan.sum(1), torch.ones(12).double()) < EXACT
    assert far(laid(other, plan).flat(), neurons.flat()) < EXACT


def test_fused_with_itself_a_layer_gives_twice_as_much() -> None:
    net = net_of("mlp")
    neurons = neurons_of(net, next(units_of(net)))
    twice = fused([neurons, neurons])
    assert far(twice.rows[0], neurons.rows[0]) == 0
    assert far(twice.columns, 2 * neurons.columns) == 0


@pytest.mark.parametrize("by", ["activations", "weights"])
@pytest.mark.parametrize("name", ["mlp", "gated", "conv"])
def test_a_layer_and_its_permuted_copy_become_one(name: str, by: str) -> None:
    """Layer 1 is layer 0 in another order: fused, they are one layer that gives what both gave on the same input."""
    net, x = net_of(name), rows_for(name, 400)  # so many that no neuron is silent on all of them
    state = {key: value.clone() for key, value in net.state_dict().items()}
    order = torch.randperm(12)
    for key in [key for key in state if key.startswith("stages.0.layers.0.")]:
        value = state[key]
        inner = "block." in key and 12 in value.shape
        state[key.replace("layers.0", "layers.1")] = (
            value.index_select(value.shape.index(12), order) if inner else value
        )
    net = load_net(net.spec, state)
    if by == "activations":  # the second must read what the first does, or its neurons are active otherwise
        for layer in (0, 1):
            state[f"stages.0.layers.{layer}.block.{'second' if name == 'conv' else 'down'}.weight"] *= 1e-9
            state[f"stages.0.layers.{layer}.block.{'second' if name == 'conv' else 'down'}.bias"] *= 1e-9
        net = load_net(net.spec, state)
    one = next(FuseOT(by=by).propose(scene_of(net, x)))  # type: ignore[arg-type]
    assert one.paths == ("stages.0.layers.0", "stages.0.layers.1")
    small = done(net, one)
    assert isinstance(small, Net)
    assert small.spec.stages[0].depth == 2
    stream = torch.randn(4, *(6, 5) * (name == "conv"), 8, dtype=torch.float64)
    layers = [net.get_submodule(f"stages.0.layers.{i}") for i in (0, 1)]
    wanted = layers[0](stream) + layers[1](stream)
    assert far(small.get_submodule("stages.0.layers.0")(stream), wanted) < EXACT * float(wanted.detach().abs().max())


def test_only_like_layers_that_add_one_after_another_are_fused() -> None:
    text = "vector[features=5] | residual(mlp[hidden=4]*2, mlp[hidden=6]*3) 5x8 - grouped(mlp) 3x6 | pool[outputs=3]"
    assert [len(run) for run in fusible(Net(Spec.parse(text)))] == [2, 3]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.data())
def test_the_alignment_is_the_best_there_is(deep: int, data: st.DataObject) -> None:
    shallow = data.draw(st.integers(1, deep))
    cost = np.array(data.draw(st.lists(st.floats(0, 1), min_size=deep * shallow, max_size=deep * shallow)))
    cost = cost.reshape(deep, shallow)
    every = [(0, *rest) for rest in itertools.combinations(range(1, deep), shallow - 1)]
    best = min(sum(cost[i, j] for j, i in enumerate(one)) for one in every)
    found = aligned(cost)
    assert tuple(found) in every
    assert sum(cost[i, j] for j, i in enumerate(found)) == pytest.approx(best, abs=1e-12)
    assert deep != shallow or found == list(range(deep))


@pytest.mark.parametrize(("depth", "share", "left"), [(6, 0.5, 3), (3, 0.5, 1), (4, 0.3, 3)])
def test_fused_runs_leave_as_many_layers_as_were_wanted(depth: int, share: float, left: int) -> None:
    net = randomised(Net(Spec.parse(f"vector[features=5] | residual(mlp[hidden=6]) {depth}x8 | pool[outputs=3]")))
    x = torch.randn(50, 5, dtype=torch.float64)
    found = list(FuseLayers(share=share).propose(scene_of(net, x)))
    assert depth - sum(len(one.paths) - 1 for one in found) == left
    taken = [path for one in found for path in one.paths]
    assert len(set(taken)) == len(taken)
    for one in found:
        assert bool(done(net, one)(x).isfinite().all())


def test_streams_are_what_stands_behind_each_layer() -> None:
    net, x = net_of("conv"), rows_for("conv", 9)
    found = streams(scene_of(net, x), net, [f"stages.0.layers.{i}" for i in range(3)], 7)
    now = net.stem(x)
    for layer, one in zip(net.get_submodule("stages.0.layers"), found, strict=True):
        now = now + layer(now)
        assert far(one.values, now[:7].mean((1, 2))) < EXACT


# --- random_prune


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 12), min_size=2, max_size=4), min_size=1, max_size=6),
    st.floats(0.05, 0.99),
    st.sampled_from(["uniform", "er", "erk"]),
)
def test_counts_add_up_to_the_weight(shapes: list[list[int]], density: float, rule: str) -> None:
    sizes = [math.prod(shape) for shape in shapes]
    counts = kept(sizes, weighted(shapes, rule), density)
    assert sum(counts) == max(round(density * sum(sizes)), len(sizes))
    assert all(1 <= count <= size for count, size in zip(counts, sizes, strict=True))


def test_erk_is_the_formula() -> None:
    shapes = [(64, 32, 3, 3), (128, 64, 3, 3), (256, 512)]
    sizes = [math.prod(shape) for shape in shapes]
    counts = kept(sizes, weighted(shapes, "erk"), 0.1)
    raw = [sum(shape) / size for shape, size in zip(shapes, sizes, strict=True)]
    scale = 0.1 * sum(sizes) / sum(r * s for r, s in zip(raw, sizes, strict=True))
    assert max(raw) * scale < 1
    for count, size, r in zip(counts, sizes, raw, strict=True):
        assert count / size == pytest.approx(scale * r, abs=1.5 / size)
    assert kept([10, 1000], [1.0, 0.01], 0.5)[0] == 10  # what would be more than all is all


@pytest.mark.parametrize("rule", ["uniform", "er", "erk", "snip"])
@pytest.mark.parametrize("stranger", [False, True])
def test_masks_keep_the_share_and_stay(rule: str, stranger: bool) -> None:
    module = TinyResNet(2).double() if stranger else net_of("conv")
    x = torch.randn(8, *((1, 8, 8) if stranger else IMAGE), dtype=torch.float64)
    scene = scene_of(module, x, torch.arange(8) % 3)
    found = list(RandomPrune(density=0.3, rule=rule).propose(scene))  # type: ignore[arg-type]
    masks = {name: value for one in found for name, value in one.weights.items() if name.endswith(".mask")}
    assert sum(int(mask.sum()) for mask in masks.values()) == round(0.3 * sum(mask.numel() for mask in masks.values()))
    pruned = done(module, found[0]).train()
    nn.functional.cross_entropy(pruned(x), torch.arange(8) % 3).backward()
    torch.optim.SGD(pruned.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1).step()
    for name in (name for name in found[0].weights if name.endswith(".mask")):
        part: Any = pruned.get_submodule(name.removesuffix(".mask"))
        weight = part.weight * part.mask if stranger else part.matrix().view_as(part.mask)
        assert not weight[~masks[name]].any()
        assert weight[masks[name]].any()


def test_masks_do_not_look_at_the_weights() -> None:
    net, x = net_of("mlp"), rows_for("mlp")
    other = load_net(net.spec, {name: torch.randn_like(value) for name, value in net.state_dict().items()})
    masks = [
        [
            value
            for one in RandomPrune().propose(scene_of(each, x))
            for name, value in one.weights.items()
            if "mask" in name
        ]
        for each in (net, other)
    ]
    assert masks[0]
    assert all(torch.equal(a, b) for a, b in zip(*masks, strict=True))


# --- repmlp


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("size", [(1, 3), (3, 3), (7, 5)])
def test_a_convolution_is_a_matrix(groups: int, size: tuple[int, int]) -> None:
    kernel = torch.randn(6, 4 // groups, *size, dtype=torch.float64)
    x = torch.randn(3, 4, 4, 5, dtype=torch.float64)
    wanted = nn.functional.conv2d(x, kernel, padding=(size[0] // 2, size[1] // 2), groups=groups)
    parts = zip(as_matrix(kernel, (4, 5), groups).chunk(groups), x.chunk(groups, 1), strict=True)
    found = torch.cat([part.flatten(1) @ matrix.T for matrix, part in parts], 1)
    assert far(found, wanted.flatten(1)) < EXACT


def test_the_matrix_of_a_convolution_is_toeplitz_in_its_blocks() -> None:
    matrix = as_matrix(torch.randn(1, 1, 3, 3, dtype=torch.float64), (4, 5), 1).reshape(4, 5, 4, 5)
    assert far(matrix[1:, :, 1:], matrix[:-1, :, :-1]) == 0
    assert far(matrix[:, 1:, :, 1:], matrix[:, :-1, :, :-1]) == 0


@pytest.mark.parametrize("settings_", ["size=[3,5]", "size=[3,5],groups=2", "size=[6,5],kernels=[3]", "size=[2,1]"])
def test_a_rep_mlp_becomes_its_matrix(settings_: str) -> None:
    net = randomised(
        Net(Spec.parse(f"convolution[channels=1] | residual(rep_mlp[{settings_}], conv) 2x8 | pool[outputs=3]"))
    )
    x = torch.randn(3, *IMAGE, dtype=torch.float64)
    (one,) = RepMLP().propose(scene_of(net, x))
    assert one.edits == (Collapse(path="stages.0.layers.0"),)
    flat = done(net, one)
    assert isinstance(flat, Net)
    assert [layer.block.name for layer in flat.spec.stages[0].layers] == ["rep_mlp_folded", "conv"]
    assert flat.spec.stages[0].layers[1].norm_part.name == "batch"
    assert far(flat(x), net(x)) < EXACT * max(1.0, float(net(x).detach().abs().max()))


def test_what_does_not_collapse_is_refused() -> None:
    net = randomised(Net(Spec.parse("vector[features=5] | residual(mlp norm=layer) 2x8 | pool[outputs=3]")))
    with pytest.raises(Refused, match="nothing simpler"):
        edited(net, Collapse(path="stages.0.layers.0"))
    with pytest.raises(Refused, match="only a layer of a Net"):
        edited(nn.Sequential(nn.Linear(2, 2)), Collapse(path="0"))
