"""Activations: the functions that blocks put between their matrices, by name.

All work element by element and have no weights; those that do (PReLU, Swish with its beta, PDELU, PAU, SRS) are no
functions and not among them. Phi is the distribution function of a standard normal.

identity        x
relu            max(0, x)
leaky_relu      x above 0, 0.01 x below
relu6           max(0, x), at most 6
squared_relu    max(0, x)^2
elu             x above 0, e^x - 1 below
celu            elu, which at an alpha of 1 it is
selu            1.0507 x above 0, 1.0507 * 1.6733 (e^x - 1) below; the digits are torch's
softplus        log(1 + e^x)
squareplus      (x + sqrt(x^2 + 4)) / 2
silu            x sigmoid(x); also called swish
hard_swish      x hard_sigmoid(x)
gelu            x Phi(x)
gelu_tanh       nearly gelu, by a tanh
mish            x tanh(log(1 + e^x))
sigmoid         1 / (1 + e^-x)
hard_sigmoid    x / 6 + 1/2, within 0 and 1
log_sigmoid     log sigmoid(x)
tanh            tanh x
hard_tanh       x, within -1 and 1
scaled_tanh     1.7159 tanh(2 x / 3)
penalized_tanh  tanh x above 0, a quarter of it below
softsign        x / (1 + |x|)
arctan          arctan x
lisht           x tanh x
tanhshrink      x - tanh x
sine, cosine    sin x, cos x
gaussian        e^(-x^2)
exponential     e^x

Papers   activation-functions-in-deep-learning-a
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from shoal.core.errors import BadSetting, suggest

Activation = Callable[[Tensor], Tensor]


def _identity(x: Tensor) -> Tensor:
    return x


def _squared_relu(x: Tensor) -> Tensor:
    return F.relu(x).square()


def _squareplus(x: Tensor) -> Tensor:
    return (x + (x.square() + 4).sqrt()) / 2


def _gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


def _scaled_tanh(x: Tensor) -> Tensor:
    return 1.7159 * torch.tanh(x * (2 / 3))


def _penalized_tanh(x: Tensor) -> Tensor:
    return F.leaky_relu(torch.tanh(x), 0.25)


def _lisht(x: Tensor) -> Tensor:
    return x * torch.tanh(x)


def _gaussian(x: Tensor) -> Tensor:
    return torch.exp(-x.square())


ACTIVATIONS: Mapping[str, Activation] = {
    "identity": _identity,
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "relu6": F.relu6,
    "squared_relu": _squared_relu,
    "elu": F.elu,
    "celu": F.celu,
    "selu": F.selu,
    "softplus": F.softplus,
    "squareplus": _squareplus,
    "silu": F.silu,
    "hard_swish": F.hardswish,
    "gelu": F.gelu,
    "gelu_tanh": _gelu_tanh,
    "mish": F.mish,
    "sigmoid": torch.sigmoid,
    "hard_sigmoid": F.hardsigmoid,
    "log_sigmoid": F.logsigmoid,
    "tanh": torch.tanh,
    "hard_tanh": F.hardtanh,
    "scaled_tanh": _scaled_tanh,
    "penalized_tanh": _penalized_tanh,
    "softsign": F.softsign,
    "arctan": torch.atan,
    "lisht": _lisht,
    "tanhshrink": F.tanhshrink,
    "sine": torch.sin,
    "cosine": torch.cos,
    "gaussian": _gaussian,
    "exponential": torch.exp,
}


def activation(name: str) -> Activation:
    """The activation function of that name; BadSetting with the known ones otherwise."""
    if name not in ACTIVATIONS:
        raise BadSetting(f"activation {name!r} is unknown; {suggest(name, ACTIVATIONS)}")
    return ACTIVATIONS[name]
