"""Blocks that are functions: splines, experts, random features, SELU, bilinear forms; by their specifications."""

from __future__ import annotations

import copy
from math import factorial, pi

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate
from scipy.interpolate import BSpline
from scipy.special import gamma, jv
from torch import Tensor
from torch.nn import functional as F

from shoal.blocks._spline import basis, numerators, places
from shoal.core.base import Block
from shoal.core.errors import BadModel, BadSetting
from shoal.core.makers import DENSE
from shoal.core.part import Part, Value
from shoal.core.spec import Spec
from shoal.kinds import BLOCKS
from shoal.net import Net

EXACT = 1e-10


def make(name: str, dim: int, out: int | None = None, **chosen: Value) -> Block:
    """A block in float64, in eval."""
    out = dim if out is None else out
    offers = {"linear": DENSE, "out": out}
    made: Block = BLOCKS.make(Part(name, chosen), dim, dim=out, offers=offers)
    return made.double().eval()


def rows(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def near(found: Tensor, wanted: Tensor, tolerance: float = EXACT) -> None:
    torch.testing.assert_close(found.detach(), wanted.detach(), rtol=0, atol=tolerance)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


# ---- splines


def cox_de_boor(t: Tensor, grid: int, degree: int, derivative: int = 0) -> Tensor:
    """Every function at every t by scipy: (places, grid + degree)."""
    columns = []
    for first in range(-degree, grid):
        knots = np.arange(first, first + degree + 2, dtype=float)
        element = BSpline.basis_element(knots, extrapolate=False)
        found = (element.derivative(derivative) if derivative else element)(t.numpy())
        columns.append(np.nan_to_num(np.where(t.numpy() < knots[-1], found, 0.0)))
    return torch.tensor(np.stack(columns, axis=1))


def own_basis(t: Tensor, grid: int, degree: int) -> Tensor:
    return basis(t.unsqueeze(1), numerators(degree), places(grid, degree))


@settings(deadline=None, max_examples=25)
@given(grid=st.integers(1, 9), degree=st.integers(0, 5), seed=st.integers(0, 10**6))
def test_the_matrix_form_is_cox_de_boor(grid: int, degree: int, seed: int) -> None:
    around = torch.rand(200, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    t = around * (grid + 2 * degree + 4) - degree - 2  # beyond the outermost knots on either side too
    near(own_basis(t, grid, degree), cox_de_boor(t, grid, degree))


@pytest.mark.parametrize("degree", [6, 8, 10])
def test_the_matrix_form_at_high_degrees(degree: int) -> None:
    t = torch.linspace(-degree, 4 + degree, 301, dtype=torch.float64)
    near(own_basis(t, 4, degree), cox_de_boor(t, 4, degree))


@pytest.mark.parametrize("degree", [1, 2, 3, 5])
def test_slopes_are_those_of_the_splines(degree: int) -> None:
    t = (torch.rand(80, dtype=torch.float64) * (6 + 2 * degree) - degree).requires_grad_()
    sums = own_basis(t, 6, degree).sum(dim=0)
    slopes = [torch.autograd.grad(each, t, retain_graph=True)[0] for each in sums]
    near(torch.stack(slopes, dim=1), cox_de_boor(t.detach(), 6, degree, derivative=1))


def test_the_cubic_matrix_is_the_published_one() -> None:
    assert numerators(3).tolist() == [[1, 4, 1, 0], [-3, 0, 3, 0], [3, -6, 3, 0], [-1, 3, -3, 1]]


@pytest.mark.parametrize("degree", range(11))
def test_within_the_grid_the_functions_sum_to_one(degree: int) -> None:
    assert numerators(degree).sum(dim=1).tolist() == [factorial(degree), *[0] * degree]
    t = torch.rand(100, dtype=torch.float64) * 7
    near(own_basis(t, 7, degree).sum(dim=1), torch.ones(100, dtype=torch.float64))


def test_a_grid_of_half_the_step_is_nearer_by_the_fourth_power() -> None:
    x = torch.linspace(0, 1, 2001, dtype=torch.float64)
    errors = []
    for grid in (8, 16, 32):
        functions = own_basis(x * grid * (1 - 1e-12), grid, 3)
        target = torch.sin(2 * pi * x).unsqueeze(1)
        errors.append(float((functions @ torch.linalg.lstsq(functions, target).solution - target).abs().max()))
    assert errors[0] / errors[1] == pytest.approx(16, rel=0.4)
    assert errors[1] / errors[2] == pytest.approx(16, rel=0.4)


def curve(block: Block, x: Tensor) -> Tensor:
    """The splines of a KAN alone, each edge by Cox and de Boor."""
    t = (x - block.low) / block.step
    coefficients = block.spline.matrix().unflatten(1, (x.shape[1], -1))
    edges = [cox_de_boor(t[:, i], block.grid, block.degree) @ coefficients[:, i].T for i in range(x.shape[1])]
    return torch.stack(edges).sum(dim=0)


def test_a_kan_is_silu_and_splines_on_every_edge() -> None:
    kan = make("kan", 3, 2, grid=4, degree=3, reach=1.5)
    x = 2 * rows(20, 3)
    near(kan(x), F.silu(x) @ kan.base.matrix().T + curve(kan, x))
    near(kan(x.view(4, 5, 3)), kan(x).view(4, 5, 2))
    assert sum(parameter.numel() for parameter in kan.parameters()) == 3 * 2 * (4 + 3 + 1)


def test_far_outside_the_grid_silu_is_left() -> None:
    kan = make("kan", 3, grid=4, reach=1.0)
    x = torch.tensor([[9.0, -50.0, 1e30]], dtype=torch.float64, requires_grad=True)
    near(kan(x), kan.base(F.silu(x)))
    kan.spline(basis((x - kan.low) / kan.step, kan.matrix, kan.places)).sum().backward()
    assert x.grad is not None
    assert not x.grad.any()


def test_an_input_moves_the_few_coefficients_near_it() -> None:
    kan = make("kan", 2, 1, grid=8, degree=3, reach=4.0)
    kan(torch.tensor([[0.5, -3.5]], dtype=torch.float64)).sum().backward()
    moved = kan.spline.weight.grad.unflatten(1, (2, 11))[0]
    assert moved[0].nonzero().flatten().tolist() == [4, 5, 6, 7]
    assert moved[1].nonzero().flatten().tolist() == [0, 1, 2, 3]


def test_what_is_not_a_number_stays_in_its_row() -> None:
    kan = make("kan", 3)
    x = rows(4, 3)
    clean = kan(x)
    x[1, 2] = float("nan")
    assert kan(x)[1].isnan().all()
    near(kan(x)[[0, 2, 3]], clean[[0, 2, 3]])


@pytest.mark.parametrize("name", ["kan", "moe", "gumbel_moe", "random_features", "selu"])
def test_at_low_precision_they_are_nearly_the_same(name: str) -> None:
    block = make(name, 8).float()
    x = torch.randn(16, 8)
    with torch.autocast("cpu", torch.bfloat16):
        low = block(x)
    near(low.float(), block(x), 0.1)


@settings(deadline=None, max_examples=20)
@given(coarse=st.integers(1, 5), times=st.integers(1, 4), degree=st.integers(0, 5))
def test_a_finer_grid_that_holds_the_old_leaves_the_function(coarse: int, times: int, degree: int) -> None:
    old = make("kan", 3, 2, grid=coarse, degree=degree, reach=2.0)
    fine = make("kan", 3, 2, grid=coarse * times, degree=degree, reach=2.0)
    for kan in (old, fine):
        kan.step.fill_(4 / kan.grid)  # as made in float32, the grids would hold each other to 1e-8 only
    fine.fit(old)
    x = (torch.rand(40, 3, dtype=torch.float64) * 2 - 1) * (2 - 1e-9)
    near(fine(x), old(x), 1e-9)


def linear_kan(slopes: Tensor, **chosen: Value) -> Block:
    """A KAN whose edges are straight lines: the coefficients are the mean knots (Greville)."""
    kan = make("kan", slopes.shape[1], slopes.shape[0], **chosen)
    centres = torch.arange(kan.grid + kan.degree) - (kan.degree - 1) / 2
    lines = kan.low.unsqueeze(1) + kan.step.unsqueeze(1) * centres
    with torch.no_grad():
        kan.spline.fit((slopes.unsqueeze(2) * lines).flatten(1))
        kan.base.fit(torch.zeros_like(kan.base.matrix()))
    return kan


def test_straight_edges_are_a_linear_model() -> None:
    slopes = rows(2, 3)
    kan = linear_kan(slopes, grid=5, degree=3)
    x = torch.rand(30, 3, dtype=torch.float64) * 4 - 2
    near(kan(x), x @ slopes.T)


def test_cover_moves_the_grid_to_the_data_and_keeps_the_function() -> None:
    slopes = rows(2, 3)
    kan = linear_kan(slopes, grid=5, degree=3)
    x = torch.rand(50, 3, dtype=torch.float64) - 0.2
    x[:, 2] = 1.0  # it does not vary
    kan.cover(x)
    near(kan.low[:2], x.amin(dim=0)[:2])
    near((kan.low + kan.step * kan.grid)[:2], x.amax(dim=0)[:2])
    assert (float(kan.low[2]), float(kan.step[2])) == pytest.approx((-2.0, 0.8))
    near(kan(x), x @ slopes.T)


def test_a_kan_of_other_ends_is_not_fitted_to() -> None:
    with pytest.raises(BadModel, match="3->2"):
        make("kan", 3, 3).fit(make("kan", 3, 2))


def test_kan_settings_out_of_range() -> None:
    for wrong in ({"grid": 0}, {"degree": -1}, {"degree": 11}, {"reach": 0.0}):
        with pytest.raises(BadSetting, match=next(iter(wrong))):
            make("kan", 4, **wrong)


# ---- experts


def experts_of(block: Block, x: Tensor) -> Tensor:
    """What each expert gives, without the bias they share: (rows, experts, out)."""
    count = block.router.outputs
    up, bias = block.up.matrix().chunk(count), block.up.bias.chunk(count)
    down = block.down.matrix().chunk(count, dim=1)
    outs = [block.act(F.linear(x, v, b)) @ w.T for v, b, w in zip(up, bias, down, strict=True)]
    return torch.stack(outs, dim=1)


@pytest.mark.parametrize("top", [1, 2, 4])
def test_moe_is_the_sum_of_the_chosen_experts(top: int) -> None:
    moe, x = make("moe", 6, 3, experts=4, top=top, hidden=5), rows(7, 6)
    gates = moe.router(x).softmax(dim=-1)
    wanted = []
    for gate, given_by in zip(gates, experts_of(moe, x), strict=True):
        best = sorted(range(4), key=gate.tolist().__getitem__, reverse=True)[:top]
        wanted.append(sum(gate[e] * given_by[e] for e in best) + moe.down.bias)
    near(moe(x), torch.stack(wanted))


def test_all_experts_with_room_are_the_mixture_by_softmax() -> None:
    moe, x = make("moe", 6, experts=3, top=3, hidden=5, noise=0.0, capacity=10.0), rows(7, 6)
    mixture = (moe.router(x).softmax(dim=-1).unsqueeze(-1) * experts_of(moe, x)).sum(dim=1) + moe.down.bias
    near(moe(x), mixture)
    near(moe.train()(x), mixture)


@pytest.mark.parametrize("name", ["moe", "gumbel_moe"])
def test_one_expert_is_an_mlp(name: str) -> None:
    one = {"top": 1, "capacity": 1.0} if name == "moe" else {}
    block, mlp = make(name, 6, experts=1, hidden=9, act="relu", **one), make("mlp", 6, hidden=9)
    mlp.load_state_dict({k: v for k, v in block.state_dict().items() if not k.startswith("router")})
    x = rows(7, 6)
    for training in (True, False):
        near(block.train(training)(x), mlp(x))


def test_an_expert_takes_first_choices_first_and_no_more_than_it_has_room_for() -> None:
    moe = make("moe", 4, experts=3, top=2, hidden=4, capacity=0.5, noise=0.0).train()
    chosen = torch.tensor([[0, 1], [0, 2], [1, 0], [0, 1], [1, 2], [1, 0]])  # room: ceil(0.5 * 2 * 6 / 3) = 2
    seated = moe._seated(chosen, 3)
    # 0 takes rows 0 and 1, 1 takes rows 2 and 4: all first choices; 2 has room for the second choices of 1 and 4
    assert seated.tolist() == [[1, 0, 0], [1, 0, 1], [0, 1, 0], [0, 0, 0], [0, 1, 1], [0, 0, 0]]


def test_without_room_only_the_bias_is_left() -> None:
    moe = make("moe", 4, experts=4, top=1, hidden=4, capacity=1.0, noise=0.0).train()
    x = rows(1, 4).expand(8, 4)  # all want the same one, which has room for two
    y = moe(x)
    near(y[2:], moe.down.bias.expand(6, 4))
    near(y[:2], moe.eval()(x)[:2])


def test_the_penalty_is_balance_where_all_are_used_alike_and_experts_times_that_where_one_is() -> None:
    moe = make("moe", 4, experts=4, top=1, hidden=4, noise=0.0, balance=0.3).train()
    assert moe.auxiliary_loss() is None
    with torch.no_grad():
        moe.router.fit(1e-9 * torch.eye(4))
    moe(torch.eye(4, dtype=torch.float64))
    assert moe.auxiliary_loss().item() == pytest.approx(0.3, abs=1e-8)
    with torch.no_grad():
        moe.router.fit(100 * torch.eye(4))
    moe(torch.eye(4, dtype=torch.float64)[:1].expand(5, 4))
    assert moe.auxiliary_loss().item() == pytest.approx(1.2, abs=1e-8)


def test_the_penalty_moves_the_router_and_does_not_hinder_a_copy() -> None:
    moe = make("moe", 6, experts=4, hidden=4, balance=1.0).train()
    moe(rows(9, 6))
    penalty = moe.auxiliary_loss()
    assert penalty is not None
    penalty.backward()
    assert moe.router.weight.grad.any()
    assert copy.deepcopy(moe).auxiliary_loss() is None


def test_training_by_the_penalty_alone_evens_the_experts_out() -> None:
    moe, x = make("moe", 4, experts=4, top=1, hidden=4, noise=0.0, balance=1.0).train(), rows(256, 4)
    with torch.no_grad():
        moe.router.weight[0] += torch.tensor([3.0, 0, 0, 0])
        x[:, 0] += 2
    optimizer, losses = torch.optim.Adam(moe.router.parameters(), lr=0.02), []
    for _ in range(60):
        moe(x)
        loss = moe.auxiliary_loss()
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[0] > 2
    assert losses[-1] < 1.2


def test_gumbel_gates() -> None:
    logits = rows(5, 4)
    hot, warm, cold = (make("gumbel_moe", 6, temperature=t) for t in (1e6, 1.0, 1e-3))
    for block in (hot, warm, cold):
        for training in (True, False):
            near(block.train(training).gates(logits).sum(dim=-1), torch.ones(5, dtype=torch.float64))
    near(hot.gates(logits), torch.full((5, 4), 0.25, dtype=torch.float64), 1e-4)
    assert float(cold.train().gates(logits).amax(dim=-1).min()) > 0.99
    warm.noise.zero_()
    near(warm.eval().gates(logits), logits.softmax(dim=-1))


def test_gumbel_eval_is_the_mean_of_the_outputs_of_its_draws() -> None:
    block, x = make("gumbel_moe", 6, 3, experts=4, hidden=5, samples=7, temperature=0.7), rows(5, 6)
    outs = []
    for draw in block.noise:
        gates = ((block.router(x) + draw) / 0.7).softmax(dim=-1)
        outs.append((gates.unsqueeze(-1) * experts_of(block, x)).sum(dim=1) + block.down.bias)
    near(block(x), torch.stack(outs).mean(dim=0))
    assert torch.equal(make("gumbel_moe", 6, seed=3).noise, make("gumbel_moe", 6, seed=3).noise)
    assert not torch.equal(make("gumbel_moe", 6, seed=3).noise, make("gumbel_moe", 6, seed=4).noise)


def test_more_draws_of_the_gate_vary_the_less() -> None:
    logits = rows(1, 4).expand(64_000, 4)
    gates = make("gumbel_moe", 6).train().gates(logits)
    spread = [float(gates.unflatten(0, (-1, draws)).mean(dim=1).var(dim=0).sum()) for draws in (1, 10, 100)]
    assert spread[0] / spread[1] == pytest.approx(10, rel=0.15)
    assert spread[1] / spread[2] == pytest.approx(10, rel=0.3)
    many = make("gumbel_moe", 6, samples=4000).gates(logits[:1])
    near(many[0], gates.mean(dim=0), 0.02)


def test_expert_settings_out_of_range() -> None:
    for wrong in ({"top": 0}, {"top": 5}, {"capacity": 0.0}, {"noise": -1.0}, {"balance": -1.0}, {"experts": 0}):
        with pytest.raises(BadSetting, match="block moe"):
            make("moe", 4, **wrong)
    for wrong in ({"experts": 0}, {"samples": 0}, {"temperature": 0.0}, {"seed": -1}):
        with pytest.raises(BadSetting, match="block gumbel_moe"):
            make("gumbel_moe", 4, **wrong)


# ---- random features


def arc_cosine(x: Tensor, y: Tensor, against: Tensor) -> Tensor:
    """The kernel of relu under rows uniform in a ball of radius 1, from (x.x, y.y, x.y) and the dimension."""
    angle = torch.arccos((against / (x * y).sqrt()).clamp(-1, 1))
    return (x * y).sqrt() * (angle.sin() + (pi - angle) * angle.cos()) / pi


def gram(features: Tensor) -> Tensor:
    return features @ features.T / features.shape[1]


def relu_kernel(gram: Tensor, dim: int) -> Tensor:
    own = gram.diagonal()
    return arc_cosine(own.unsqueeze(1), own.unsqueeze(0), gram) / (dim + 2)


def test_the_products_of_relu_features_go_to_the_kernel_as_one_over_the_root_of_their_number() -> None:
    x = rows(6, 5)
    wanted, errors = relu_kernel(x @ x.T, 5), []
    for features in (250, 4000):
        found = [
            gram(make("random_features", 5, features=features, act="relu", phase=0.0, seed=seed).frozen(x)) - wanted
            for seed in range(20)
        ]
        errors.append(float(torch.stack(found).square().mean().sqrt()))
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.25)
    assert errors[1] < 0.05


def test_two_layers_go_to_the_kernel_of_the_kernel() -> None:
    x = rows(5, 4)
    features = 4000
    block = make("random_features", 4, features=features, layers=2, act="relu", phase=0.0)
    first = relu_kernel(x @ x.T, 4)
    near(gram(block.frozen(x)), relu_kernel(features * first, features), 0.1)


def test_the_kernel_of_the_sine_holds_no_frequency_above_the_bandwidth() -> None:
    """It is the transform of the ball of that radius: a Bessel function of the distance."""
    x, band, dim = rows(6, 3), 2.5, 3
    block = make("random_features", dim, features=200_000, bandwidth=band)
    far = band * torch.cdist(x, x).numpy() + 1e-9
    wanted = gamma(dim / 2 + 1) * (2 / far) ** (dim / 2) * jv(dim / 2, far)
    near(gram(block.frozen(x)), torch.tensor(wanted), 0.015)


def test_the_rows_are_within_the_ball() -> None:
    block = make("random_features", 3, features=2000, bandwidth=0.7, phase=1.5)
    lengths = block.frozen[0].map.norm(dim=1)
    assert float(lengths.max()) <= 0.7 + 1e-6
    assert float((lengths / 0.7).pow(3).mean()) == pytest.approx(0.5, abs=0.03)  # as much in each shell as it holds
    assert 1.45 < float(block.frozen[0].offset.abs().max()) <= 1.5


def test_only_the_output_is_learned_and_saved() -> None:
    block = make("random_features", 5, features=8, layers=2)
    assert set(block.state_dict()) == {"out.weight", "out.bias"}
    other = make("random_features", 5, features=8, layers=2)
    other.load_state_dict(block.state_dict())
    x = rows(4, 5)
    assert torch.equal(other(x), block(x))
    assert not torch.equal(make("random_features", 5, features=8, seed=1).frozen(x)[0], block.frozen(x)[0])


def test_the_output_fitted_by_ridge_is_kernel_ridge_regression() -> None:
    block, x, y, ridge = make("random_features", 3, 1, features=50), rows(20, 3), rows(20, 1), 0.1
    features = block.frozen(x)
    solved = torch.linalg.solve(features.T @ features + ridge * torch.eye(50), features.T @ y)
    with torch.no_grad():
        block.out.fit(solved.T)
    new = rows(9, 3)
    kernel, between = features @ features.T, block.frozen(new) @ features.T
    near(block(new), between @ torch.linalg.solve(kernel + ridge * torch.eye(20), y))


def test_more_units_do_not_help_a_band_that_is_too_narrow() -> None:
    x = torch.linspace(-1, 1, 400, dtype=torch.float64).unsqueeze(1)
    y = torch.sin(20 * x)

    def error(bandwidth: float, features: int) -> float:
        found = make("random_features", 1, features=2000, bandwidth=bandwidth).frozen(x)[:, :features] / features**0.5
        ridge = torch.linalg.solve(found.T @ found + 1e-6 * torch.eye(features), found.T @ y)
        return float((found @ ridge - y).square().mean().sqrt())

    assert error(2.0, 100) > 0.5
    assert error(2.0, 1000) > 0.5
    assert error(30.0, 1000) < 0.01


def test_random_features_settings_out_of_range() -> None:
    for wrong in ({"layers": 0}, {"bandwidth": 0.0}, {"phase": -1.0}, {"seed": -1}, {"features": 0}):
        with pytest.raises(BadSetting):
            make("random_features", 4, **wrong)


# ---- SELU


def selu(x: float) -> float:
    return float(F.selu(torch.tensor(x, dtype=torch.float64)))


def test_mean_zero_and_variance_one_are_the_fixed_point() -> None:
    density = lambda x: np.exp(-x * x / 2) / np.sqrt(2 * pi)  # noqa: E731
    for power, wanted in ((1, 0.0), (2, 1.0)):
        parts = [integrate.quad(lambda x, p=power: selu(x) ** p * density(x), *ends) for ends in ((-12, 0), (0, 12))]
        assert sum(value for value, _ in parts) == pytest.approx(wanted, abs=1e-8)


@pytest.mark.parametrize("mean", [-0.1, 0.0, 0.1])
@pytest.mark.parametrize("variance", [0.8, 1.0, 1.5])
def test_whatever_is_near_the_fixed_point_goes_to_it(mean: float, variance: float) -> None:
    """Weights of sum 0 and of sum of squares 1 turn the moments into the next layer's mean 0 and second moment."""
    points, weights = np.polynomial.hermite_e.hermegauss(200)
    for _ in range(30):
        units = F.selu(torch.tensor(mean + variance**0.5 * points)).numpy()
        after = [float((weights * units**power).sum() / weights.sum()) for power in (1, 2)]
        mean, variance = 0.0, after[1]
    assert (after[0], after[1]) == pytest.approx((0, 1), abs=2e-3)


def test_alpha_dropout_keeps_mean_and_variance() -> None:
    block = make("selu", 1000, hidden=1000, dropout=0.1)
    with torch.no_grad():
        block.up.fit(torch.eye(1000))
        block.down.fit(torch.eye(1000))
    y = block.train()(rows(1000, 1000)).detach()
    assert float(y.mean()) == pytest.approx(0, abs=0.005)
    assert float(y.var()) == pytest.approx(1, abs=0.01)
    low = -1.0507009873554804 * 1.6732632423543772
    scale = (0.9 + low**2 * 0.9 * 0.1) ** -0.5
    dropped = (y - (scale * low - scale * 0.1 * low)).abs() < 1e-9
    assert float(dropped.double().mean()) == pytest.approx(0.1, abs=0.002)


def test_weights_begin_with_variance_one_over_inputs() -> None:
    block = make("selu", 200, hidden=300)
    assert block.up.weight.var().item() * 200 == pytest.approx(1, rel=0.03)
    assert block.down.weight.var().item() * 300 == pytest.approx(1, rel=0.03)
    assert not block.up.bias.any()


@pytest.mark.parametrize("dropout", [0.0, 0.05])
def test_thirty_two_layers_without_norms_keep_mean_and_variance(dropout: float) -> None:
    text = f"vector[features=256] | plain(selu[hidden=512,dropout={dropout}] norm=none) 32x256 | pool[outputs=2]"
    net = Net(Spec.parse(text)).train()
    seen: list[Tensor] = []
    net.stages[0](torch.randn(256, 256), None, 0, lambda place, x: seen.append(x.detach()) or None)
    assert len(seen) == 64
    for x in seen:
        assert abs(float(x.mean())) < 0.1
        assert 0.8 < float(x.var()) < 1.3


def test_selu_settings_out_of_range() -> None:
    for wrong in ({"dropout": 1.0}, {"dropout": -0.1}, {"hidden": 0}):
        with pytest.raises(BadSetting):
            make("selu", 4, **wrong)


# ---- bilinear: the gated MLP whose gate has no activation


def bilinear(dim: int, hidden: int) -> tuple[Block, Tensor]:
    """The block, its biases among its matrices by a channel that is 1, and the tensor of all of it: (out, in, in)."""
    block = make("gated_mlp", dim, hidden=hidden, act="identity")
    for linear in (block.gate, block.up):
        torch.nn.init.normal_(linear.bias)
    first, second = (torch.cat((each.matrix(), each.bias.unsqueeze(1)), dim=1) for each in (block.gate, block.up))
    inner = first.unsqueeze(2) * second.unsqueeze(1)
    return block, torch.einsum("oh,hjk->ojk", block.down.matrix(), inner).detach()


def extended(x: Tensor) -> Tensor:
    return torch.cat((x, torch.ones(len(x), 1, dtype=x.dtype)), dim=1)


def applied(tensor: Tensor, left: Tensor, right: Tensor) -> Tensor:
    return torch.einsum("bj,ojk,bk->bo", left, tensor, right)


def test_the_bilinear_block_is_its_third_order_tensor() -> None:
    block, tensor = bilinear(5, 7)
    x = rows(9, 5)
    near(block(x), applied(tensor, extended(x), extended(x)))


def test_only_the_symmetric_part_of_the_tensor_matters() -> None:
    block, tensor = bilinear(5, 7)
    x, twist = extended(rows(9, 5)), rows(5, 6, 6)
    near(applied(tensor + twist - twist.transpose(1, 2), x, x), applied(tensor, x, x))
    near(applied((tensor + tensor.transpose(1, 2)) / 2, x, x), block(x[:, :-1]))


def test_of_a_sum_of_branches_it_is_the_sum_over_their_pairs() -> None:
    block, tensor = bilinear(5, 7)
    branches = [*(torch.cat((rows(9, 5), rows(9, 1) * 0), dim=1) for _ in range(3)), extended(rows(9, 5) * 0)]
    pairs = sum(applied(tensor, a, b) for a in branches for b in branches)
    near(block(sum(branches)[:, :-1]), pairs)


def test_in_each_direction_it_is_a_quadratic_form_given_by_its_eigenvectors() -> None:
    block, tensor = bilinear(5, 7)
    x = rows(9, 5)
    symmetric = (tensor[2] + tensor[2].T) / 2
    values, vectors = torch.linalg.eigh(symmetric)
    near(block(x)[:, 2], (values * (extended(x) @ vectors).square()).sum(dim=1))
