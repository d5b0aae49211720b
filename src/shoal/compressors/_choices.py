"""Choices: every inner width and every depth of a Net as a distribution over sizes, and what is expected of its cost.

F counts the weights of all layers, each as often as there are places where its layer is applied. It is linear in every
width and in the chance that a layer stays, so its expectation is exact, and exact too where all is decided.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from shoal.compressors._lessons import called
from shoal.compressors._mixing import Align, candidates, drawn, mixed, read_mixed
from shoal.compressors._standing import ordered
from shoal.compressors._units import Units, units_of
from shoal.core.spec import wiring_of
from shoal.net import Net, StageNet


@dataclass(frozen=True)
class Width:
    """An inner width: its units, the heaviest first, the sizes to choose from, and what all of them cost."""

    units: Units
    order: tuple[int, ...]
    sizes: tuple[int, ...]
    cost: float


class Choices:
    """Of one net; the logits of all choices, by name, are what is learned."""

    def __init__(self, net: Net, example: Any, shares: Sequence[float]) -> None:
        self.net = net
        places = _places(net, example)
        self.widths = {
            f"{one.path}:{one.width}": Width(
                one, tuple(ordered(net, one)), candidates(one.count, shares), _numel(net, one) * places[one.path]
            )
            for one in units_of(net)
            if one.path in places
        }
        self.layers = {path: _size(net.get_submodule(path)) * times for path, times in places.items()}
        self.depths = {
            f"stages.{index}": len(stage.layers)
            for index, stage in enumerate(net.spec.stages)
            if stage.order is None
            and len(stage.layers) > 1
            and not any(one.stage == index for one in net.spec.exits)
            and set(wiring_of(stage.wiring, stage.dim, stage.depth).groups() or ()) == {1}
        }
        sizes = {name: len(one.sizes) for name, one in self.widths.items()} | self.depths
        self.logits = {name: torch.zeros(size, requires_grad=True) for name, size in sizes.items()}

    def draw(self, temperature: float) -> dict[str, Tensor]:
        """The weights of one draw of everything."""
        return {name: drawn(logits, temperature) for name, logits in self.logits.items()}

    def weights(self, at: Mapping[str, Tensor], align: Align) -> dict[str, Tensor]:
        """The matrices of the net that read mixed widths, by name."""
        found: dict[str, Tensor] = {}
        for name, one in self.widths.items():
            mix = mixed(at[name], one.sizes, one.order, align)
            for reader in one.units.readers:
                weight = self.net.get_parameter(f"{reader}.weight")
                found[f"{reader}.weight"] = read_mixed(weight, mix, one.units.each)
        return found

    def stages(self, at: Mapping[str, Tensor]) -> dict[StageNet, Tensor]:
        """The stages of the net whose depth is mixed."""
        return {_stage(self.net, name): at[name] for name in self.depths}

    def expected(self, at: Mapping[str, Tensor] | None = None) -> Tensor:
        """E[F] as a share of F of the whole net, for chances of all sizes; None for those that the logits say."""
        if at is None:
            at = {name: logits.softmax(dim=0) for name, logits in self.logits.items()}
        total = torch.zeros(())
        for path, whole in self.layers.items():
            cost = torch.tensor(whole)
            for name, one in self.widths.items():
                if one.units.path == path:
                    share = (at[name] * torch.tensor(one.sizes)).sum() / one.units.count
                    cost = cost - one.cost * (1 - share)
            stage, _, layer = path.partition(".layers.")
            stays = at[stage][int(layer) :].sum() if stage in self.depths else 1.0
            total = total + cost * stays
        return total / sum(self.layers.values())

    def chosen(self) -> dict[str, int]:
        """The most likely size of everything; of sizes that are as likely, the largest."""
        best = {name: len(logits) - 1 - int(logits.detach().flip(0).argmax()) for name, logits in self.logits.items()}
        return {name: self.widths[name].sizes[at] if name in self.widths else at + 1 for name, at in best.items()}


def _places(net: Net, example: Any) -> dict[str, int]:
    """How many places each layer of the stages is applied at, all its visits together, by its path."""
    found: dict[str, int] = {}

    def seen(path: str, args: tuple[Any, ...]) -> None:
        found[path] = found.get(path, 0) + math.prod(args[0].shape[1:-1])

    handles = [
        layer.register_forward_pre_hook(lambda _, args, path=path: seen(path, args))
        for stage in range(len(net.stages))
        for path, layer in _layers(net, stage)
    ]
    try:
        with torch.no_grad():
            called(net, example)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _stage(net: Net, name: str) -> StageNet:
    stage = net.get_submodule(name)
    assert isinstance(stage, StageNet)
    return stage


def _layers(net: Net, stage: int) -> list[tuple[str, nn.Module]]:
    return [(f"stages.{stage}.layers.{i}", layer) for i, layer in enumerate(_stage(net, f"stages.{stage}").layers)]


def _size(part: nn.Module) -> float:
    return float(sum(weight.numel() for weight in part.parameters()))


def _numel(net: Net, units: Units) -> float:
    """Weights that go with the units: rows of the makers, what the norms have, columns of the readers."""
    rows = sum(_size(net.get_submodule(path)) for path in (*units.makers, *units.norms))
    return rows + sum(net.get_parameter(f"{path}.weight").numel() for path in units.readers)
