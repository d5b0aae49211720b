"""Inner widths: what can be narrowed within one span, in a Net and in any other module, the heaviest units first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from shoal.compressors._seen import coupling_of
from shoal.compressors._standing import ordered
from shoal.compressors._units import Units, units_of
from shoal.core.scene import Scene
from shoal.coupling import Width
from shoal.edits.narrow import Narrow
from shoal.net import Net


@dataclass(frozen=True)
class Inner:
    """A width within the span ``path``; ``narrow(keep)`` is the edit that leaves those units alone."""

    path: str
    order: tuple[int, ...]
    narrow: Callable[[Sequence[int]], Narrow]

    @property
    def count(self) -> int:
        """How many units there are."""
        return len(self.order)

    def first(self, count: int) -> Narrow:
        """The edit that keeps so many of the heaviest units."""
        return self.narrow(tuple(sorted(self.order[:count])))


def inner_widths(scene: Scene) -> Iterator[Inner]:
    """The widths in the scene's spans, in the order in which they are made. Where nothing is a span, there is none."""
    module, spans = scene.module, [span.path for span in scene.anatomy.spans]
    if not spans:
        return
    if isinstance(module, Net):
        for units in units_of(module):
            if units.path in spans:
                yield Inner(units.path, tuple(ordered(module, units)), partial(_of_net, units))
        return
    for width in coupling_of(scene).widths:
        around = [span for span in spans if all(f"{path}.".startswith(f"{span}.") for path in width.paths)]
        if around:
            weights = _standing(module, width)
            order = tuple(int(unit) for unit in weights.argsort(descending=True, stable=True))
            yield Inner(around[0], order, partial(_of_stranger, width))


def _of_net(units: Units, keep: Sequence[int]) -> Narrow:
    return Narrow(path=units.path, width=units.width, keep=tuple(keep))


def _of_stranger(width: Width, keep: Sequence[int]) -> Narrow:
    slices, settings = width.cut(keep)
    return Narrow(path=width.path, keep=tuple(keep), slices=slices, settings=settings)


def _standing(module: nn.Module, width: Width) -> Tensor:
    """(units,) the norm of the rows that make a unit, times that of the columns that read it, times norms between."""
    made, read, between = (torch.zeros(width.units), torch.zeros(width.units), torch.ones(width.units))
    tensors = dict(module.named_parameters(remove_duplicate=False))
    for held in width.held:
        if held.weight not in tensors:
            continue  # a buffer, such as the mean that a norm has seen
        weight, units = tensors[held.weight].detach().float().cpu(), torch.from_numpy(held.units)
        squares = weight.movedim(held.axis, 0).flatten(1).square().sum(dim=1) if weight.dim() > 1 else weight.square()
        sums = torch.zeros(width.units).index_add(0, units[units >= 0], squares[units >= 0])
        if weight.dim() > 1:
            made, read = (made + sums, read) if held.axis == 0 else (made, read + sums)
        elif held.weight.endswith("weight"):
            between = between * sums
    return (made * read * between).sqrt()
