"""Measures, second half: propagation at the start, likeness, ways between weights, smoothness, reach."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_map_only

from planted import Deep, Row
from shoal.anatomy import anatomy
from shoal.core.base import Measure
from shoal.core.errors import BadData, BadModel, BadSetting, Refused
from shoal.core.graphs import normalised
from shoal.core.part import Part
from shoal.core.scene import Batch, Scene, cut
from shoal.core.spec import Spec
from shoal.kinds import TASKS
from shoal.measures import _kernels as kernels
from shoal.measures._likeness import Units, compared, correlation, one_to_one, semi, sparse
from shoal.measures._paths import Line
from shoal.measures.convergent_learning import ConvergentLearning
from shoal.measures.criticality import Criticality
from shoal.measures.dirichlet import Dirichlet
from shoal.measures.mode_connectivity import ModeConnectivity
from shoal.measures.receptive_field import ReceptiveField
from shoal.measures.similarity import Similarity
from shoal.measures.transformer_init import TransformerInit
from shoal.net import Net
from shoal.testing import run
from strangers import Encoder
from test_anatomy_any import bert, gpt2, llama, t5, tuple_out


def scene_of(module: nn.Module, *examples: Any, targets: Sequence[Tensor] = (), task: Part | None = None) -> Scene:
    """A scene of these batches."""
    batches = [Batch(one, targets[i] if targets else None) for i, one in enumerate(examples)]
    asked = None if task is None else TASKS.make(task)
    return Scene(module, anatomy(module, cut(batches[0], 2).example), tuple(batches), asked)


def whole(module: nn.Module, example: Any) -> Scene:
    """A scene of one graph."""
    return Scene(module, anatomy(module, example), (Batch(example, None, whole=True),))


def wide(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def turn(size: int) -> Tensor:
    """An orthogonal matrix."""
    return torch.linalg.qr(wide(size, size))[0]


def linear(matrix: Tensor) -> nn.Linear:
    made = nn.Linear(matrix.shape[1], matrix.shape[0], bias=False, dtype=matrix.dtype)
    made.weight.data = matrix.clone()
    return made


# ---- criticality


def test_relu_is_critical_at_two() -> None:
    assert kernels.kernels(F.relu, 20, 0.7, 2.0) == pytest.approx([0.7] * 21, rel=1e-6)
    assert kernels.parallel(F.relu, 0.7, 2.0) == pytest.approx(1, rel=1e-6)
    assert kernels.perpendicular(F.relu, 0.7, 2.0) == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("weights", [1.9, 2.1])
def test_relu_off_two_dies_or_explodes(weights: float) -> None:
    found = kernels.kernels(F.relu, 10, 0.7, weights)
    assert found == pytest.approx([0.7 * (weights / 2) ** layer for layer in range(11)], rel=1e-5)


def test_tanh_at_one_falls_like_one_over_two_depth() -> None:
    found = kernels.kernels(torch.tanh, 600, 1.0, 1.0)
    assert found[600] * 600 == pytest.approx(0.5, rel=0.02)
    assert abs(found[600] * 600 - 0.5) < abs(found[100] * 100 - 0.5)


@pytest.mark.parametrize("act", [torch.tanh, F.relu, F.gelu, torch.sin])
def test_the_parallel_susceptibility_is_the_slope_of_the_kernel(act: Callable[[Tensor], Tensor]) -> None:
    up, down = (kernels.next_kernel(act, 0.8 + step, 1.3, 0.1) for step in (1e-4, -1e-4))
    assert kernels.parallel(act, 0.8, 1.3) == pytest.approx((up - down) / 2e-4, rel=1e-5)


def test_the_ratio_that_the_book_gives_for_ten_classes() -> None:
    assert kernels.optimal_ratio(10, kernels.NU["relu"]) == pytest.approx(0.016)


@pytest.mark.parametrize(("act", "weights", "nu"), [(F.relu, 2.0, 5.0), (lambda x: x, 1.0, 2.0)])
def test_the_mean_square_fluctuates_as_depth_over_width(act: Any, weights: float, nu: float) -> None:
    width, inits = 64, 3000
    torch.manual_seed(0)
    z = torch.randn(inits, width, width) @ torch.ones(width, 1) / math.sqrt(width)
    for layer in range(1, 4):
        sizes = z.square().mean(dim=(1, 2)).double()
        found = float(sizes.var() / sizes.mean() ** 2)
        assert found == pytest.approx(kernels.fluctuation(layer, width, nu), rel=0.2), layer
        z = torch.randn(inits, width, width) @ act(z) * math.sqrt(weights / width)


def test_a_turn_keeps_signals_and_a_longer_one_does_not() -> None:
    torch.manual_seed(0)
    stack = nn.Sequential(linear(turn(16)), nn.Tanh(), linear(3 * turn(16)), nn.Tanh(), linear(wide(4, 16)))
    found = Criticality(rows=8).table(scene_of(stack, wide(8, 16)))
    assert list(found["path"]) == ["0", "2"]
    assert found["perpendicular"].tolist() == pytest.approx([1, 9], rel=1e-9)
    assert found["parallel"].tolist() == pytest.approx([1, 9], rel=1e-9)
    assert found["kernel_out"][0] == pytest.approx(found["kernel_in"][0], rel=1e-12)
    assert found["ratio"].tolist() == pytest.approx([1 / 16, 2 / 16])
    assert found["of_best"][1] == pytest.approx(2 / 16 / kernels.optimal_ratio(4, 5.0))
    assert found["weights"][1] == pytest.approx(9, rel=0.02)


@pytest.mark.parametrize("weights", [1.5, 2.0, 2.5])
def test_wide_layers_do_what_theory_says(weights: float) -> None:
    torch.manual_seed(0)
    width = 256
    layers = [nn.Sequential(nn.ReLU(), linear(wide(width, width) * math.sqrt(weights / width))) for _ in range(3)]
    found = Criticality(rows=64).table(
        scene_of(nn.Sequential(*layers, nn.ReLU(), linear(wide(3, width))), wide(64, width))
    )
    assert found["perpendicular"].tolist() == pytest.approx([weights / 2] * 3, rel=0.15)
    assert found["parallel"].tolist() == pytest.approx([weights / 2] * 3, rel=0.15)
    assert (found["kernel_out"] / found["kernel_in"]).tolist() == pytest.approx([weights / 2] * 3, rel=0.15)
    assert found["weights"].tolist() == pytest.approx([weights] * 3, rel=0.02)


# ---- transformer_init


def test_a_wide_transformer_grows_as_theory_says() -> None:
    torch.manual_seed(0)
    dim, places = 256, 5
    layers = [Encoder(dim).double() for _ in range(2)]
    for layer in layers:
        layer.mlp[1] = nn.ReLU()
        for parameter in layer.parameters():
            if parameter.dim() > 1:
                parameter.data = torch.randn_like(parameter) / math.sqrt(parameter.shape[1])
        for part in (layer.attention.qkv, layer.attention.out, layer.mlp[0], layer.mlp[2]):
            part.bias.data.zero_()
        layer.attention.qkv.weight.data[: 2 * dim] = 0
    module = nn.Sequential(*layers, linear(wide(3, dim)))
    found = TransformerInit(rows=16).table(scene_of(module, wide(16, places, dim)))
    assert list(found["path"]) == [f"{i}.{name}" for i in (0, 1) for name in ("attention", "mlp")]
    own, across = 1.0, 0.0
    for number in range(4):
        alike = across / own
        assert found["stream"][number] == pytest.approx(own, rel=0.15)
        assert found["alike_in"][number] == pytest.approx(alike, abs=0.05)
        adds = kernels.relu_mlp_adds(alike, 1.0) if number % 2 else kernels.attention_adds(alike, places, 1.0)
        assert found["added"][number] == pytest.approx(adds.own, rel=0.15)
        own, across = own + adds.own, across + adds.across
        assert found["alike_out"][number] == pytest.approx(across / own, abs=0.05)


def test_what_reaches_the_answer_through_turns_is_all() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(linear(turn(12)), linear(turn(12)), nn.Flatten(0, 0), linear(2 * turn(12)))
    found = TransformerInit(rows=6).table(scene_of(module, wide(6, 12)))
    assert found["gain"].tolist() == pytest.approx([4, 4, 1], rel=1e-9)


def test_places_that_are_all_the_same_are_alike() -> None:
    module = nn.Sequential(Row(6, F.relu), Row(6, F.relu)).double()
    found = TransformerInit().table(scene_of(module, wide(4, 1, 6).expand(4, 5, 6)))
    assert found["alike_in"].tolist() == pytest.approx([1, 1], abs=1e-12)
    assert found["alike_out"].tolist() == pytest.approx([1, 1], abs=1e-12)


# ---- convergent_learning, similarity


def test_a_permuted_copy_is_matched() -> None:
    x, order = wide(50, 7), torch.randperm(7)
    between = correlation(Units(x), Units(x[:, order]))
    first, second = one_to_one(between)
    assert torch.equal(order[torch.from_numpy(second)], torch.from_numpy(first))
    found = compared(Units(x), Units(x[:, order]))
    assert found == pytest.approx({"semi": 1, "one_to_one": 1, "unmatched": 0, "cka": 1, "cca": 1, "procrustes": 1})


@given(st.integers(2, 9), st.integers(2, 9), st.integers(0, 99))
def test_the_best_is_at_least_the_matched(a: int, b: int, seed: int) -> None:
    drawn = torch.Generator().manual_seed(seed)
    x, y = (Units(torch.randn(20, n, generator=drawn)) for n in (a, b))
    between = correlation(x, y)
    first, second = one_to_one(between)
    assert (semi(between)[first] >= between[first, second]).all()
    assert len(set(second)) == len(second) == min(a, b)
    assert all(0 <= compared(x, y)[name] <= 1 + 1e-9 for name in ("cka", "cca", "procrustes", "unmatched"))


def test_a_turn_lowers_the_matching_and_nothing_else() -> None:
    torch.manual_seed(0)
    x = wide(400, 8)
    found = compared(Units(x), Units(x @ turn(8)))
    assert found["one_to_one"] < 0.9
    assert [found[name] for name in ("cka", "cca", "procrustes")] == pytest.approx([1, 1, 1], abs=1e-9)


def test_units_that_do_not_vary_are_left_out() -> None:
    x = wide(30, 5)
    lamed = torch.cat((x, torch.ones(30, 2, dtype=torch.float64)), dim=1)
    assert correlation(Units(x), Units(lamed)).shape == (5, 5)
    assert set(compared(Units(x), Units(0 * x + 3)).values()) == {0.0}


@pytest.mark.parametrize("penalty", [0.3, 0.1])
def test_a_unit_is_told_by_itself_alone(penalty: float) -> None:
    """Where units do not go together, LASSO takes the one and leaves a share penalty^2 of its variance."""
    x = wide(50, 6)
    x = torch.linalg.qr(x - x.mean(dim=0))[0]
    found = sparse(Units(x), Units(x[:, torch.randperm(6)]), penalty)
    assert found == pytest.approx({"used": 1, "error": penalty**2}, abs=1e-6)
    mixed = sparse(Units(x), Units(x @ turn(6)), 1e-3)
    assert mixed["used"] > 5
    assert mixed["error"] < 1e-4


def permuted(net: Deep, order: Tensor) -> Deep:
    """The same function, the channels of the stream in another order."""
    made = rows(len(net.layers), len(order))
    made.load_state_dict(net.state_dict())
    made.first.weight.data, made.first.bias.data = net.first.weight[order].detach(), net.first.bias[order].detach()
    for layer in made.layers:
        layer.up.weight.data = layer.up.weight.data[:, order]
        layer.down.weight.data, layer.down.bias.data = layer.down.weight.data[order], layer.down.bias.data[order]
    made.last.weight.data = net.last.weight.data[:, order]
    return made


def rows(depth: int, dim: int = 8) -> Deep:
    return Deep(nn.Linear(5, dim), [Row(dim, F.relu) for _ in range(depth)], nn.Linear(dim, 3)).double()


def test_two_networks_of_one_function_have_the_same_units() -> None:
    torch.manual_seed(0)
    net, x = rows(3), wide(60, 5)
    other = permuted(net, torch.randperm(8))
    torch.testing.assert_close(other(x), net(x))
    found = ConvergentLearning().between(scene_of(net, x), scene_of(other, x))
    assert len(found) == 9
    same = found[found["path"] == found["other_path"]]
    for column in ("semi", "one_to_one", "cka", "cca", "procrustes"):
        assert same[column].tolist() == pytest.approx([1, 1, 1], abs=1e-9)
    with pytest.raises(BadData, match="60 examples on one side, 20 on the other"):
        ConvergentLearning().between(scene_of(net, x), scene_of(net, x[:20]))


def test_few_units_of_one_network_tell_those_of_its_copy() -> None:
    torch.manual_seed(0)
    net, x = rows(2), wide(60, 5)
    found = ConvergentLearning().predicted(scene_of(net, x), scene_of(permuted(net, torch.randperm(8)), x), (0.1, 0.01))
    assert len(found) == 4
    assert (found["error"] < 0.15).all()
    assert (found["used"] >= 1).all()
    with pytest.raises(BadSetting, match="above 0"):
        ConvergentLearning().predicted(scene_of(net, x), scene_of(net, x), (0.0,))


def test_a_dead_span_is_what_goes_into_it() -> None:
    net = rows(3)
    for parameter in net.layers[1].down.parameters():
        parameter.data.zero_()
    scene = scene_of(net, wide(40, 5), wide(24, 5))
    found = ConvergentLearning().table(scene)
    assert found["one_to_one"][1] == pytest.approx(1)
    assert found["one_to_one"][0] < 0.999
    assert found["units"].tolist() == [8, 8, 8]
    alike = Similarity(piece=16).map(scene).to_numpy()
    assert alike[0, 1] == pytest.approx(1)
    assert np.allclose(alike, alike.T)
    assert np.diagonal(alike) == pytest.approx(np.ones(3))
    assert Similarity().table(scene)["input"][1] == pytest.approx(1)


def test_cka_is_the_unbiased_form_of_its_paper() -> None:
    """HSIC = (tr KL + 1'K1 1'L1 / (n-1)(n-2) - 2 1'KL1 / (n-2)) / n(n-3), K and L without their diagonals."""
    net, x = rows(2), wide(30, 5)
    scene = scene_of(net, x)

    def hsic(a: Tensor, b: Tensor) -> Tensor:
        n, one = len(a), torch.ones(len(a), dtype=torch.float64)
        p, q = ((m @ m.T).fill_diagonal_(0) for m in (a, b))
        middle = (one @ p @ one) * (one @ q @ one) / ((n - 1) * (n - 2))
        return ((p @ q).trace() + middle - 2 / (n - 2) * (one @ p @ q @ one)) / (n * (n - 3))

    with torch.no_grad():
        first = net.layers[0](net.first(x))
        second = net.layers[1](first)
        wanted = hsic(first, second) / (hsic(first, first) * hsic(second, second)).sqrt()
    assert Similarity(piece=30).map(scene).iloc[0, 1] == pytest.approx(float(wanted), abs=1e-10)
    with pytest.raises(BadData, match="at least 4"):
        Similarity().table(scene_of(net, x[:3]))


# ---- mode_connectivity


def fitted(module: nn.Module, *shape: int, width: int = 3) -> Scene:
    torch.manual_seed(1)
    part = Part("regression", {"outputs": width})
    x = wide(*shape)
    return scene_of(module, x, targets=[wide(shape[0], width)], task=part)


def shaken(module: nn.Module, by: float = 0.5) -> dict[str, Tensor]:
    return {name: (w + by * torch.randn_like(w)).detach() for name, w in module.named_parameters()}


class States(nn.Module):
    """The last state of a GRU, which keeps lists of its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.last = nn.GRU(5, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.gru(x)[0][:, -1])


@pytest.mark.parametrize(("make", "shape"), [(lambda: rows(2), (20, 5)), (lambda: States().double(), (20, 4, 5))])
def test_a_line_has_the_losses_of_its_ends(make: Callable[[], nn.Module], shape: tuple[int, ...]) -> None:
    net = make()
    scene = fitted(net, *shape)
    other = shaken(net)
    line, names = Line(scene, other), [name for name, _ in net.named_parameters()]
    batch = scene.batches[0]
    assert scene.task is not None
    assert batch.target is not None
    with torch.no_grad():
        own = float(scene.task.loss(net(batch.example), batch.target))
    assert line.loss(names, 0.0) == pytest.approx(own)
    there = make()
    there.load_state_dict(other)
    with torch.no_grad():
        theirs = float(scene.task.loss(there(batch.example), batch.target))
    assert line.loss(names, 1.0) == pytest.approx(theirs)
    assert line.loss(names, 0.0) == pytest.approx(own)
    found = ModeConnectivity().barriers(scene, other, [(), names])
    assert found == pytest.approx([0.0, line.barrier(names, 5)], abs=1e-12)


def test_a_convex_loss_has_no_barrier_and_its_curvature_says_how_deep_it_hangs() -> None:
    module = nn.Sequential(linear(wide(5, 5)))
    scene = fitted(module, 20, 5, width=5)
    line = Line(scene, shaken(module))
    assert line.barrier(["0.weight"], 5) == 0.0
    ends = [line.loss(["0.weight"], t) for t in (0.0, 1.0)]
    for t in (0.25, 0.5):
        chord = (1 - t) * ends[0] + t * ends[1]
        wanted = chord - t * (1 - t) / 2 * line.curvature(["0.weight"])
        assert line.loss(["0.weight"], t) == pytest.approx(wanted, rel=1e-9)


def test_a_permuted_copy_lies_behind_a_barrier_and_back_in_order_it_does_not() -> None:
    torch.manual_seed(0)
    net = rows(2, 16)
    scene = scene_of(net, wide(40, 5))
    order = torch.randperm(16)
    other = permuted(net, order)
    names = [name for name, _ in net.named_parameters()]
    back = permuted(other, order.argsort())
    found = ModeConnectivity()
    assert found.barriers(scene, other.state_dict(), [names])[0] > 0.01
    assert found.barriers(scene, back.state_dict(), [names])[0] == pytest.approx(0, abs=1e-12)


def test_running_statistics_are_taken_anew() -> None:
    """A batch norm that never saw the data counts as one that did; and it is left as it was."""
    torch.manual_seed(0)
    module = nn.Sequential(linear(wide(6, 6)), nn.BatchNorm1d(6).double(), nn.ReLU(), linear(wide(3, 6)))
    scene = fitted(module, 32, 6)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    found = Line(scene, shaken(module)).loss((), 0.0)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert module[1].momentum == 0.1
    batch = scene.batches[0]
    with torch.no_grad():
        z = module[0](batch.example)
        z = (z - z.mean(dim=0)) / (z.var(dim=0) + 1e-5).sqrt()  # running variances are those of a sample
        y = module[3](z.relu())
    assert scene.task is not None
    assert batch.target is not None
    assert found == pytest.approx(float(scene.task.loss(y, batch.target)), rel=1e-9)


def test_the_table_reads_a_file(tmp_path: Path) -> None:
    net = rows(2)
    scene = fitted(net, 20, 5)
    path = tmp_path / "other.safetensors"
    save_file(shaken(net), path)
    found = ModeConnectivity(other=str(path), steps=3).table(scene)
    assert (found["barrier"] >= 0).all()
    assert (found["distance"] > 0).all()
    save_file({"first.weight": torch.ones(2)}, path)
    with pytest.raises(BadModel, match=r"other weights: first\.weight is of shape"):
        ModeConnectivity(other=str(path)).table(scene)
    path.write_bytes(b"no weights")
    with pytest.raises(BadModel, match="name a file in safetensors"):
        ModeConnectivity(other=str(path)).table(scene)
    with pytest.raises(BadModel, match="there is no such file"):
        ModeConnectivity(other=str(tmp_path / "gone")).table(scene)
    with pytest.raises(Refused, match="weights at the other end"):
        ModeConnectivity().table(scene)


# ---- dirichlet


class OnRing(nn.Module):
    """Each node becomes the mean of itself and of the mean of its two neighbours, mapped."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.map = linear(torch.eye(dim, dtype=torch.float64))

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        return self.map(x / 2 + torch.zeros_like(x).index_add(0, edges[1], x[edges[0]]) / 4)


class Graph(nn.Module):
    def __init__(self, hops: int, dim: int) -> None:
        super().__init__()
        self.hops = nn.ModuleList(OnRing(dim) for _ in range(hops))

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        for hop in self.hops:
            x = hop(x, edges)
        return x


def ring(nodes: int) -> Tensor:
    at = torch.arange(nodes)
    return torch.cat((torch.stack((at, at.roll(1))), torch.stack((at.roll(1), at))), dim=1)


def test_the_energy_of_a_wave_on_a_ring_is_its_eigenvalue() -> None:
    nodes = 24
    for wave in (0, 1, 5, 11):
        x = torch.cos(2 * math.pi * wave * torch.arange(nodes, dtype=torch.float64) / nodes).unsqueeze(1)
        for example in ({"x": x, "edges": ring(nodes)}, (x, ring(nodes))):
            found = Dirichlet().table(whole(Graph(2, 1), example))
            wanted = 1 - math.cos(2 * math.pi * wave / nodes)
            assert found["energy_in"].tolist() == pytest.approx([wanted, wanted], abs=1e-12)


def test_smoothing_makes_nodes_alike() -> None:
    torch.manual_seed(0)
    found = Dirichlet().table(whole(Graph(6, 3), {"x": wide(25, 3), "edges": ring(25)}))
    assert found["energy_in"].is_monotonic_decreasing
    assert (found["ratio"] < 1).all()


def test_edges_may_be_a_sparse_matrix_in_a_context() -> None:
    net = Net(Spec.parse("vector[features=3] | residual(gcn) 2x4 | pool[outputs=2]")).double()
    x = wide(12, 3)
    kinds = {"edges": ring(12)}, {"adjacency": normalised(ring(12), 12, torch.float64)}
    first, second = (Dirichlet().table(whole(net, {"x": x, "context": context})) for context in kinds)
    assert np.allclose(first.iloc[:, 2:], second.iloc[:, 2:])


def test_places_drawn_apart_have_energy_one_and_equal_ones_none() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(linear(turn(8)), linear(turn(8)))
    apart = Dirichlet().table(scene_of(module, wide(8, 20, 20, 8)))
    assert apart["energy_out"].tolist() == pytest.approx([1, 1], rel=0.05)
    assert apart["ratio"].tolist() == pytest.approx([1, 1], rel=1e-9)
    alike = Dirichlet().table(scene_of(module, torch.ones(4, 6, 8, dtype=torch.float64)))
    assert alike["energy_out"].tolist() == pytest.approx([0, 0], abs=1e-20)


# ---- receptive_field


def test_a_stack_of_threes_reaches_two_more_each_time() -> None:
    layers = [nn.Conv2d(3, 3, 3, padding=1, padding_mode="circular") for _ in range(4)]
    found = ReceptiveField().table(scene_of(nn.Sequential(*layers).double(), wide(2, 3, 9, 9)))
    assert found["reach"].tolist() == [9, 25, 49, 81]
    assert found["share"].tolist() == pytest.approx([9 / 81, 25 / 81, 49 / 81, 1])
    assert (found["effective"] <= found["reach"] + 1e-9).all()


def test_tokens_reach_what_attention_lets_them() -> None:
    every = Encoder(8).double()
    found = ReceptiveField(probes=6).table(scene_of(nn.Sequential(every), wide(2, 6, 8)))
    assert found["reach"].tolist() == [6, 6]
    alone = ReceptiveField().table(scene_of(nn.Sequential(Row(8, F.relu), Row(8, F.relu)).double(), wide(2, 6, 8)))
    assert alone["reach"].tolist() == [1, 1]
    assert alone["effective"].tolist() == pytest.approx([1, 1])


def test_causal_tokens_reach_what_comes_after() -> None:
    text = "tokens[vocabulary=11,length=6] | residual(attention[causal=true,heads=2]) 2x8 | every[outputs=11]"
    net = Net(Spec.parse(text)).double()
    ids = torch.randint(0, 11, (3, 6))
    found = ReceptiveField(probes=6).table(scene_of(net, ids))
    assert found["reach"].tolist() == pytest.approx([3.5, 3.5])  # the mean of 6, 5, ... 1


def test_nodes_reach_as_far_as_there_are_hops() -> None:
    found = ReceptiveField(probes=3).table(whole(Graph(3, 2), {"x": wide(15, 2), "edges": ring(15)}))
    assert found["reach"].tolist() == [3, 5, 7]


class HoldsItsNodes(nn.Module):
    """Its input are the numbers of nodes; what they are, it knows itself."""

    def __init__(self) -> None:
        super().__init__()
        self.x, self.row = torch.ones(9, 4), Row(4, F.relu)

    def forward(self, nodes: Tensor) -> Tensor:
        return self.row(self.x)[nodes]


def test_numbers_of_nodes_are_no_input_to_change() -> None:
    with pytest.raises(BadData, match="not the numbers of nodes"):
        ReceptiveField().table(scene_of(HoldsItsNodes(), torch.arange(6)))


def test_what_is_out_of_range_is_refused() -> None:
    for make in (
        lambda: Criticality(step=0.0),
        lambda: TransformerInit(step=1.0),
        lambda: ConvergentLearning(rows=1),
        lambda: Similarity(piece=3),
        lambda: ModeConnectivity(steps=0),
        lambda: ReceptiveField(probes=0),
    ):
        with pytest.raises(BadSetting, match="give"):
            make()


# ---- other people's models


@pytest.mark.parametrize("family", [bert, gpt2, llama, t5, tuple_out])
@pytest.mark.parametrize(
    "one",
    [Criticality(), TransformerInit(), ConvergentLearning(), Similarity(), Dirichlet(), ReceptiveField()],
    ids=lambda one: type(one).__name__,
)
def test_tuples_keywords_and_caches_are_no_matter(family: Callable[[], tuple[nn.Module, Any]], one: Measure) -> None:
    module, example = family()
    several = tree_map_only(Tensor, lambda tensor: tensor.repeat(3, *[1] * (tensor.dim() - 1)), example)
    scene = scene_of(module, several)
    found = one.table(scene)
    assert list(found["path"]) == [span.path for span in scene.spans]
    assert np.isfinite(found.iloc[:, 2:].to_numpy()).all()


# ---- the battery of measures

TABLE = Dirichlet.table


def not_finite(self: Dirichlet, scene: Scene) -> Any:
    return TABLE(self, scene).assign(ratio=math.inf)


def without_a_row(self: Dirichlet, scene: Scene) -> Any:
    return TABLE(self, scene).iloc[1:]


def turned_round(self: Dirichlet, scene: Scene) -> Any:
    return TABLE(self, scene).iloc[::-1]


def with_words(self: Dirichlet, scene: Scene) -> Any:
    return TABLE(self, scene).assign(ratio="much")


def writing(self: Dirichlet, scene: Scene) -> Any:
    next(scene.module.parameters()).data.mul_(1.5)
    return TABLE(self, scene)


def in_eval(self: Dirichlet, scene: Scene) -> Any:
    scene.module.eval()
    return TABLE(self, scene)


def with_gradients(self: Dirichlet, scene: Scene) -> Any:
    for parameter in scene.module.parameters():
        parameter.grad = None
    return TABLE(self, scene)


def hooked(self: Dirichlet, scene: Scene) -> Any:
    scene.module.register_forward_hook(lambda *_: None)
    return TABLE(self, scene)


def drawing(self: Dirichlet, scene: Scene) -> Any:
    return TABLE(self, scene).assign(ratio=float(torch.rand(1)))


def refusing(self: Dirichlet, scene: Scene) -> Any:
    raise Refused("measure dirichlet: it knows no such module")


@pytest.mark.parametrize(
    ("check", "fault"),
    [
        ("one_row_a_span", not_finite),
        ("one_row_a_span", without_a_row),
        ("one_row_a_span", turned_round),
        ("one_row_a_span", with_words),
        ("one_row_a_span", refusing),
        ("leaves_the_module_alone", writing),
        ("leaves_the_module_alone", in_eval),
        ("leaves_the_module_alone", with_gradients),
        ("leaves_the_module_alone", hooked),
        ("leaves_the_module_alone", drawing),
        ("repeats", drawing),
    ],
)
def test_planted_faults_are_found(monkeypatch: pytest.MonkeyPatch, check: str, fault: Any) -> None:
    monkeypatch.setattr(Dirichlet, "table", fault)
    with pytest.raises(AssertionError):
        run("measure", "dirichlet", check)
