"""Stand-ins: small modules that take the place of one matrix of a stranger; plain operations, so that they export.

Each has ``weight`` and ``bias`` as what it replaces has, for a parent that looks at them.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shoal.core.base import Linear
from shoal.edits._matrices import Matrix


class ThinLinear(nn.Module):
    """Two thin matrices, y = up (down x) + b. One module of one piece: as two it would be folded into one again."""

    def __init__(self, up: Tensor, down: Tensor, bias: nn.Parameter | None, trains: bool) -> None:
        super().__init__()
        self.up, self.down = (nn.Parameter(each.detach().clone(), requires_grad=trains) for each in (up, down))
        self.bias = bias

    @property
    def weight(self) -> Tensor:
        """The matrix that the two make."""
        return self.up @ self.down

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        nn.init.normal_(self.down, std=self.down.shape[1] ** -0.5)
        nn.init.normal_(self.up, std=(3 * self.up.shape[1]) ** -0.5)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.linear(x, self.down), self.up, self.bias)


class TrainLinear(nn.Module):
    """A tensor train, called as an nn.Linear is."""

    def __init__(self, inner: Linear) -> None:
        super().__init__()
        self.inner = inner

    @property
    def weight(self) -> Tensor:
        """The matrix that the cores make."""
        return self.inner.matrix()

    @property
    def bias(self) -> nn.Parameter | None:
        """That of the train."""
        return self.inner.bias

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.inner(x)
        return y


class ThinConvolution(nn.Sequential):
    """Convolutions in a row, at most one of which has a kernel of more than one place."""

    @property
    def weight(self) -> Tensor:
        """The kernel that they make together."""
        kernels: list[Tensor] = [layer.get_parameter("weight") for layer in self]
        return functools.reduce(lambda k, behind: torch.einsum("oi...,ic...->oc...", behind, k), kernels)

    @property
    def bias(self) -> nn.Parameter | None:
        """That of the last; the others have none."""
        last = self[-1].bias
        assert last is None or isinstance(last, nn.Parameter)
        return last


class MaskedLinear(nn.Linear):
    """An nn.Linear of which only some weights may be other than zero, in training too."""

    mask: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.mask, self.bias)


class MaskedConv1d(nn.Conv1d):
    """As MaskedLinear."""

    mask: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight * self.mask, self.bias)


class MaskedConv2d(nn.Conv2d):
    """As MaskedLinear."""

    mask: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight * self.mask, self.bias)


class MaskedConv3d(nn.Conv3d):
    """As MaskedLinear."""

    mask: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight * self.mask, self.bias)


_MASKED: Mapping[type[Matrix], type[Matrix]] = {
    nn.Linear: MaskedLinear,
    nn.Conv1d: MaskedConv1d,
    nn.Conv2d: MaskedConv2d,
    nn.Conv3d: MaskedConv3d,
}


def kind_of(layer: Matrix) -> type[Matrix]:
    """The class of torch that a layer is, or is derived from."""
    return next(kind for kind in _MASKED if isinstance(layer, kind))


def masked(layer: Matrix, mask: Tensor) -> nn.Module:
    """The matrix with a mask on it. The weights that go are zero in it as well, for whoever reads them there."""
    made: Any = torch.nn.utils.skip_init(_MASKED[kind_of(layer)], **shape_of(layer))
    made.weight = nn.Parameter(layer.weight.detach() * mask, requires_grad=layer.weight.requires_grad)
    made.bias = layer.bias
    made.register_buffer("mask", mask)
    out: nn.Module = made.train(layer.training)
    return out


def shape_of(layer: Matrix, **other: Any) -> dict[str, Any]:
    """The arguments that make such a layer, with some of them others; its kind of numbers and its device too."""
    near: dict[str, Any] = {"device": layer.weight.device, "dtype": layer.weight.dtype, "bias": layer.bias is not None}
    if isinstance(layer, nn.Linear):
        return {"in_features": layer.in_features, "out_features": layer.out_features, **near, **other}
    names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
    return {**{name: getattr(layer, name) for name in names}, **near, **other}
