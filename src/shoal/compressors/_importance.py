"""Importance of units: how much of a module each unit of a width is, seen from its weights or from data.

magnitude     the squared weights of a unit, each weight in shares of its mean over all units
activation    the squared weights that read a unit, times the mean square of what they read
taylor        |sum of weight * gradient| over a unit, the mean over rows in small batches: what the loss would change
fisher        the same squared: what it would change to second order
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from shoal.core.example import arguments, unmarked
from shoal.core.scene import Batch, Scene, answer, cut
from shoal.core.spec import LayerSpec
from shoal.edits._narrowing import units_along
from shoal.net import Net

TOGETHER = 32  # rows of which one gradient is taken
READS = {F.linear, F.conv1d, F.conv2d, F.conv3d}


@dataclass(frozen=True, eq=False)
class Place:
    """An axis of a weight, and the unit of each index; -1: of none."""

    weight: str
    axis: int
    units: Tensor

    def total(self, values: Tensor, count: int) -> Tensor:
        """(units,) the sum of values of the weight's shape over each unit."""
        rows = values.movedim(self.axis, 0).flatten(1).sum(dim=1) if values.dim() > 1 else values
        units = self.units.to(rows.device)
        return rows.new_zeros(count).index_add(0, units[units >= 0], rows[units >= 0])


@dataclass
class Importance:
    """Of the units of any width of a scene's module. ``by``: one of the four; what data says is looked at once."""

    scene: Scene
    by: str
    rows: int
    _products: list[dict[str, Tensor]] = field(default_factory=list)
    _reads: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.by == "activation":
            self._reads = _squares(self.scene.head(self.rows))
        elif self.by != "magnitude":
            self._products = list(_products(self.scene.head(self.rows)))

    def of(self, places: Sequence[Place], count: int) -> Tensor | None:
        """(units,); None where nothing that data says was seen of them; zeros where the loss does not hang on them."""
        weights = dict(self.scene.module.named_parameters(remove_duplicate=False))
        held = [place for place in places if place.weight in weights]
        if self.by == "magnitude":
            sizes = [place.total(weights[place.weight].detach().abs().square(), count) for place in held]
            return _shares([size for place, size in zip(held, sizes, strict=True) if not _is_shift(place.weight)])
        if self.by == "activation":
            seen = [place for place in held if place.axis == 1 and place.weight in self._reads]
            sizes = [place.total(self._read(place, weights[place.weight].detach()), count) for place in seen]
            return torch.stack(sizes).sum(dim=0) if sizes else None
        found = [
            [place.total(one[place.weight], count) for place in held if place.weight in one] for one in self._products
        ]
        moved = torch.stack([torch.stack(each).sum(dim=0) if each else torch.zeros(count) for each in found])
        return moved.abs().mean(dim=0) if self.by == "taylor" else moved.square().mean(dim=0)

    def _read(self, place: Place, weight: Tensor) -> Tensor:
        return weight.square().movedim(1, -1).mul(self._reads[place.weight]).movedim(-1, 1)


def places_in_net(net: Net, path: str, spec: LayerSpec, width: str) -> list[Place]:
    """The weights of a layer that hold one of its inner widths, as its block declares."""
    block = f"{path}.block"
    ends = units_along(spec, net.get_submodule(block), width)
    return [one for end, units in ends.items() for one in _places_at(net, block, end, units)]


def _places_at(net: Net, block: str, end: str, units: Tensor) -> Iterator[Place]:
    """The weights at an end that the block declares, as far as they have an axis of that size."""
    name, _, side = end.partition(":")
    axis = 1 if side == "in" else 0
    part = net.get_submodule(f"{block}.{name}")
    for key, weight in part.named_parameters():
        if weight.dim() > axis and weight.shape[axis] == len(units):
            yield Place(f"{block}.{name}.{key}", axis, units)


def _is_shift(weight: str) -> bool:
    return weight.rpartition(".")[2].startswith("bias")


def _shares(sizes: Sequence[Tensor]) -> Tensor | None:
    """Each weight's in shares of its mean, added up; a weight that is all zero says nothing."""
    told = [size / size.mean() for size in sizes if bool(size.any())]
    return torch.stack(told).sum(dim=0) if told else None


def _pieces(batch: Batch) -> list[Batch]:
    return [cut(batch, TOGETHER, start) for start in range(0, 1 if batch.whole else batch.rows, TOGETHER)]


def _products(scene: Scene) -> list[dict[str, Tensor]]:
    """Of every few rows: weight * gradient of the loss, by name; without a task, of answers summed at random signs.

    On a copy: what a run leaves in a module (some keep what they computed) would hang on weights that learn.
    """
    module, found = copy.deepcopy(scene.module), []
    generator = torch.Generator().manual_seed(scene.seed)
    weights = {name: one for name, one in module.named_parameters() if one.is_floating_point() or one.is_complex()}
    for one in weights.values():
        one.requires_grad_(True)
    with unmarked(module), torch.enable_grad():
        for batch in scene.batches:
            for piece in _pieces(batch):
                args, kwargs = arguments(piece.example)
                given = answer(module(*args, **kwargs))
                if scene.task is not None and piece.target is not None:
                    loss = scene.task.loss(given, piece.target)
                else:
                    signs = torch.randint(0, 2, given.shape, generator=generator).to(given) * 2 - 1
                    loss = (given * signs).sum() / len(given)
                grads = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
                pairs = zip(weights.items(), grads, strict=True)
                found.append({name: _moved(one.detach(), grad) for (name, one), grad in pairs if grad is not None})
    return found


def _moved(weight: Tensor, grad: Tensor) -> Tensor:
    """What the loss would change by, to first order, with the weight gone; of a complex one both parts go."""
    return (weight * grad.conj()).real if weight.is_complex() else weight * grad


class _Watch(TorchFunctionMode):
    """The mean square of each channel that a weight reads."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.names = {id(one): name for name, one in module.named_parameters()}
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in READS and len(args) > 1 and id(args[1]) in self.names:
            x, weight, name = args[0].detach(), args[1], self.names[id(args[1])]
            channels = x if func is F.linear else x.movedim(1 - weight.dim(), -1)
            if channels.shape[-1] == weight.shape[1]:  # not in groups
                rows = channels.reshape(-1, channels.shape[-1]).square()
                self.sums[name] = self.sums.get(name, 0) + rows.sum(dim=0)
                self.counts[name] = self.counts.get(name, 0) + len(rows)
        return out


def _squares(scene: Scene) -> dict[str, Tensor]:
    watch = _Watch(scene.module)
    with unmarked(scene.module), torch.no_grad(), watch:
        for batch in scene.batches:
            for piece in _pieces(batch):
                args, kwargs = arguments(piece.example)
                scene.module(*args, **kwargs)
    return {name: total / watch.counts[name] for name, total in watch.sums.items()}
