"""Checks of norms: the shape, the two views, and the affine map that folding relies on."""

from __future__ import annotations

from copy import deepcopy

import torch

from shoal.core.base import Norm
from shoal.testing._samples import (
    DIM,
    PLACES,
    Subject,
    build,
    inputs,
    require,
    require_close,
    require_gradients,
    require_rows_apart,
    shake,
)


def keeps_shape(subject: Subject) -> None:
    """Same shape out, with no places, one and two, in training and in eval."""
    for places in PLACES:
        for training in (True, False):
            x = inputs(places)
            y = _used(subject).train(training)(x)
            require(y.shape == x.shape, f"{tuple(x.shape)} becomes {tuple(y.shape)}")
            require(bool(torch.isfinite(y).all()), "the output is not finite")


def planes_is_forward(subject: Subject) -> None:
    """``planes`` is ``forward`` seen with the channels behind the batch."""
    for places in PLACES:
        for training in (True, False):
            norm, x = _used(subject).train(training), inputs(places)
            other = deepcopy(norm)
            require_close(other.planes(x.movedim(-1, 1)), norm(x).movedim(-1, 1), f"planes at {places} places")


def affine_is_said(subject: Subject) -> None:
    """x * scale + shift is the whole norm in eval where channelwise, else its last step."""
    norm = _used(subject).eval()
    scale, shift = norm.affine()
    for name, part in (("scale", scale), ("shift", shift)):
        require(tuple(part.shape) == (DIM,) and not part.requires_grad, f"{name} is not a plain tensor of ({DIM},)")
    x = inputs(1)
    if norm.channelwise:
        require_close(norm(x), x * scale + shift, "the affine of a channelwise norm")
    else:
        bare = deepcopy(norm)
        bare.neutral()
        require_close(norm(x), bare(x) * scale + shift, "the affine behind the norm")


def neutral_is_identity(subject: Subject) -> None:
    """After ``neutral`` the affine is scale one, shift zero; a channelwise norm is then the identity in eval."""
    norm = _used(subject).eval()
    norm.neutral()
    scale, shift = norm.affine()
    require_close(scale.double(), torch.ones(DIM, dtype=torch.float64), "scale")
    require_close(shift.double(), torch.zeros(DIM, dtype=torch.float64), "shift")
    if norm.channelwise:
        x = inputs(2)
        require_close(norm(x), x, "a neutral channelwise norm in eval")


def gradients(subject: Subject) -> None:
    """Finite gradients to every parameter and through to the input, in training."""
    norm, x = _used(subject).train(), inputs(1).requires_grad_()
    if list(norm.parameters()):
        require_gradients(norm, norm(x))
    else:
        norm(x).square().sum().backward()
    require(x.grad is not None and bool(torch.isfinite(x.grad).all()), "no finite gradient through to the input")


def rows_apart(subject: Subject) -> None:
    """In eval the rows of a batch do not mix."""
    norm = _used(subject).eval()
    for places in PLACES:
        require_rows_apart(norm, inputs(places, batch=3))


def _used(subject: Subject) -> Norm:
    """A norm whose weights and running statistics have left their initial values."""
    norm: Norm = build(subject).double()
    shake(norm)
    with torch.no_grad():
        for _ in range(3):
            norm(inputs(1) * 2 + 0.7)
    return norm
