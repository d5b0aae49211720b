"""Checks of linears: the structure is a matrix, whichever way it is asked for."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shoal.core.base import Linear
from shoal.core.errors import BadSetting
from shoal.core.part import Part
from shoal.kinds import LINEARS
from shoal.testing._costs import require_costed
from shoal.testing._samples import Subject, require, require_close, require_gradients, shake

ENDS = ((8, 12), (12, 8), (8, 8), (6, 10))
KERNELS: tuple[tuple[int, ...], ...] = ((3,), (1, 1), (3, 3))


def matrix_shape(subject: Subject) -> None:
    """``matrix()`` is (outputs, columns), with a kernel too, and ``bias`` is there when asked for."""
    for ends in ENDS:
        for kernel in ((), *KERNELS):
            made = _make(subject, *ends, kernel)
            wanted = (ends[1], ends[0] * int(torch.Size(kernel).numel()))
            require(tuple(made.matrix().shape) == wanted, f"matrix of {ends}, kernel {kernel} is not {wanted}")
    require(_make(subject, 8, 12, (), bias=False).bias is None, "bias=False has a bias")


def fit_own_matrix(subject: Subject) -> None:
    """Fitted to its own matrix it stays there."""
    for ends in ENDS:
        for kernel in ((), *KERNELS):
            made = _make(subject, *ends, kernel)
            own = made.matrix().detach().clone()
            made.fit(own)
            require_close(made.matrix(), own, f"fit(matrix()) of {ends}, kernel {kernel}", 1e-8)


def fit_any_matrix(subject: Subject) -> None:
    """Fitted to a matrix it is no further off than zero is; twice is once; bias and parameters stay in place."""
    for ends in ENDS:
        made = _make(subject, *ends, ())
        wanted = torch.randn(*reversed(ends), dtype=torch.float64)
        before = {name: (tensor, tensor.shape) for name, tensor in made.named_parameters()}
        bias = _bias(made).clone()
        made.fit(wanted)
        once = made.matrix().detach().clone()
        require(bool((once - wanted).norm() <= wanted.norm() * (1 + 1e-9)), f"fit of {ends} is further off than zero")
        made.fit(once)
        require_close(made.matrix(), once, f"fit of {ends}, twice", 1e-8)
        require(torch.equal(_bias(made), bias), "fit changes the bias")
        for name, tensor in made.named_parameters():
            require(tensor is before[name][0] and tensor.shape == before[name][1], f"fit replaces {name!r}")


def forward_is_matrix(subject: Subject) -> None:
    """forward == x @ matrix.T + bias, whatever stands before the last axis."""
    for ends in ENDS:
        made = _make(subject, *ends, ())
        for before in ((3,), (2, 5), (2, 3, 4)):
            x = torch.randn(*before, ends[0], dtype=torch.float64)
            require_close(made(x), x @ made.matrix().T + _bias(made), f"forward of {ends} at {before}")


def convolve_is_matrix(subject: Subject) -> None:
    """convolve == the convolution with the matrix laid out as a kernel, along one place or two, at stride 1 and 2."""
    for kernel in KERNELS:
        made = _make(subject, 6, 10, kernel)
        _compare(made, kernel)


def groups_work_or_say_so(subject: Subject) -> None:
    """Groups are a matrix too, or are refused; groups that do not divide always are."""
    try:
        made = _make(subject, 6, 10, (3,), groups=2)
    except BadSetting as error:
        require("group" in str(error), f"the error {error} does not speak of groups")
    else:
        require(tuple(made.matrix().shape) == (10, 9), f"matrix of two groups is {tuple(made.matrix().shape)}")
        _compare(made, (3,))
    try:
        _make(subject, 6, 10, (3,), groups=4)
    except BadSetting:
        return
    raise AssertionError("4 groups of 6 inputs are taken without an error")


def gradients(subject: Subject) -> None:
    """Gradients reach every parameter, plain and as a convolution."""
    made = _make(subject, 8, 12, ())
    require_gradients(made, made(torch.randn(5, 8, dtype=torch.float64)))
    made = _make(subject, 8, 12, (3, 3))
    require_gradients(made, made.convolve(torch.randn(2, 8, 5, 4, dtype=torch.float64)))


def costed(subject: Subject) -> None:
    """The counter knows every operation, of a matrix and of a convolution."""
    require_costed(_make(subject, 8, 12, ()), torch.randn(2, 8, dtype=torch.float64))
    for kernel in KERNELS:
        x = torch.randn(2, 6, *(7, 6)[: len(kernel)], dtype=torch.float64)
        require_costed(_Convolving(_make(subject, 6, 10, kernel)), x)


def starts_like_dense(subject: Subject) -> None:
    """At the start the output has the variance that a dense matrix gives it, within a factor of 4."""
    spread = {}
    for part in (subject.part, Part("dense")):
        made = [LINEARS.make(part, 32, 32, False, (), 1) for _ in range(24)]
        x = torch.randn(64, 32)
        spread[part.name] = float(torch.stack([linear(x).detach() for linear in made]).var())
    ratio = spread[subject.name] / spread["dense"]
    require(0.25 <= ratio <= 4, f"output variance is {ratio:.2f} times that of dense")


class _Convolving(nn.Module):
    """A linear that is called as a convolution."""

    def __init__(self, linear: Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        return self.linear.convolve(x)


def _compare(made: Linear, kernel: tuple[int, ...]) -> None:
    convolve = (F.conv1d, F.conv2d)[len(kernel) - 1]
    weight = made.matrix().view(made.outputs, made.inputs // made.groups, *kernel)
    x = torch.randn(2, made.inputs, *(7, 6)[: len(kernel)], dtype=torch.float64)
    padding = [size // 2 for size in kernel]
    for stride in (1, 2):
        wanted = convolve(x, weight, _bias(made), stride, padding, 1, made.groups)
        require_close(made.convolve(x, stride), wanted, f"convolve, kernel {kernel}, stride {stride}")


def _make(
    subject: Subject, inputs: int, outputs: int, kernel: tuple[int, ...], bias: bool = True, groups: int = 1
) -> Linear:
    made: Linear = LINEARS.make(subject.part, inputs, outputs, bias, kernel, groups)
    made.double()
    shake(made)
    return made


def _bias(made: Linear) -> Tensor:
    assert made.bias is not None
    return made.bias.detach()
