"""What a norm scales and shifts, moved into the matrices before or behind it."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from shoal.core.base import Linear, Norm
from shoal.core.errors import Refused


def why_not(norm: nn.Module, readers: Sequence[nn.Module]) -> str:
    """Why the affine of a norm cannot go into the matrices that read it; empty where it can."""
    assert isinstance(norm, Norm)
    shifts = bool(norm.affine()[1].any())
    for linear in readers:
        if not isinstance(linear, Linear):
            return f"{type(linear).__name__} is no matrix that a norm could go into"
        if shifts and any(size > 1 for size in linear.kernel):
            return "a norm's shift cannot go into a convolution that pads with zeros: its border would change"
        if shifts and linear.bias is None:
            return "a norm's shift needs a matrix with a bias to go into"
        if linear.groups > 1:
            return "a norm does not go into a grouped matrix: each group reads only some of its channels"
        if not holds(linear, _columns_scaled(linear, norm.affine()[0])):
            return f"{type(linear).__name__} with its columns scaled is no longer of that structure"
    return "" if readers else "nothing is said to read the norm"


def why_not_back(norm: nn.Module, linear: nn.Module) -> str:
    """Why the affine of a norm cannot go into the matrix that it follows; empty where it can."""
    assert isinstance(norm, Norm)
    assert isinstance(linear, Linear)
    fits = holds(linear, linear.matrix().detach() * norm.affine()[0][:, None])
    return "" if fits else f"{type(linear).__name__} with its rows scaled is no longer of that structure"


def holds(linear: Linear, matrix: Tensor) -> bool:
    """Whether a matrix of that structure can be this one, to rounding; some stay what they are when scaled, and some
    (a tensor train) do not."""
    trial = copy.deepcopy(linear)
    trial.fit(matrix)
    gap = (trial.matrix().detach() - matrix).abs().max()
    return bool(gap <= 10 * torch.finfo(matrix.dtype).eps ** 0.75 * matrix.abs().max())


def _columns_scaled(linear: Linear, scale: Tensor) -> Tensor:
    return linear.matrix().detach() * scale.repeat_interleave(linear.columns // linear.inputs)


def absorb(norm: nn.Module, readers: Sequence[nn.Module]) -> None:
    """Move the affine of a norm into the matrices that read it: W (s x + t) = (W s) x + W t. The norm becomes neutral.

    Raises Refused, before anything is changed, where it cannot go.
    """
    why = why_not(norm, readers)
    if why:
        raise Refused(why)
    assert isinstance(norm, Norm)
    scale, shift = norm.affine()
    for linear in readers:
        assert isinstance(linear, Linear)
        matrix, scaled = linear.matrix().detach(), _columns_scaled(linear, scale)
        places = linear.columns // linear.inputs
        if linear.bias is not None:
            with torch.no_grad():
                linear.bias.add_(matrix @ shift.repeat_interleave(places))
        linear.fit(scaled)
    norm.neutral()


def absorb_back(norm: nn.Module, linear: nn.Module) -> None:
    """Move a channelwise norm into the matrix that it follows: s (W x + b) + t. It gets a bias if it had none."""
    assert isinstance(norm, Norm)
    assert isinstance(linear, Linear)
    scale, shift = norm.affine()
    bias = shift if linear.bias is None else linear.bias.detach() * scale + shift
    linear.bias = nn.Parameter(bias.clone())
    linear.fit(linear.matrix().detach() * scale[:, None])
    norm.neutral()
