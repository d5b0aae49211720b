"""Activations: each is its closed form, has the shape that is said of it, is counted, and exports."""

from __future__ import annotations

from collections.abc import Callable
from math import atan, cos, erf, exp, inf, log, log1p, pi, sin, sqrt, tanh

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from shoal.core.activations import ACTIVATIONS, activation
from shoal.core.errors import BadSetting
from shoal.core.spec import Spec
from shoal.costing import cost
from shoal.net import Net
from shoal.testing._exports import check_onnx

LAMBDA, ALPHA = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717


def logistic(x: float) -> float:
    return 1 / (1 + exp(-x))


FORMS: dict[str, Callable[[float], float]] = {
    "identity": lambda x: x,
    "relu": lambda x: max(0.0, x),
    "leaky_relu": lambda x: x if x > 0 else 0.01 * x,
    "relu6": lambda x: min(max(0.0, x), 6.0),
    "squared_relu": lambda x: max(0.0, x) ** 2,
    "elu": lambda x: x if x > 0 else exp(x) - 1,
    "celu": lambda x: x if x > 0 else exp(x) - 1,
    "selu": lambda x: LAMBDA * (x if x > 0 else ALPHA * (exp(x) - 1)),
    "softplus": lambda x: log1p(exp(x)),
    "squareplus": lambda x: (x + sqrt(x * x + 4)) / 2,
    "silu": lambda x: x * logistic(x),
    "hard_swish": lambda x: x * min(max(x + 3, 0.0), 6.0) / 6,
    "gelu": lambda x: x * (1 + erf(x / sqrt(2))) / 2,
    "gelu_tanh": lambda x: x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3))) / 2,
    "mish": lambda x: x * tanh(log1p(exp(x))),
    "sigmoid": logistic,
    "hard_sigmoid": lambda x: min(max(x / 6 + 0.5, 0.0), 1.0),
    "log_sigmoid": lambda x: log(logistic(x)),
    "tanh": tanh,
    "hard_tanh": lambda x: min(max(x, -1.0), 1.0),
    "scaled_tanh": lambda x: 1.7159 * tanh(2 * x / 3),
    "penalized_tanh": lambda x: tanh(x) if x > 0 else tanh(x) / 4,
    "softsign": lambda x: x / (1 + abs(x)),
    "arctan": atan,
    "lisht": lambda x: x * tanh(x),
    "tanhshrink": lambda x: x - tanh(x),
    "sine": sin,
    "cosine": cos,
    "gaussian": lambda x: exp(-(x**2)),
    "exponential": exp,
}
FALLS_BETWEEN: dict[str, tuple[float, float]] = {  # what is not monotone, and where it falls
    "silu": (-5.0, -1.5),
    "hard_swish": (-2.9, -1.6),
    "gelu": (-3.0, -0.8),
    "gelu_tanh": (-3.0, -0.8),
    "mish": (-5.0, -1.3),
    "lisht": (-3.0, 0.0),
    "sine": (2.0, 4.0),
    "cosine": (0.0, 3.0),
    "gaussian": (0.0, 1.0),
}
ODD = {"identity", "tanh", "hard_tanh", "scaled_tanh", "softsign", "arctan", "tanhshrink", "sine"}
EVEN = {"lisht", "cosine", "gaussian"}
RANGES = {  # of those that do not reach from -inf to inf
    "relu": (0.0, inf),
    "relu6": (0.0, 6.0),
    "squared_relu": (0.0, inf),
    "elu": (-1.0, inf),
    "celu": (-1.0, inf),
    "selu": (-LAMBDA * ALPHA, inf),
    "softplus": (0.0, inf),
    "squareplus": (0.0, inf),
    "silu": (-0.2785, inf),
    "hard_swish": (-0.375, inf),
    "gelu": (-0.17, inf),
    "gelu_tanh": (-0.1701, inf),
    "mish": (-0.3089, inf),
    "sigmoid": (0.0, 1.0),
    "hard_sigmoid": (0.0, 1.0),
    "log_sigmoid": (-inf, 0.0),
    "tanh": (-1.0, 1.0),
    "hard_tanh": (-1.0, 1.0),
    "scaled_tanh": (-1.7159, 1.7159),
    "penalized_tanh": (-0.25, 1.0),
    "softsign": (-1.0, 1.0),
    "arctan": (-pi / 2, pi / 2),
    "lisht": (0.0, inf),
    "sine": (-1.0, 1.0),
    "cosine": (-1.0, 1.0),
    "gaussian": (0.0, 1.0),
    "exponential": (0.0, inf),
}
TEXT = "vector[features=4] | residual(mlp[act={},hidden=6]) 1x4 | pool[outputs=2]"
numbers = st.floats(-30, 30)
quick = settings(deadline=None, max_examples=30)


def at(name: str, *xs: float) -> Tensor:
    return activation(name)(torch.tensor(xs, dtype=torch.float64))


def test_every_activation_has_its_closed_form_here() -> None:
    assert set(FORMS) == set(ACTIVATIONS)


@pytest.mark.parametrize("name", FORMS)
def test_it_is_its_closed_form(name: str) -> None:
    xs = [-8.0, -3.0, -2.5, -1.0, -0.75, -1e-3, 0.0, 1e-3, 0.5, 1.0, 2.0, 3.0, 6.0, 7.5]
    wanted = torch.tensor([FORMS[name](x) for x in xs], dtype=torch.float64)
    torch.testing.assert_close(at(name, *xs), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS.keys() - FALLS_BETWEEN.keys()))
@quick
@given(a=numbers, b=numbers)
def test_the_monotone_never_fall(name: str, a: float, b: float) -> None:
    low, high = at(name, min(a, b), max(a, b)).tolist()
    assert low <= high + 1e-8  # softplus is cut to x above 20: 2e-9


@pytest.mark.parametrize("name", FALLS_BETWEEN)
def test_the_others_do_fall(name: str) -> None:
    before, after = at(name, *FALLS_BETWEEN[name]).tolist()
    assert after < before


@pytest.mark.parametrize("name", sorted(ODD | EVEN))
@quick
@given(x=numbers)
def test_odd_and_even(name: str, x: float) -> None:
    right, left = at(name, x, -x).tolist()
    assert left == pytest.approx(right if name in EVEN else -right, abs=1e-12)


@pytest.mark.parametrize("name", RANGES)
@quick
@given(x=numbers)
def test_it_stays_in_its_range(name: str, x: float) -> None:
    low, high = RANGES[name]
    assert low <= float(at(name, x)) <= high


@pytest.mark.parametrize("name", ACTIVATIONS)
@quick
@given(x=numbers)
def test_the_slope_is_finite_and_right(name: str, x: float) -> None:
    if min(abs(x - kink) for kink in (-3, -1, 0, 1, 3, 6, 20)) < 1e-3:
        x += 0.01
    spot = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    activation(name)(spot).backward()
    right, left = at(name, x + 1e-6, x - 1e-6).tolist()
    assert float(spot.grad) == pytest.approx((right - left) / 2e-6, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_it_is_counted_in_a_net(name: str) -> None:
    found = cost(Net(Spec.parse(TEXT.format(name))), torch.zeros(3, 4))
    assert found.uncounted == ()
    without = cost(Net(Spec.parse(TEXT.format("identity"))), torch.zeros(3, 4))
    assert found.macs == without.macs
    assert (found.flops > without.flops) == (name != "identity")


class All(nn.Module):
    """All of them side by side."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([each(x) for each in ACTIVATIONS.values()], dim=-1)


def test_onnx_has_them_all() -> None:
    check_onnx(All(), torch.randn(2, 5))


def test_what_there_is_not_is_said() -> None:
    with pytest.raises(BadSetting, match="did you mean 'hard_swish'"):
        activation("hardswish")
