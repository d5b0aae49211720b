"""Int8: the whole network in integers, with scales from the calibration batches.

    x -> round(x / scale) + zero        norms are folded into their convolutions first

Proposed are all matrices and convolutions in fixed scales, and all matrices with scales made anew for each input. Both
take nothing away and are one step of their own: whatever narrows or drops comes before, on the network as it then is.

Papers   model-compression-via-distillation-and-quantization
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from torch import nn

from shoal.compressors._grids import calibrated, places
from shoal.core.base import Compressor, Edit, Proposal
from shoal.core.errors import BadModel, Refused
from shoal.core.grids import limit_of
from shoal.core.scene import Scene, cut
from shoal.edits.fold import Fold
from shoal.edits.quantize import Quantize
from shoal.net import Net
from shoal.recipe import replayed

log = logging.getLogger("shoal")


class Int8(Compressor):
    """Settings: `bits` of a weight; 7 is safe on every CPU, 8 on those with integer dot products (VNNI)."""

    known = {"proposals_can_be_done": "every span stays, and the weights are kept as they learn, in floating point"}

    def __init__(self, *, bits: int = 7) -> None:
        limit_of(bits)
        self.bits = bits

    def propose(self, scene: Scene) -> Iterator[Proposal]:
        folds, folded = _folded(scene)
        for edit in self._edits(folded, cut(scene.batches[0], 2).example):
            try:
                edited = replayed(folded, (edit,))
                yield Proposal((*folds, edit), (), weights=calibrated(edited, scene.batches))
            except (Refused, BadModel) as why:
                log.info("int8, %s: %s", edit.kind, why)

    def _edits(self, module: nn.Module, example: Any) -> Iterator[Quantize]:
        if isinstance(module, Net):
            yield from (Quantize(kind=kind, bits=self.bits) for kind in ("static", "dynamic"))
            return
        found = places(module, example)
        plain = tuple(path for path in found.matrices if isinstance(module.get_submodule(path), nn.Linear))
        if found.matrices:
            yield Quantize(bits=self.bits, paths=found.matrices, inputs=found.inputs, outputs=found.outputs)
        else:
            log.info("int8: %s: no Linear or Conv module of torch runs once in it", type(module).__name__)
        if plain:
            yield Quantize(kind="dynamic", bits=self.bits, paths=plain)


def _folded(scene: Scene) -> tuple[tuple[Edit, ...], nn.Module]:
    """The edit that folds all norms that fold, if any does, and the module after it."""
    pairs = scene.anatomy.folds
    if not (pairs or isinstance(scene.module, Net)):
        return (), scene.module
    edit = Fold(pairs=() if isinstance(scene.module, Net) else pairs)
    try:
        return (edit,), replayed(scene.module, (edit,))
    except Refused:
        return (), scene.module
