"""Folding within a Net: one layer, one join, and which layers lend their norm's kind to what stands around them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from torch import Tensor, nn

from shoal.core.folding import FoldsItself
from shoal.core.makers import offers
from shoal.core.part import Part
from shoal.core.spec import LayerSpec, Spec
from shoal.edits._absorb import absorb, absorb_back, why_not, why_not_back
from shoal.edits._surgery import with_stage
from shoal.kinds import BLOCKS, HEADS, JOINS, NORMS, STEMS, WIRINGS
from shoal.net import Layer


def folded_layer(spec: LayerSpec, layer: Layer, ends: tuple[int, int]) -> tuple[LayerSpec, Layer] | None:
    """The layer without its norms, or None where they cannot all go."""
    if isinstance(layer.block, FoldsItself):
        return _folded_itself(spec, layer, layer.block, ends)
    cls = BLOCKS.get(spec.block.name)
    if spec.norm_part.name == "none" or not NORMS.get(spec.norm_part.name).channelwise:
        return None
    into = [(layer.block.get_submodule(name), _beside(layer, ends_of)) for name, ends_of in _each(layer, cls.folds)]
    ahead = [(norm, ins) for norm, (ins, _) in into if ins]
    if layer.norm is not None:
        ahead.append((layer.norm, [layer.block.get_submodule(name) for name in cls.inlets]))
    if not (into or ahead) or any(why_not(norm, ins) for norm, ins in ahead):
        return None
    if any(why_not_back(norm, linear) for norm, (_, outs) in into for linear in outs):
        return None
    for norm, ins in ahead:
        absorb(norm, ins)
    for norm, (_, outs) in into:
        for linear in outs:
            absorb_back(norm, linear)
    settings = {"bias": True} if "bias" in spec.block.settings else {}
    flat = replace(spec, norm=Part("none"), block=spec.block.with_settings(**settings))
    new = _like(layer, flat, ends)
    state = layer.state_dict()
    new.load_state_dict({key: state[key] for key in new.state_dict()})
    return flat, new


def folded_join(spec: Spec, weights: Mapping[str, Tensor], index: int) -> tuple[Spec, dict[str, Tensor]] | None:
    """Spec and weights with the join of one stage as it says itself that it is in eval; None where it says nothing."""
    stage, prefix = spec.stages[index], f"stages.{index}.join."
    if stage.join is None:
        return None
    offered = offers(stage.layers[0].norm_part)
    join: nn.Module = JOINS.make(stage.join, spec.stages[index - 1].out, stage.dim, dim=stage.dim, offers=offered)
    if not isinstance(join, FoldsItself):
        return None
    own = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
    join.to(next(iter(own.values())).dtype).eval().load_state_dict(own, strict=True)
    found = join.folded()
    if found is None:
        return None
    part, new = found
    kept = {key: value for key, value in weights.items() if not key.startswith(prefix)}
    return with_stage(spec, index, join=part), kept | {prefix + key: value for key, value in new.items()}


def lenders(spec: Spec, index: int) -> set[int]:
    """The layers of a stage that must keep their norm: of its kind are also those of the join, the wiring, the stem,
    the head or an exit, which would then be built with none."""
    stage, found = spec.stages[index], set()
    around = [(WIRINGS, stage.wiring), (JOINS, stage.join), (STEMS, spec.stem if index == 0 else None)]
    if any(part is not None and kind.asks(part.name, "norm") for kind, part in around):
        found.add(0)
    if index == len(spec.stages) - 1 and spec.head is not None and HEADS.asks(spec.head.name, "norm"):
        found.add(len(stage.layers) - 1)
    exits = [one for one in spec.exits if one.stage == index and HEADS.asks(one.head.name, "norm")]
    return found | {stage.visits[one.layer] for one in exits}


def _folded_itself(
    spec: LayerSpec, layer: Layer, block: FoldsItself, ends: tuple[int, int]
) -> tuple[LayerSpec, Layer] | None:
    if spec.linear.name != "dense" or spec.linears:
        return None
    found = block.folded()
    if found is None:
        return None
    part, weights = found
    flat = replace(spec, block=part, norm=Part("none")).sized(ends[1])
    new = _like(layer, flat, ends)
    tail = {key: value for key, value in layer.state_dict().items() if key.startswith("tail.")}
    new.load_state_dict({f"block.{key}": value for key, value in weights.items()} | tail, strict=True)
    return flat, new


def _like(layer: Layer, spec: LayerSpec, ends: tuple[int, int]) -> Layer:
    """A fresh layer of that spec in the layer's type of numbers."""
    return Layer(spec, *ends).to(next(layer.parameters()).dtype).eval()


def _each(layer: Layer, folds: Mapping[str, tuple[str, ...]]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """What a block's ``folds`` says; ``norms.*`` is each norm of a list, and ``*`` its number in what is said of it."""
    for name, ends in folds.items():
        listed, starred, _ = name.partition(".*")
        numbers = [n for n, _ in layer.block.get_submodule(listed).named_children()] if starred else [""]
        for number in numbers:
            yield name.replace("*", number), tuple(end.replace("*", number) for end in ends)


def _beside(layer: Layer, ends: tuple[str, ...]) -> tuple[list[nn.Module], list[nn.Module]]:
    """The matrices that read a norm, and those that it follows."""
    found: dict[str, list[nn.Module]] = {"in": [], "out": []}
    for end in ends:
        name, _, side = end.partition(":")
        found[side].append(layer.block.get_submodule(name))
    return found["in"], found["out"]
