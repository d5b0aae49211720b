"""Surgery that several edits share: places in a Net's spec, layers from spec and weights, and small modules."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from shoal.core.errors import BadModel, Refused
from shoal.core.part import Part
from shoal.core.spec import Exit, LayerSpec, Spec, Stage, wiring_of
from shoal.net import Layer

_LAYER = re.compile(r"stages\.(\d+)\.layers\.(\d+)")


class PassThrough(nn.Module):
    """Stands where a stream span was: gives its input on, whatever else it is called with (masks).

    ``like`` is what stood there: torch's stacks of transformer layers ask the first for its attention's order of axes.
    ``written``: whether somebody writes to it later, who is then given a copy.
    """

    def __init__(self, like: nn.Module | None = None, written: bool = False) -> None:
        super().__init__()
        self.written = written
        attention = getattr(like, "self_attn", None)
        if isinstance(attention, nn.MultiheadAttention):
            self.self_attn = _Order(attention.batch_first)

    def forward(self, x: Tensor, *_: Any, **__: Any) -> Tensor:
        return x.clone() if self.written else x


class _Order(nn.Module):
    """What is left of an attention: whether rows come first."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        self.batch_first = batch_first


class Zero(nn.Module):
    """Stands where a branch span was: adds nothing to the stream. ``written``: whether somebody writes to it later."""

    def __init__(self, written: bool = False) -> None:
        super().__init__()
        self.written = written

    def forward(self, x: Tensor, *_: Any, **__: Any) -> Tensor:
        return torch.zeros_like(x) if self.written else x.new_zeros(()).expand_as(x)


class SideBySide(nn.Module):
    """Stream spans that all read the same input: x + the sum of what each would add to it."""

    def __init__(self, spans: Sequence[nn.Module]) -> None:
        super().__init__()
        self.spans = nn.ModuleList(spans)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for span in self.spans:
            y = y + (span(x) - x)
        return y


def submodule(module: nn.Module, path: str) -> nn.Module:
    """The module at a path; BadModel where there is none."""
    try:
        return module.get_submodule(path)
    except AttributeError:
        raise BadModel(f"{type(module).__name__}: there is no module at {path!r}; look at anatomy(...).spans") from None


def layer_at(spec: Spec, path: str) -> tuple[int, int]:
    """(stage, layer) of a path in a Net. Refused where it is no layer, or one visited several times."""
    found = _LAYER.fullmatch(path)
    if not found:
        raise Refused(f"{path}: in a Net, edits work on layers, such as stages.0.layers.3")
    stage, layer = int(found[1]), int(found[2])
    if stage >= len(spec.stages) or layer >= len(spec.stages[stage].layers):
        raise Refused(f"{path}: the spec has no such layer; it is {spec}")
    if spec.stages[stage].order is not None:
        raise Refused(f"{path}: its stage visits layers several times; one change would change all visits")
    return stage, layer


def run_of_layers(spec: Spec, paths: Sequence[str]) -> tuple[int, int, int]:
    """(stage, start, stop) of neighbouring layers of one stage. Refused where they are not."""
    places = [layer_at(spec, path) for path in paths]
    stage, start = places[0]
    if len(places) < 2 or places != [(stage, start + i) for i in range(len(places))]:
        raise Refused(f"{', '.join(paths)}: needs two or more neighbouring layers of one stage, in order")
    return stage, start, start + len(places)


def groups_of(stage: Stage, path: str) -> list[int]:
    """The sizes of the side-by-side groups of a stage. Refused where its wiring is no sum onto one stream."""
    groups = wiring_of(stage.wiring, stage.dim, stage.depth).groups()
    if groups is None:
        raise Refused(f"{path}: wiring {stage.wiring.name} does not add its layers to one stream")
    return list(groups)


def group_at(groups: Sequence[int], start: int, stop: int, path: str) -> tuple[int, int]:
    """(first, last) group of layers start to stop. Refused where they cut through a group."""
    edges = [sum(groups[:i]) for i in range(len(groups) + 1)]
    if start not in edges or stop not in edges:
        raise Refused(f"{path}: layers {start} to {stop - 1} cut through a group; groups begin at {edges[:-1]}")
    return edges.index(start), edges.index(stop)


def grouped(groups: Sequence[int]) -> Part:
    """The wiring with these groups: residual where each is one layer."""
    return Part("residual") if set(groups) == {1} else Part("grouped", {"size": tuple(groups)})


def with_stage(spec: Spec, index: int, **changes: object) -> Spec:
    """The spec with one stage changed."""
    stage = replace(spec.stages[index], **changes)  # type: ignore[arg-type]  # the names are Stage's own fields
    return replace(spec, stages=(*spec.stages[:index], stage, *spec.stages[index + 1 :]))


def layers_of(spec: Spec, weights: Mapping[str, Tensor], stage: int, wanted: Iterable[int]) -> list[Layer]:
    """Some layers of one stage, each a module of its own: nothing that is done to it reaches the weights given."""
    found = spec.stages[stage]
    ends = dict(zip(found.visits, found.ends(), strict=True))
    return [_layer(found.layers[i], ends[i], _within(weights, f"stages.{stage}.layers.{i}.")) for i in wanted]


def _layer(spec: LayerSpec, ends: tuple[int, int], weights: Mapping[str, Tensor]) -> Layer:
    layer = Layer(spec, *ends)
    kinds = {value.dtype for value in weights.values() if value.is_floating_point()}
    if kinds:
        layer.to(kinds.pop())
    layer.load_state_dict(weights, strict=True)
    return layer.eval()


def _within(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key[len(prefix) :]: value for key, value in weights.items() if key.startswith(prefix)}


def with_layers(
    spec: Spec,
    weights: Mapping[str, Tensor],
    stage: int,
    layers: Sequence[int | tuple[LayerSpec, Layer]],
    wiring: Part,
    moved: Sequence[int] | None = None,
) -> tuple[Spec, dict[str, Tensor]]:
    """Spec and weights with the layers of one stage replaced by these; a number stands for the old layer there.

    ``moved``: for each old layer the number of one that reads now what that one read; exits follow it. None where all
    layers stay where they are.
    """
    old, prefix = spec.stages[stage].layers, f"stages.{stage}.layers."
    exits = spec.exits if moved is None else _exits(spec, stage, moved, len(layers))
    if moved is None and len(layers) != len(old) and any(one.stage == stage for one in spec.exits):
        raise Refused(f"stages.{stage}: it has exits, and nothing says where they go; take them out of the spec first")
    kept = {key: value for key, value in weights.items() if not key.startswith(prefix)}
    for index, layer in enumerate(layers):
        own = _within(weights, f"{prefix}{layer}.") if isinstance(layer, int) else layer[1].state_dict()
        kept |= {f"{prefix}{index}.{key}": value for key, value in own.items()}
    specs = tuple(old[layer] if isinstance(layer, int) else layer[0] for layer in layers)
    bare = with_stage(replace(spec, exits=()), stage, layers=specs, wiring=wiring)
    return replace(bare, exits=exits), kept


def _exits(spec: Spec, stage: int, moved: Sequence[int], depth: int) -> tuple[Exit, ...]:
    """The exits behind such a change. Refused where one would stand before no layer, or two before the same."""
    exits = [replace(one, layer=moved[one.layer]) if one.stage == stage else one for one in spec.exits]
    for old, new in zip(spec.exits, exits, strict=True):
        name = f"exit {old.stage}.{old.layer}"
        if new.stage == stage and new.layer >= depth:
            raise Refused(f"{name}: no layer would be left that reads what it reads; take it out of the spec first")
        if sum(new.place == other.place for other in exits) > 1:
            raise Refused(f"{name}: another exit would read the same; take one out of the spec first")
    return tuple(exits)
