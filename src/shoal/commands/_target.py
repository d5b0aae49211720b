"""Target: what a person named to have its cost counted, once it is open: its layers, its totals, how it is timed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple, Protocol

from torch import nn

from shoal.commands._inputs import told
from shoal.commands._layers import Layer, Work, layers_of
from shoal.core.errors import BadModel
from shoal.costing import Latency, cost, latency
from shoal.costing.timing.own_times import own_ms

SECONDS = 1.0  # of measuring, for the whole and for the layers


class Totals(Protocol):
    """What the counters for modules and for ONNX both tell."""

    @property
    def params(self) -> int: ...
    @property
    def macs(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    @property
    def depth(self) -> int: ...
    @property
    def uncounted(self) -> tuple[str, ...]: ...
    @property
    def lower_bound(self) -> bool: ...
    def to_json(self) -> dict[str, Any]: ...


class Times(NamedTuple):
    """How long a run takes, and of that each layer by itself, by its path; None where layers cannot be timed."""

    latency: Latency
    ms: Mapping[str, float] | None


class Target(NamedTuple):
    """Its kind, what it is, the input it was counted on, what it costs, and what times it with so many threads."""

    kind: str
    name: str
    on: str
    cost: Totals
    layers: list[Layer]
    operations: list[Work]
    time: Callable[[int | None], Times]


def module_target(kind: str, name: str, module: nn.Module, example: Any) -> Target:
    """A module with an example that it runs on. Raises BadModel where it does not."""
    found = cost(module, example)
    layers = layers_of(found)
    operations = [(each.macs, each.moved) for each in found.operations]
    time = partial(time_module, module, example, [layer.path for layer in layers])
    return Target(kind, name, told(example), found, layers, operations, time)


def time_module(module: nn.Module, example: Any, paths: list[str], threads: int | None) -> Times:
    """The whole, and the submodules of those paths. Raises BadModel for a module that is elsewhere than on the CPU."""
    if any(tensor.device.type != "cpu" for tensor in [*module.parameters(), *module.buffers()]):
        raise BadModel(f"{type(module).__name__}: is not on the CPU, whose roof is measured; --no-time counts it only")
    return Times(whole_ms(module, example, threads), layer_ms(module, example, paths, threads))


def whole_ms(module: nn.Module, example: Any, threads: int | None) -> Latency:
    """The latency of a module."""
    return latency(module, example, threads=threads, seconds=SECONDS)


def layer_ms(module: nn.Module, example: Any, paths: Iterable[str], threads: int | None) -> dict[str, float]:
    """What each of its submodules takes by itself."""
    return own_ms(module, example, paths, threads=threads, seconds=SECONDS)
