"""Merging within a Net: layers of one block with one inner width become a wide layer of that block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from shoal.core.base import Linear, Norm
from shoal.core.errors import Refused
from shoal.core.part import Part
from shoal.core.spec import LayerSpec
from shoal.edits._absorb import absorb
from shoal.kinds import BLOCKS
from shoal.net import Layer


def merged(specs: Sequence[LayerSpec], layers: Sequence[Layer], ends: tuple[int, int]) -> tuple[LayerSpec, Layer]:
    """The wide layer of some; ``ends`` is what it takes and gives. Refused where their block has no such form."""
    name = specs[0].block.name
    cls = BLOCKS.get(name)
    if any(spec.block.name != name or spec.norm != specs[0].norm for spec in specs):
        raise Refused(
            f"layers of unlike blocks or norms ({', '.join(str(s.block) for s in specs)}) have no one wide form"
        )
    if any(spec.linear.name != "dense" or spec.linears for spec in specs):
        raise Refused("only dense matrices stand side by side as one; factor or fit them first")
    if len(cls.widths) != 1:
        raise Refused(f"block {name} has {len(cls.widths)} inner widths; one wide form needs exactly one")
    (width, axes), *_ = cls.widths.items()
    rest = [{k: v for k, v in spec.block.settings.items() if k != width} for spec in specs]
    if any(other != rest[0] for other in rest):
        raise Refused(f"layers of {name} differ in more than {width!r}: {', '.join(str(s.block) for s in specs)}")
    for layer in layers:
        _free_of_outer_norm(layer, cls.inlets)
    total = sum(size for spec in specs if isinstance(size := spec.block.settings[width], int))
    norm = Part("none") if layers[0].norm is None and not _takes_norm(cls) else specs[0].norm
    spec = replace(specs[0], block=specs[0].block.with_settings(**{width: total}), norm=norm)
    wide = Layer(spec, *ends).to(next(layers[0].parameters()).dtype).eval()
    if wide.norm is not None:
        wide.norm.load_state_dict(layers[0].norm.state_dict() if layers[0].norm is not None else {})
    for path, part in wide.block.named_children():
        parts = [layer.block.get_submodule(path) for layer in layers]
        if isinstance(part, Linear):
            _join_linear(part, parts, f"{path}:in" in axes, f"{path}:out" in axes)
        elif isinstance(part, Norm):
            _join_norm(part, parts, path)
    return spec, wide


def _takes_norm(cls: type) -> bool:
    return "norm" in cls.__init__.__annotations__  # type: ignore[misc]  # the class is at hand, not an instance


def _free_of_outer_norm(layer: Layer, inlets: Sequence[str]) -> None:
    """Move what the layer's own norm scales and shifts into the matrices that read it."""
    if layer.norm is not None:
        absorb(layer.norm, [layer.block.get_submodule(name) for name in inlets])
        if layer.norm.channelwise:
            layer.norm = None


def _join_linear(wide: Linear, parts: Sequence[nn.Module], on_inputs: bool, on_outputs: bool) -> None:
    linears = [part for part in parts if isinstance(part, Linear)]
    if on_inputs == on_outputs:
        raise Refused(
            "a matrix inside the block both reads and gives the inner width; joined, it would be mostly zeros"
        )
    wide.fit(torch.cat([part.matrix() for part in linears], dim=1 if on_inputs else 0))
    biases = [part.bias.detach() for part in linears if part.bias is not None]
    if wide.bias is not None:
        with torch.no_grad():
            wide.bias.copy_(torch.stack(biases).sum(0) if on_inputs else torch.cat(biases))


def _join_norm(wide: Norm, parts: Sequence[nn.Module], path: str) -> None:
    if not wide.channelwise:
        raise Refused(f"norm {path!r} inside the block mixes its channels; joined, it would mix those of all layers")
    states = [part.state_dict() for part in parts]
    size = sum(part.affine()[0].numel() for part in parts if isinstance(part, Norm))
    if wide.affine()[0].numel() != size:
        raise Refused(f"norm {path!r} stands behind the sum of the layers, and each has its own; fold first")
    wide.load_state_dict({key: torch.cat([state[key] for state in states]) for key in states[0]})
