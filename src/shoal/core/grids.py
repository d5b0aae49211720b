"""Grids: numbers moved to where integers can say them; gradients go straight through where nothing was clipped.

    Grid, OwnGrid   y = scale (clip(round(x / scale) + zero, 0, 255) - zero)     a tensor of activations, unsigned
    on_rows         w = scale_r clip(round(w / scale_r), -limit, limit)          weights, one scale for each output
    ternary         w = size clip(round(w / size), -1, 1)                        size = mean or median of |w|
    by_token        x = size round(x / size)                                     size = max |x| / 127 of each token

``limit`` is 2^(bits - 1) - 1. In 7 bits the sum of two products with activations fits 16 bits (2 * 255 * 63 < 2^15),
which is how CPUs without VNNI add them up; in 8 bits such sums would be cut off there, without a word.

Papers   when-are-1-58-bits-enough
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from shoal.core.errors import BadSetting

TOP = 255  # of an unsigned byte
MEASURES: dict[str, Callable[[Tensor], Tensor]] = {"mean": Tensor.mean, "median": Tensor.median}
KERNEL = "aten::_fake_quantize_per_tensor_affine_cachemask_tensor_qparams"  # what a grid comes down to


def _shapes(x: Tensor, *_: object) -> tuple[Tensor, Tensor]:
    """The shapes that the kernel gives: torch knows them of all others, and needs them to export a free batch."""
    return torch.empty_like(x), torch.empty_like(x, dtype=torch.bool)


if not torch._C._dispatch_has_kernel_for_dispatch_key(KERNEL, "Meta"):
    _kernels = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
    _kernels.impl(KERNEL.removeprefix("aten::"), _shapes, "Meta")  # type: ignore[no-untyped-call]


class Grid(nn.Module):
    """A fixed grid of 256 values for a tensor; ``scale`` and ``zero`` are buffers, to be set from data.

    Until then it reaches from -8 to 8, which is wide enough for what norms give.
    """

    def __init__(self) -> None:
        super().__init__()
        scale, zero = grid_of(torch.tensor(-8.0), torch.tensor(8.0))
        self.register_buffer("scale", scale)
        self.register_buffer("zero", zero)
        self.scale: Tensor
        self.zero: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return torch.fake_quantize_per_tensor_affine(x, self.scale.float(), self.zero, 0, TOP)


class OwnGrid(nn.Module):
    """A grid for each tensor that comes, from its own smallest to its own largest number."""

    def forward(self, x: Tensor) -> Tensor:
        scale, zero = grid_of(x.detach().min(), x.detach().max())
        return torch.fake_quantize_per_tensor_affine(x, scale, zero, 0, TOP)


def grid_of(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """(scale, zero) of the grid from low to high; zero itself is always on it, so that padding is exact."""
    low, high = low.float().clamp(max=0), high.float().clamp(min=0)
    scale = ((high - low) / TOP).clamp(min=1e-12)
    return scale, (-low / scale).round().clamp(0, TOP).to(torch.int32)


def limit_of(bits: int) -> int:
    """The largest integer of a weight. Raises BadSetting where there is none."""
    if not 2 <= bits <= 8:
        raise BadSetting(f"bits={bits}: a weight is an integer of 2 to 8 bits; give one of those")
    return int(2 ** (bits - 1) - 1)


def scales_of(weight: Tensor, bits: int) -> Tensor:
    """One scale for each output (the first axis), so that the largest weight of each is the largest integer."""
    largest = weight.detach().flatten(1).abs().amax(dim=1)
    return torch.where(largest > 0, largest, 1.0) / limit_of(bits)


def on_rows(weight: Tensor, scales: Tensor, zeros: Tensor, bits: int) -> Tensor:
    """The weights with each row on its grid; ``zeros`` is int32 zero for each."""
    reach = (scales * limit_of(bits)).reshape(-1, *(1 for _ in weight.shape[1:]))
    kept = torch.minimum(torch.maximum(weight, -reach), reach)
    return torch.fake_quantize_per_channel_affine(kept, scales.float(), zeros, 0, -128, 127)


def ternary(weight: Tensor, measure: str) -> Tensor:
    """The weights as size * {-1, 0, 1}; the gradient is that of the weights as they were."""
    size = _size(weight, measure)
    near = size * (weight.detach() / size).round().clamp(-1, 1)
    return near + (weight - weight.detach())  # adds nothing but the gradient


def by_token(x: Tensor, dim: int) -> Tensor:
    """Each token (what lies along ``dim``) on a signed grid of its own; the gradient is that of x as it was."""
    size = x.detach().abs().amax(dim=dim, keepdim=True).clamp(min=1e-5) / 127
    near = size * (x.detach() / size).round()
    return near + (x - x.detach())


def before_ternary(matrix: Tensor, measure: str) -> Tensor:
    """Weights of which :func:`ternary` makes a matrix that is ternary already; any other is given back as it is."""
    sizes = matrix.abs()
    largest = sizes.max()
    if bool(((sizes == 0) | (sizes == largest)).all()) and bool(largest > 0):
        return matrix * (largest / _size(matrix, measure))
    return matrix


def _size(weight: Tensor, measure: str) -> Tensor:
    if measure not in MEASURES:
        raise BadSetting(f"measure={measure!r}: not known; give mean or median")
    return MEASURES[measure](weight.detach().abs()).clamp(min=1e-12)
