"""Folding: what a method declares that is a simpler one in eval, and the kernels that it is made of.

A method whose norms and branches come to one convolution says so with ``folded``; the edit ``fold`` asks for it. Where
each norm only stands beside a matrix, a block's ``folds`` is enough.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

from shoal.core.base import Linear, Norm
from shoal.core.part import Part


@runtime_checkable
class FoldsItself(Protocol):
    """A block or a join that says itself what it is in eval, its matrices being dense."""

    def folded(self) -> tuple[Part, dict[str, Tensor]] | None:
        """The method that gives the same with less, and its weights; None where a norm is no affine map in eval."""


def kernel_of(linear: Linear) -> Tensor:
    """The weights of a convolution, (outputs, inputs / groups, *kernel)."""
    return linear.matrix().detach().reshape(linear.outputs, -1, *linear.kernel)


def normed(linear: Linear, norm: Norm) -> tuple[Tensor, Tensor]:
    """Kernel and bias of a convolution with a channelwise norm behind it: s (W x + b) + t = (s W) x + (s b + t)."""
    scale, shift = norm.affine()
    bias = shift if linear.bias is None else linear.bias.detach() * scale + shift
    return kernel_of(linear) * scale.reshape(-1, *(1 for _ in range(len(linear.kernel) + 1))), bias


def laid(kernel: Tensor, sizes: tuple[int, ...], at: tuple[int, ...]) -> Tensor:
    """A kernel of these sizes: zeros, and the given one laid in with its first place ``at``."""
    full = kernel.new_zeros(*kernel.shape[:2], *sizes)
    inside = tuple(slice(start, start + size) for start, size in zip(at, kernel.shape[2:], strict=True))
    full[(slice(None), slice(None), *inside)] = kernel
    return full
