"""What each unit of an inner width weighs: how strongly it is made, times how strongly it is read."""

from __future__ import annotations

from torch import Tensor

from shoal.compressors._units import Units, bias_of, weight_of
from shoal.core.base import Norm
from shoal.net import Net


def standing(net: Net, units: Units) -> Tensor:
    """(units,) the norm of what makes a unit, its norm's scale and shift included, times that of what reads it; 0 where
    a unit is always zero or is never read."""
    made = sum(weight_of(net, path).flatten(1).square().sum(dim=1) for path in units.makers)
    assert isinstance(made, Tensor)
    for path in units.makers:
        bias = bias_of(net, path)
        if bias is not None:
            made = made + bias.square()
    made = made.sqrt()
    for path in units.norms:
        norm = net.get_submodule(path)
        assert isinstance(norm, Norm)
        scale, shift = norm.affine()
        made = made * scale.detach().abs() + shift.detach().abs()
    read = sum(weight_of(net, path).transpose(0, 1).flatten(1).square().sum(dim=1) for path in units.readers)
    assert isinstance(read, Tensor)
    return (made * read.sqrt()).view(units.count, units.each).square().sum(dim=1).sqrt()


def ordered(net: Net, units: Units) -> list[int]:
    """The units, the heaviest first."""
    return [int(unit) for unit in standing(net, units).argsort(descending=True, stable=True)]
