"""Surgery that several edits share: places in a Net's spec, whole nets from spec and weights, and small modules."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor, nn

from shoal.core.errors import BadModel, Refused
from shoal.core.part import Part
from shoal.core.spec import LayerSpec, Spec, Stage, wiring_of
from shoal.net import Layer, Net, StageNet, load_net

_LAYER = re.compile(r"stages\.(\d+)\.layers\.(\d+)")


class PassThrough(nn.Module):
    """Stands where a stream span was: gives its input on."""

    def forward(self, x: Tensor) -> Tensor:
        return x


class Zero(nn.Module):
    """Stands where a branch span was: adds nothing to the stream."""

    def forward(self, x: Tensor) -> Tensor:
        return x.new_zeros(()).expand_as(x)


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


def layers_of(net: Net, stage: int) -> list[Layer]:
    """The layers of one stage of a net."""
    part = net.stages[stage]
    assert isinstance(part, StageNet)
    return [layer for layer in part.layers if isinstance(layer, Layer)]


def with_layers(
    spec: Spec, weights: Mapping[str, Tensor], stage: int, layers: Sequence[tuple[LayerSpec, Layer]], wiring: Part
) -> tuple[Spec, dict[str, Tensor]]:
    """Spec and weights with the layers of one stage replaced by these."""
    new = with_stage(spec, stage, layers=tuple(layer for layer, _ in layers), wiring=wiring)
    prefix = f"stages.{stage}.layers."
    kept = {key: value for key, value in weights.items() if not key.startswith(prefix)}
    for index, (_, layer) in enumerate(layers):
        kept |= {f"{prefix}{index}.{key}": value for key, value in layer.state_dict().items()}
    return new, kept


def net_of(spec: Spec, weights: Mapping[str, Tensor]) -> Net:
    """A net of its own on these weights, so that nothing that is done to it reaches them."""
    return load_net(spec, {key: value.detach().clone() for key, value in weights.items()})
