"""Ternary: the matrices of a span as one size times -1, 0 or 1, learned on straight through.

    W -> s clip(round(W / s), -1, 1),   s = mean |W|

A span is no faster for it and stays where it is; its weights need 1.58 bits where integers are stored.

Papers   when-are-1-58-bits-enough
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

from torch import nn

from shoal.core.base import Compressor, Proposal
from shoal.core.errors import BadSetting, Refused
from shoal.core.grids import MEASURES
from shoal.core.scene import Scene
from shoal.edits.quantize import Quantize
from shoal.net import Net
from shoal.recipe import replayed

log = logging.getLogger("shoal")


class Ternary(Compressor):
    """Settings: `measure` of the size, mean or median."""

    known = {"proposals_can_be_done": "every span stays, and the weights are kept as they learn, in floating point"}

    def __init__(self, *, measure: str = "mean") -> None:
        if measure not in MEASURES:
            raise BadSetting(f"compressor ternary: measure={measure!r} is unknown; give mean or median")
        self.measure = measure

    def propose(self, scene: Scene) -> Iterator[Proposal]:
        for span in scene.anatomy.spans:
            part = scene.module.get_submodule(span.path)
            inner = tuple(
                f"{span.path}.{name}".removesuffix(".")
                for name, each in part.named_modules()
                if isinstance(each, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)
            )
            paths = (span.path,) if isinstance(scene.module, Net) else inner
            edit = Quantize(kind="ternary", measure=self.measure, paths=paths)
            try:
                replayed(scene.module, (edit,))
            except Refused as why:
                log.info("ternary: %s", why)
            else:
                yield Proposal((edit,), (span.path,), into=span.path)
