"""Wirings on one stream and on growing ones: each against the formula of its paper, and against its neighbours."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import combinations, pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from shoal.core.base import Branch, Wiring
from shoal.core.errors import BadSetting, Refused
from shoal.core.part import Part
from shoal.core.spec import Spec
from shoal.kinds import WIRINGS
from shoal.net import Net
from shoal.testing import run
from shoal.testing._probes import measured_reads
from shoal.testing._samples import OFFERS

DIM = 6


def wire(text: str, depth: int, dim: int = DIM) -> Wiring:
    wiring: Wiring = WIRINGS.make(Part.parse(text), dim, depth, dim=dim, offers=OFFERS).double()
    return wiring


def branches(wiring: Wiring, *, tanh: bool = True, seed: int = 0) -> list[Branch]:
    """A matrix, or a matrix and a tanh, for each layer, as wide as the wiring says."""
    draw = torch.Generator().manual_seed(seed)
    matrices = [torch.randn(*ends, generator=draw, dtype=torch.float64) / ends[0] ** 0.5 for ends in wiring.ends()]
    if tanh:
        return [lambda x, matrix=matrix: torch.tanh(x @ matrix) for matrix in matrices]
    return [lambda x, matrix=matrix: x @ matrix for matrix in matrices]


def sample(dim: int = DIM, rows: int = 3) -> Tensor:
    return torch.randn(rows, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def close(found: Tensor, wanted: Tensor, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)


def stage(text: str) -> nn.Module:
    """The one stage of a float64 net on a sequence, all of whose weights have left zero, in eval."""
    torch.manual_seed(0)
    net = Net(Spec.parse(f"convolution[channels=2,kernel=[3]] | {text} | pool[outputs=2]")).double().eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.empty_like(parameter).uniform_(-0.2, 0.2))
    return net.stages[0]


VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("scaled", {"scale": "mean", "learned": False}),
    ("expansion", {"order": 1, "scale": "one"}),
    ("expansion", {"order": 3, "scale": "root"}),
    ("layer_scale", {"init": 0.5}),
    ("path_ensemble", {"per_channel": True}),
    ("sparse", {"aggregate": "sum"}),
    ("sparse", {"base": 3, "growth": 2}),
    ("fractal", {"columns": 2, "drop": 0.0}),
    ("dual_path", {}),
    ("dual_path", {"residual": 0, "growth": 2}),
    ("dual_path", {"growth": 0}),
    ("ode", {"method": "rk4", "size": 0}),
    ("ode", {"method": "euler", "size": 3}),
    ("stochastic", {"survive": 1.0}),
]


@pytest.mark.parametrize(
    "check",
    ["ends_and_out", "reads_as_measured", "layers_called_in_order", "without_a_layer", "rows_apart", "gradients"],
)
@pytest.mark.parametrize(
    ("name", "tiny"), VARIANTS, ids=[f"{name}-{index}" for index, (name, _) in enumerate(VARIANTS)]
)
def test_the_battery_at_other_settings(
    monkeypatch: pytest.MonkeyPatch, name: str, tiny: dict[str, Any], check: str
) -> None:
    monkeypatch.setattr(WIRINGS.get(name), "tiny", tiny)
    assert run("wiring", name, check) is None


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("scaled[scale=0]", "learned=true"),
        ("scaled[scale=inf]", "finite"),
        ("scaled[scale=half]", "scale='half'"),
        ("expansion[order=-1]", "order=-1"),
        ("layer_scale[init=nan]", "init=nan"),
        ("sparse[base=1]", "base=1"),
        ("sparse[aggregate=sum,growth=2]", "cannot be summed"),
        ("fractal[columns=0]", "columns=0"),
        ("fractal[drop=1.5]", "drop=1.5"),
        ("fractal[columns=2,column=3]", "1 to 2"),
        ("dual_path[residual=7]", "width 6"),
        ("dual_path[residual=0,growth=0]", "nothing"),
        ("dual_path[residual=-1]", "residual=-1"),
        ("ode[size=-1]", "size=-1"),
        ("ode[steps=0]", "steps=0"),
        ("ode[method=leap]", "method='leap'"),
        ("stochastic[survive=0]", "above 0"),
        ("stochastic[survive=[1,1]]", "depth 4"),
    ],
)
def test_settings_out_of_range_are_refused_in_one_line(text: str, what: str) -> None:
    with pytest.raises(BadSetting) as caught:
        wire(text, 4)
    assert what in str(caught.value)
    assert "\n" not in str(caught.value)


# ---- scaled


def test_scaled_by_one_is_the_residual_net() -> None:
    residual = wire("residual", 5)
    assert torch.equal(
        wire("scaled[scale=one]", 5)(sample(), branches(residual)), residual(sample(), branches(residual))
    )


@pytest.mark.parametrize(("scale", "value"), [("one", 1), ("mean", 1 / 9), ("root", 1 / 3), ("0.25", 0.25), ("2", 2)])
def test_scales_are_numbers(scale: str, value: float) -> None:
    for text in (f"scaled[scale={scale}]", f"scaled[scale={scale},learned=true]"):
        wiring = wire(text, 9)
        x = y = sample()
        for layer in branches(wiring):
            y = y + value * layer(y)
        close(wiring(x, branches(wiring)), y, 1e-6 if "learned" in text else 1e-10)  # learned ones start in float32


def test_skip_init_starts_as_the_identity_and_learns() -> None:
    wiring = wire("scaled[scale=0,learned=true]", 4)
    y = wiring(sample(), branches(wiring))
    assert torch.equal(y, sample())
    y.square().sum().backward()
    assert [parameter.shape for parameter in wiring.parameters()] == [(4,)]
    assert all(parameter.grad is not None and parameter.grad.all() for parameter in wiring.parameters())


@pytest.mark.parametrize(("scale", "factor"), [("one", 1.0), ("root", 1 / 8), ("mean", 1 / 64)])
def test_the_variance_of_independent_layers_compounds(scale: str, factor: float) -> None:
    wiring, draw = wire(f"scaled[scale={scale}]", 8, 512), torch.Generator().manual_seed(0)
    matrices = [torch.randn(512, 512, generator=draw, dtype=torch.float64) / 512**0.5 for _ in range(8)]
    x = torch.randn(16, 512, generator=draw, dtype=torch.float64)
    y = wiring(x, [lambda x, matrix=matrix: x @ matrix for matrix in matrices])
    assert float(y.square().mean() / x.square().mean()) == pytest.approx((1 + factor) ** 8, rel=0.15)


@pytest.mark.parametrize(("scale", "finite"), [("one", False), ("root", True), ("mean", True)])
def test_a_thousand_layers_explode_unless_scaled(scale: str, finite: bool) -> None:
    draw = torch.Generator().manual_seed(0)
    matrices = [torch.randn(16, 16, generator=draw) / 4 for _ in range(1000)]
    wiring = wire(f"scaled[scale={scale}]", 1000, 16)
    y = wiring(torch.ones(1, 16), [lambda x, matrix=matrix: x @ matrix for matrix in matrices])
    assert bool(torch.isfinite(y).all()) is finite


def test_without_keeps_the_number_that_the_name_stood_for() -> None:
    assert wire("scaled[scale=mean]", 4).without(1) == {"scale": 0.25, "learned": False}
    assert wire("expansion[scale=mean,order=3]", 4).without(1) == {"scale": 0.25, "order": 3}
    with pytest.raises(Refused, match="learned scale"):
        wire("scaled[learned=true]", 4).without(1)


# ---- expansion


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_linear_layers_expand_into_ordered_products(depth: int) -> None:
    draw = torch.Generator().manual_seed(depth)
    matrices = [torch.randn(DIM, DIM, generator=draw, dtype=torch.float64) for _ in range(depth)]
    layers: list[Branch] = [lambda x, matrix=matrix: x @ matrix for matrix in matrices]
    total = x = sample()
    for order in range(depth + 1):
        if order:
            for chosen in combinations(matrices, order):
                path = x
                for matrix in chosen:
                    path = path @ matrix
                total = total + 0.3**order * path
        close(wire(f"expansion[order={order},scale=0.3]", depth)(x, layers), total)
    close(wire("scaled[scale=0.3]", depth)(x, layers), total)


@pytest.mark.parametrize("scale", ["one", "mean", "0.3"])
def test_order_one_is_one_scaled_group_of_all(scale: str) -> None:
    first, group = wire(f"expansion[order=1,scale={scale}]", 5), wire("grouped[size=0]", 5)
    value = {"one": 1.0, "mean": 0.2}.get(scale, 0.3)
    scaled: list[Branch] = [lambda x, layer=layer: value * layer(x) for layer in branches(group)]
    close(first(sample(), branches(first)), group(sample(), scaled), 1e-12)


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_what_an_order_leaves_out_is_of_the_next_order(order: int) -> None:
    def gap(scale: float) -> float:
        whole, cut = wire(f"scaled[scale={scale}]", 4), wire(f"expansion[order={order},scale={scale}]", 4)
        return float((whole(sample(), branches(whole)) - cut(sample(), branches(cut))).detach().norm())

    assert gap(0.02) / gap(0.01) == pytest.approx(2 ** (order + 1), rel=0.1)


def test_it_is_the_taylor_polynomial_of_the_whole_stack() -> None:
    cut, layers, x = wire("expansion[order=3,scale=0.7]", 4), branches(wire("residual", 4)), sample()

    def stack(scale: Tensor) -> Tensor:
        y = x
        for layer in layers:
            y = y + scale * layer(y)
        return y

    zero, total, derivative = torch.zeros((), dtype=torch.float64), x, stack
    for order in range(1, 4):
        derivative = torch.func.jacrev(derivative)
        total = total + 0.7**order / math.factorial(order) * derivative(zero)
    close(cut(x, layers), total)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_gradients_flow_through_every_order(order: int) -> None:
    wiring = wire(f"expansion[order={order},scale=one]", 3, 2)
    matrices = [torch.randn(2, 2, dtype=torch.float64, requires_grad=True) for _ in range(3)]

    def function(x: Tensor, *matrices: Tensor) -> Tensor:
        return wiring(x, [lambda x, matrix=matrix: torch.tanh(x @ matrix) for matrix in matrices])

    x = torch.randn(1, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(function, (x, *matrices))


def test_each_layer_runs_once_also_in_inference_mode() -> None:
    wiring, calls = wire("expansion[order=3]", 4), []
    layers: list[Branch] = [
        lambda x, i=i, layer=layer: calls.append(i) or layer(x) for i, layer in enumerate(branches(wiring))
    ]
    wanted = wiring(sample(), layers)
    assert calls == [0, 1, 2, 3]
    with torch.inference_mode():
        close(wiring(sample(), layers), wanted)


# ---- layer scale


@pytest.mark.parametrize(("depth", "start"), [(1, 0.1), (18, 0.1), (19, 1e-5), (24, 1e-5), (25, 1e-6), (48, 1e-6)])
def test_layer_scales_start_by_depth(depth: int, start: float) -> None:
    scales = list(wire("layer_scale", depth).parameters())
    assert [scale.shape for scale in scales] == [(DIM,)] * depth  # one axis each: recipes let those be without decay
    assert all(bool((scale == torch.tensor(start).double()).all()) for scale in scales)


def test_layer_scale_zero_is_the_identity_and_gradients_go_with_the_scale() -> None:
    still = wire("layer_scale[init=0]", 3)
    assert torch.equal(still(sample(), branches(still)), sample())
    slopes = []
    for scale in (0.5, 0.25):
        wiring, given = (
            wire(f"layer_scale[init={scale}]", 1),
            torch.zeros(3, DIM, dtype=torch.float64, requires_grad=True),
        )
        wiring(sample(), [lambda x, given=given: given]).sum().backward()
        slopes.append(given.grad)
    close(slopes[0], 2 * slopes[1])


def test_layer_scale_folds_into_the_last_matrices() -> None:
    scaled = stage("layer_scale[init=0.5](attention[heads=2], mlp[hidden=10]) 2x6")
    plain = stage("residual(attention[heads=2], mlp[hidden=10]) 2x6")
    state = scaled.state_dict()
    for index, outlet in enumerate(("out", "down")):
        scale = state.pop(f"wiring.scales.{index}")
        state[f"layers.{index}.block.{outlet}.weight"] = scale[:, None] * state[f"layers.{index}.block.{outlet}.weight"]
        state[f"layers.{index}.block.{outlet}.bias"] = scale * state[f"layers.{index}.block.{outlet}.bias"]
    plain.load_state_dict(state, strict=True)
    x = torch.randn(2, 5, 6, dtype=torch.float64)
    close(plain(x, None, 0, None), scaled(x, None, 0, None))


# ---- path ensemble


@pytest.mark.parametrize("per_channel", ["false", "true"])
def test_paths_of_weight_one_are_the_residual_net_and_add_up(per_channel: str) -> None:
    wiring, residual = wire(f"path_ensemble[per_channel={per_channel}]", 4), wire("residual", 4)
    layers = branches(residual)
    assert torch.equal(wiring(sample(), layers), residual(sample(), layers))
    weights = list(wiring.parameters())
    assert [weight.shape for weight in weights] == [(DIM,) if per_channel == "true" else (1,)] * 5
    whole, paths = wiring(sample(), layers), []
    with torch.no_grad():
        for chosen in weights:
            for weight in weights:
                weight.fill_(1.0 if weight is chosen else 0.0)
            paths.append(wiring(sample(), layers))
    close(torch.stack(paths).sum(dim=0), whole)
    assert torch.equal(paths[0], sample())


def test_a_path_cut_from_the_sum_is_still_read_by_later_layers() -> None:
    wiring, seen = wire("path_ensemble", 4), []
    layers: list[Branch] = [lambda x, layer=layer: seen.append(x) or layer(x) for layer in branches(wiring)]
    whole = wiring(sample(), layers)
    with torch.no_grad():
        wiring.get_parameter("weights.2").zero_()
    cut = wiring(sample(), layers)
    assert all(torch.equal(before, after) for before, after in zip(seen[:4], seen[4:], strict=True))
    close(whole - cut, branches(wiring)[1](seen[1]))


# ---- sparse


@pytest.mark.parametrize("base", [2, 3])
def test_in_degree_is_the_logarithm(base: int) -> None:
    for layer, row in enumerate(wire(f"sparse[base={base}]", 40).reads(), 1):
        assert len(row) == len([power for power in range(9) if base**power <= layer])
        assert row == {layer - base**power for power in range(9) if base**power <= layer}
    assert all(len(row) == math.floor(math.log2(i)) + 1 for i, row in enumerate(wire("sparse", 40).reads(), 1))


def test_the_shortest_path_between_layers_is_the_popcount_of_their_distance() -> None:
    rows = wire("sparse", 32).reads()
    for start in range(33):
        steps = {start: 0}
        for node in range(start + 1, 34):
            steps[node] = 1 + min(steps[read] for read in rows[node - 1] if read in steps)
            assert steps[node] == (node - start).bit_count()


def test_two_layers_read_what_they_read_in_the_dense_net() -> None:
    assert wire("sparse", 5).reads()[:2] == wire("dense", 5).reads()[:2]
    assert wire("sparse", 5).reads()[2] != wire("dense", 5).reads()[2]
    sparse, dense = wire("sparse[growth=2]", 1), wire("dense[growth=2]", 1)
    assert torch.equal(sparse(sample(), branches(sparse)), dense(sample(), branches(dense)))


def test_sparse_sums_by_hand() -> None:
    wiring = wire("sparse[aggregate=sum]", 4)
    a, b, c, d = branches(wiring)
    x = sample()
    x1 = a(x)
    x2 = b(x + x1)
    x3 = c(x1 + x2)
    x4 = d(x + x2 + x3)
    close(wiring(x, branches(wiring)), x1 + x3 + x4)


# ---- fractal


def test_fractals_fill_any_depth() -> None:
    for columns in (1, 2, 3, 4):
        for depth in range(1, 40):
            fractals = wire(f"fractal[columns={columns}]", depth).fractals
            assert sum(2**own - 1 for own in fractals) == depth
            assert fractals.count(columns) == depth // (2**columns - 1)
            assert all(before >= after for before, after in pairwise(fractals))


@pytest.mark.parametrize("columns", [1, 2, 3, 4])
def test_the_longest_path_doubles_with_each_column(columns: int) -> None:
    length = [0]
    for row in wire(f"fractal[columns={columns}]", 2 * (2**columns - 1)).reads():
        length.append(1 + max(length[node] for node in row))
    assert length[-1] - 1 == 2 * 2 ** (columns - 1)


def test_fractals_by_hand() -> None:
    two, three = wire("fractal[columns=2,drop=0]", 3), wire("fractal[columns=3,drop=0]", 7)
    a, b, c, d, e, f, g = branches(three)
    x = sample()
    close(two(x, [a, b, c]), (b(a(x)) + c(x)) / 2)
    middle = (b(a(x)) + c(x)) / 2
    close(three(x, [a, b, c, d, e, f, g]), (e(d(middle)) + f(middle) + g(x)) / 3)


COLUMNS = {  # the layers of each column: two fractals of three columns, then one of two
    1: [6, 13, 16],
    2: [2, 5, 9, 12, 14, 15],
    3: [0, 1, 3, 4, 7, 8, 10, 11, 14, 15],
}


@pytest.mark.parametrize("column", [1, 2, 3])
@pytest.mark.parametrize("training", [True, False])
def test_every_column_alone_is_the_plain_net_of_its_layers(column: int, training: bool) -> None:
    said, whole = wire(f"fractal[column={column}]", 17).train(training), wire("fractal", 17).train(training)
    layers = branches(whole)
    chain = wire("plain", len(COLUMNS[column]))(sample(), [layers[i] for i in COLUMNS[column]])
    assert torch.equal(said(sample(), layers), chain)
    whole.column = column
    assert torch.equal(whole(sample(), layers), chain)
    assert said.reads() == measured_reads(said)
    assert len(said.reads()) == len(COLUMNS[column]) + 1


def called(wiring: Wiring, count: int) -> list[tuple[int, ...]]:
    """The layers called in each of so many passes."""
    passes, calls = [], []
    layers: list[Branch] = [
        lambda x, i=i, layer=layer: calls.append(i) or layer(x) for i, layer in enumerate(branches(wiring))
    ]
    torch.manual_seed(0)
    for _ in range(count):
        assert torch.isfinite(wiring(sample(), layers)).all()
        passes.append(tuple(calls))
        calls.clear()
    return passes


def test_half_of_the_passes_keep_one_column() -> None:
    passes = Counter(called(wire("fractal[drop=0.001]", 17), 600))
    single = [passes[tuple(COLUMNS[column])] for column in (1, 2, 3)]
    assert sum(single) == pytest.approx(300, abs=60)
    assert all(count == pytest.approx(100, abs=40) for count in single)
    assert passes[tuple(range(17))] > 200


@pytest.mark.parametrize("drop", [0.15, 0.6, 1.0])
def test_every_mean_keeps_an_input(drop: float) -> None:
    passes = called(wire(f"fractal[drop={drop}]", 7), 300)
    ways = {(0, 1, 3, 4), (0, 1, 5), (2, 3, 4), (2, 5), (6,)}  # where one input of each mean is left, a single path
    assert all(any(set(way) <= set(each) for way in ways) for each in passes)
    assert (set(passes) == ways) is (drop == 1.0)


def test_nothing_is_dropped_in_eval_or_without_drop() -> None:
    trained, still = wire("fractal", 9), wire("fractal[drop=0]", 9)
    layers = branches(still)
    assert torch.equal(trained.eval()(sample(), layers), still.train()(sample(), layers))


# ---- dual path and dense


def test_dual_path_holds_the_residual_and_the_dense_net() -> None:
    for text, other in (("growth=0", "residual"), ("residual=0,growth=3", "dense[growth=3]")):
        dual, known = wire(f"dual_path[{text}]", 4), wire(other, 4)
        assert dual.ends() == known.ends()
        assert torch.equal(dual(sample(), branches(dual)), known(sample(), branches(dual)))


def test_dual_path_by_hand() -> None:
    wiring = wire("dual_path[residual=4,growth=2]", 2)
    assert wiring.ends() == [(6, 6), (8, 6)]
    assert wiring.out() == 6 + 2 * 2
    a, b = branches(wiring)
    x = sample()
    first = a(x)
    r, d = x[:, :4] + first[:, :4], torch.cat((x[:, 4:], first[:, 4:]), dim=-1)
    second = b(torch.cat((r, d), dim=-1))
    close(wiring(x, [a, b]), torch.cat((r + second[:, :4], d, second[:, 4:]), dim=-1))


def test_dense_connections_and_widths() -> None:
    for depth in (1, 4, 9):
        wiring = wire("dense[growth=5]", depth)
        assert sum(len(row) for row in wiring.reads()[:-1]) == depth * (depth + 1) // 2
        assert [takes for takes, _ in wiring.ends()] == [DIM + 5 * i for i in range(depth)]
        assert wiring.out() == DIM + 5 * depth


def test_a_convolution_over_dense_inputs_is_a_sum_over_them() -> None:
    wiring = wire("dense[growth=3]", 3)
    kernels = [torch.randn(out, ins, 3, 3, dtype=torch.float64) for ins, out in wiring.ends()]

    def convolve(x: Tensor, kernel: Tensor) -> Tensor:
        return F.conv2d(x.movedim(-1, 1), kernel, padding=1).movedim(1, -1)

    x = torch.randn(2, 4, 5, DIM, dtype=torch.float64)
    nodes = [x]
    for kernel in kernels:
        parts = kernel.split([node.shape[-1] for node in nodes], dim=1)
        nodes.append(sum(convolve(node, part) for node, part in zip(nodes, parts, strict=True)))
    layers: list[Branch] = [lambda x, kernel=kernel: convolve(x, kernel) for kernel in kernels]
    close(wiring(x, layers), torch.cat(nodes, dim=-1))


# ---- ode


@pytest.mark.parametrize("size", [0, 1, 2, 3])
def test_one_euler_step_is_grouped(size: int) -> None:
    ode, grouped = wire(f"ode[method=euler,size={size}]", 5), wire(f"grouped[size={size}]", 5)
    close(ode(sample(), branches(ode)), grouped(sample(), branches(ode)), 1e-12)


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("midpoint", 2), ("rk4", 4)])
def test_linear_fields_give_the_exponential_to_the_order_of_the_solver(method: str, order: int) -> None:
    wiring, draw = wire(f"ode[method={method},size=2,steps=3]", 4), torch.Generator().manual_seed(0)
    matrices = [torch.randn(DIM, DIM, generator=draw, dtype=torch.float64) / 4 for _ in range(4)]
    y = sample()
    for field in (matrices[0] + matrices[1], matrices[2] + matrices[3]):
        step = sum(torch.linalg.matrix_power(field / 3, power) / math.factorial(power) for power in range(order + 1))
        y = y @ torch.linalg.matrix_power(step, 3)
    close(wiring(sample(), [lambda x, matrix=matrix: x @ matrix for matrix in matrices]), y)


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("midpoint", 2), ("rk4", 4)])
def test_more_steps_come_nearer_at_the_order_of_the_solver(method: str, order: int) -> None:
    exact = wire("ode[method=rk4,size=0,steps=256]", 2)

    def gap(steps: int) -> float:
        wiring = wire(f"ode[method={method},size=0,steps={steps}]", 2)
        layers = branches(wiring)
        return float((wiring(sample(), layers) - exact(sample(), layers)).norm())

    assert gap(8) / gap(16) == pytest.approx(2**order, rel=0.25)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["euler", "midpoint", "rk4"]),
    st.integers(0, 4),
    st.integers(1, 3),
    st.integers(1, 6),
    st.booleans(),
)
def test_reads_of_any_solver_are_as_measured(method: str, size: int, steps: int, depth: int, training: bool) -> None:
    wiring = wire(f"ode[method={method},size={size},steps={steps}]", depth).train(training)
    assert wiring.reads() == measured_reads(wiring)


# ---- stochastic


def test_chances_fall_with_depth_and_scale_in_eval() -> None:
    wiring = wire("stochastic[survive=0.5]", 4).eval()
    layers, y = branches(wiring), sample()
    for chance, layer in zip((0.875, 0.75, 0.625, 0.5), layers, strict=True):
        y = y + chance * layer(y)
    close(wiring(sample(), layers), y)


def test_layers_take_part_as_often_as_said() -> None:
    passes = called(wire("stochastic[survive=[1,0.75,0.25]]", 3), 600)
    counts = Counter(layer for each in passes for layer in each)
    assert counts[0] == 600
    assert counts[1] == pytest.approx(450, abs=40)
    assert counts[2] == pytest.approx(150, abs=40)
    assert all(list(each) == sorted(each) for each in passes)


def test_eval_is_the_mean_of_training_for_a_layer() -> None:
    wiring = wire("stochastic[survive=0.25]", 1)
    (layer,) = branches(wiring)
    torch.manual_seed(0)
    mean = torch.stack([wiring(sample(), [layer]) for _ in range(2000)]).mean(dim=0)
    close(mean, wiring.eval()(sample(), [layer]), 0.05)


def test_surviving_surely_is_the_residual_net_and_dropping_keeps_the_chances() -> None:
    sure, residual = wire("stochastic[survive=1]", 4), wire("residual", 4)
    assert torch.equal(sure(sample(), branches(sure)), residual(sample(), branches(sure)))
    wiring = wire("stochastic", 4).eval()
    layers = branches(wiring)
    rest = WIRINGS.make(Part("stochastic", wiring.without(1)), DIM, 3).double().eval()
    stilled = [layers[0], torch.zeros_like, *layers[2:]]
    assert torch.equal(rest(sample(), [layers[0], *layers[2:]]), wiring(sample(), stilled))


# ---- attention and feed-forward side by side (PAF), and in series (SAF)

ATTENTION_MLP = "(attention[heads=2] norm={norm}, mlp[hidden=10,act={act}] norm={norm}) 2x6"


def series_and_parallel(norm: str, act: str) -> tuple[Callable[[float], tuple[Tensor, Tensor]], nn.Module]:
    """(attention scaled by s -> the outputs in series and in parallel), and the stage in series."""
    text = ATTENTION_MLP.format(norm=norm, act=act)
    series, parallel = stage(f"residual{text}"), stage(f"grouped[size=2]{text}")
    parallel.load_state_dict(series.state_dict(), strict=True)
    x = torch.randn(2, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(3))

    def outputs(scale: float) -> tuple[Tensor, Tensor]:
        attention, mlp = series.layers
        scaled: Sequence[Branch] = [lambda x: scale * attention(x), mlp]
        return series.wiring(x, scaled), parallel.wiring(x, scaled)

    return outputs, series


def test_without_attention_series_and_parallel_are_one() -> None:
    outputs, _ = series_and_parallel("layer", "gelu")
    assert torch.equal(*outputs(0.0))


def test_with_a_linear_feed_forward_they_differ_by_what_it_makes_of_attention() -> None:
    outputs, series = series_and_parallel("none", "identity")
    attention, mlp = series.layers
    x = torch.randn(2, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    in_series, in_parallel = outputs(1.0)
    given = attention(x)
    close(in_series - in_parallel, mlp(given) - mlp(torch.zeros_like(given)))


def test_their_gap_is_of_first_order_in_attention() -> None:
    outputs, _ = series_and_parallel("layer", "gelu")

    def gap(scale: float) -> float:
        series, parallel = outputs(scale)
        return float((series - parallel).detach().norm())

    assert gap(0.02) / gap(0.01) == pytest.approx(2, rel=0.05)


# ---- wide attention: heads a layer against layers


def test_one_wide_layer_is_the_sum_of_its_heads() -> None:
    wide = stage("residual(attention[heads=6,head_dim=4] norm=none) 1x8")
    heads = stage("grouped[size=0](attention[heads=1,head_dim=4] norm=none) 6x8")
    whole, x = wide.layers[0].block, torch.randn(2, 5, 8, dtype=torch.float64)
    with torch.no_grad():
        for index, layer in enumerate(heads.layers):
            own = slice(4 * index, 4 * index + 4)
            for name in ("query", "key", "value"):
                layer.block.get_submodule(name).weight.copy_(whole.get_submodule(name).weight[own])
                layer.block.get_submodule(name).bias.copy_(whole.get_submodule(name).bias[own])
            layer.block.out.weight.copy_(whole.out.weight[:, own])
            layer.block.out.bias.copy_(whole.out.bias / 6)
    close(heads(x, None, 0, None), wide(x, None, 0, None))
    heads.layers = nn.ModuleList(reversed(heads.layers))
    close(heads(x, None, 0, None), wide(x, None, 0, None))


def test_attention_weights_are_equal_across_ratios_and_one_layer_has_one_feed_forward() -> None:
    totals, feed_forwards = [], []
    for layers, heads in ((6, 2), (4, 3), (2, 6), (1, 12)):
        deep = stage(f"residual(transformer[heads={heads},head_dim=4]) {layers}x8")
        matrices = {name: weight for name, weight in deep.named_parameters() if weight.dim() == 2}
        feed_forwards.append([name for name in matrices if "up" in name or "down" in name])
        totals.append(sum(weight.numel() for name, weight in matrices.items() if name not in feed_forwards[-1]))
    assert totals == [4 * 12 * 8 * 4] * 4
    assert [len(names) for names in feed_forwards] == [12, 8, 4, 2]
