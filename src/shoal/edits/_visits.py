"""Visits: the steps of a Net's stage put together anew: which layer runs at each, and whose norms it has there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from shoal.core.errors import BadSetting, BadSpec, Refused
from shoal.core.own_norms import OwnNorms
from shoal.core.part import Part
from shoal.core.spec import LayerSpec, Spec, Stage, wiring_of
from shoal.edits._net_folding import lenders
from shoal.net import Layer


def without_run(stage: Stage, start: int, stop: int) -> Part:
    """The wiring of a stage once layers start to stop have gone. Refused where that cannot be said."""
    wiring = stage.wiring
    for gone in range(stop - 1, start - 1, -1):
        left = stage.depth - (stop - 1 - gone)
        wiring = Part(wiring.name, wiring_of(wiring, stage.dim, left).without(gone))
    return wiring


def turns_of(visits: Sequence[int]) -> list[tuple[int, int]]:
    """(layer, its how-manieth visit) of each step."""
    return [(layer, list(visits[:step]).count(layer)) for step, layer in enumerate(visits)]


def revisited(
    spec: Spec,
    weights: Mapping[str, Tensor],
    index: int,
    steps: Sequence[int],
    norms: Sequence[tuple[int, int]],
    wiring: Part,
    own_norms: bool,
) -> tuple[Spec, dict[str, Tensor]]:
    """Spec and weights with a stage that runs these of its layers, one a step; those that run nowhere go.

    ``norms``: where each visit of a layer has norms of its own, whose they are, (layer, visit) of the stage as it was.
    Raises Refused where the layers or their norms do not fit so.
    """
    old, prefix = spec.stages[index], f"stages.{index}.layers."
    if lenders(spec, index) and len({layer.norm for layer in old.layers}) > 1:
        raise Refused(
            f"stages.{index}: its layers' norms are of several kinds, and what stands beside it has one of them"
        )
    order = list(dict.fromkeys(steps))
    try:
        new = replace(
            old,
            wiring=wiring,
            layers=tuple(old.layers[layer] for layer in order),
            order=tuple(order.index(layer) for layer in steps),
            own_norms=own_norms,
        )
        rewritten = replace(spec, stages=(*spec.stages[:index], new, *spec.stages[index + 1 :]))
    except (BadSpec, BadSetting) as why:
        raise Refused(f"stages.{index}: {why}") from why
    kept = {key: value for key, value in weights.items() if not key.startswith(prefix)}
    for number, layer in enumerate(order):
        visited = [norms[step] for step, other in enumerate(steps) if other == layer]
        each = new.own_norms and len(visited) > 1
        paths = _norms(old.layers[layer], old.ends()[old.visits.index(layer)])
        own = {
            key.removeprefix(f"{prefix}{layer}."): weights[key]
            for key in weights
            if key.startswith(f"{prefix}{layer}.")
        }
        placed = {key: value for key, value in own.items() if not key.startswith(paths)}
        for turn, (source, before) in enumerate(visited if each else [(layer, 0)]):
            had_own = old.own_norms and old.visits.count(source) > 1
            for path in paths:
                begins = f"{prefix}{source}.{path}" + (f"each.{before}." if had_own else "")
                ends = f"{path}each.{turn}." if each else path
                found = {key.removeprefix(begins): weights[key] for key in weights if key.startswith(begins)}
                placed |= {ends + key: value for key, value in found.items()}
        kept |= {f"{prefix}{number}.{key}": value for key, value in placed.items()}
    return rewritten, kept


def _norms(layer: LayerSpec, ends: tuple[int, int]) -> tuple[str, ...]:
    """What the keys of a layer's norms begin with: of those that each visit may have for itself."""
    with torch.device("meta"):
        made = Layer(layer, *ends, visits=2)
    return tuple(f"{path}." for path, part in made.named_modules() if isinstance(part, OwnNorms))
