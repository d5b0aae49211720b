"""Layers: what a target costs layer by layer, and how far each is from the roof of this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from shoal.costing import Cost
from shoal.costing.table import Shape
from shoal.costing.timing.roofline import Roof, bound_of

Work = tuple[int, int]  # of an operation: its multiply-adds, and the bytes that it moves


@dataclass(frozen=True)
class Layer:
    """All calls of a layer in a run, and the work of its operations. What was not measured is None.

    `ms` is its own time, `least_ms` what its roof allows, and `by` what takes the most of that: compute, memory or
    overhead.
    """

    path: str
    type: str
    calls: int
    input_shape: Shape | None
    output_shape: Shape | None
    params: int
    macs: int
    operations: tuple[Work, ...]
    ms: float | None = None
    least_ms: float | None = None
    by: str | None = None

    @property
    def reach(self) -> float | None:
        """How near it comes to its roof: 1 is at it. None where it was not timed, or took no time."""
        return self.least_ms / self.ms if self.ms and self.least_ms is not None else None

    @property
    def above_ms(self) -> float:
        """Milliseconds above its roof: what could be saved at best."""
        return max(0.0, (self.ms or 0.0) - (self.least_ms or 0.0))

    def to_json(self) -> dict[str, Any]:
        """The fields by name, but for the single operations."""
        fields = {name: value for name, value in asdict(self).items() if name != "operations"}
        above = None if self.ms is None else self.above_ms
        return {**fields, "moved": sum(moved for _, moved in self.operations), "reach": self.reach, "above_ms": above}


@dataclass(frozen=True)
class Standing:
    """How the whole stands to the roof: its shares of the peak and of the bandwidth, in the time that it takes.

    The share of the bandwidth takes each operation at the bandwidth of the cache that its bytes may be in.
    """

    macs_share: float
    bandwidth_share: float
    least_ms: float


def layers_of(found: Cost) -> list[Layer]:
    """The layers in the order of their first calls."""
    moves: dict[str, list[Work]] = {}
    for operation in found.operations:
        moves.setdefault(operation.path, []).append((operation.macs, operation.moved))
    layers: dict[str, Layer] = {}
    for call in found.calls:
        own = tuple(moves.get(call.path, ()))
        shapes = (call.input_shape, call.output_shape)
        before = layers.setdefault(call.path, Layer(call.path, call.type, 0, *shapes, call.params, 0, own))
        layers[call.path] = replace(before, calls=before.calls + 1, macs=before.macs + call.macs)
    return list(layers.values())


def at_roof(layers: Sequence[Layer], own_ms: Mapping[str, float] | None, roof: Roof) -> list[Layer]:
    """The layers with their bounds, and their times where those are known."""
    found = []
    for layer in layers:
        bound = bound_of(roof, layer.operations)
        ms = None if own_ms is None else own_ms.get(layer.path)
        found.append(replace(layer, ms=ms, least_ms=1e3 * bound.seconds, by=bound.by))
    return found


def standing(macs: int, operations: Sequence[Work], seconds: float, roof: Roof) -> Standing:
    """Of a whole of that many multiply-adds and these operations, which takes that many seconds."""
    least = sum(roof.bound(*work) for work in operations)
    memory = sum(roof.memory(moved) for _, moved in operations)
    return Standing(roof.compute(macs) / seconds, memory / seconds, 1e3 * least)


def farthest(layers: Sequence[Layer], most: int = 3) -> list[Layer]:
    """The layers that are most milliseconds above their roof, the farthest first; none where layers were not timed."""
    timed = [layer for layer in layers if layer.ms is not None and layer.above_ms > 0]
    return sorted(timed, key=lambda layer: -layer.above_ms)[:most]
