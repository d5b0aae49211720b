"""Quantised distil: weights on few levels, more of them where the loss leans on a layer; answers of a teacher heal it.

    bits of a layer = bits + log2(its gradient norm / the mean of all)        the geometric mean, weighted by weights

The gradients are those of the loss where all matrices lie on the levels of uniform scaling, in buckets. At equal bits
what a layer adds to the loss grows with its norm; so shared out, all add as much. Healing goes forward and backward on
the levels and moves the weights behind them: the edit `quantize` does that in training.

A span is a proposal; stem and head keep their precision. The levels of the edit are one scale a row, not a bucket, and
the points of a level are not learned.

Papers   model-compression-via-distillation-and-quantization
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from shoal.compressors._lessons import called, lessons, loss
from shoal.compressors._matrices import matrices_of
from shoal.compressors._proposing import possible
from shoal.compressors._uniform import uniform
from shoal.core.base import Compressor, Proposal
from shoal.core.errors import BadSetting
from shoal.core.scene import Scene
from shoal.edits.quantize import Quantize
from shoal.net import Net

LEAST, MOST = 2, 8  # bits of a weight


class QuantisedDistil(Compressor):
    """Settings: `bits` of a weight, on average; `bucket`, how many weights share their levels where gradients are
    taken."""

    objective: ClassVar[str | None] = "distil"
    known = {"proposals_can_be_done": "every span stays, and the weights are kept as they learn, in floating point"}

    def __init__(self, *, bits: int = 4, bucket: int = 256) -> None:
        if not LEAST <= bits <= MOST or bucket < 2:
            raise BadSetting(f"compressor quantised_distil: bits={bits}, bucket={bucket}; give 2 to 8 bits, at least 2")
        self.bits, self.bucket = bits, bucket

    def propose(self, scene: Scene) -> Iterator[Proposal]:
        module = scene.module
        found = {span.path: matrices_of(module, span.path) for span in scene.anatomy.spans}
        found = {path: matrices for path, matrices in found.items() if matrices}
        norms = self._norms(scene, found) if found else {}
        sizes = {path: sum(module.get_parameter(f"{m}.weight").numel() for m in found[path]) for path in found}
        for path, bits in shared_out(norms, sizes, self.bits).items():
            paths = (path,) if isinstance(module, Net) else found[path]
            proposal = Proposal((Quantize(kind="weights", bits=bits, paths=paths),), (path,), into=path)
            if not isinstance(module, Net) or possible(module, proposal):
                yield proposal

    def _norms(self, scene: Scene, found: Mapping[str, tuple[str, ...]]) -> dict[str, float]:
        """Of each span, the norm of the gradient of its matrices, all of them being on their levels."""
        private: nn.Module = copy.deepcopy(scene.module).eval()
        names = [f"{matrix}.weight" for matrices in found.values() for matrix in matrices]
        levels = {
            name: uniform(private.get_parameter(name).detach(), self.bits, self.bucket).requires_grad_()
            for name in names
        }
        slopes = {name: torch.zeros_like(value) for name, value in levels.items()}
        for lesson in lessons(scene):
            value = loss(scene, lesson, called(private, lesson.batch.example, levels))
            given = torch.autograd.grad(value, list(levels.values()), allow_unused=True)
            for name, slope in zip(levels, given, strict=True):
                if slope is not None:
                    slopes[name] += slope
        return {path: _norm([slopes[f"{m}.weight"] for m in matrices]) for path, matrices in found.items()}


def shared_out(norms: Mapping[str, float], sizes: Mapping[str, int], bits: int) -> dict[str, int]:
    """Bits by name: so many on average, one more for each time that a norm is twice the mean; within what there is."""
    if not any(norms.values()):
        return dict.fromkeys(norms, bits)
    least = min(norm for norm in norms.values() if norm > 0)
    logs = {name: math.log2(max(norm, least)) for name, norm in norms.items()}
    mean = sum(logs[name] * sizes[name] for name in logs) / sum(sizes[name] for name in logs)
    return {name: min(MOST, max(LEAST, bits + round(log - mean))) for name, log in logs.items()}


def _norm(slopes: list[Tensor]) -> float:
    return float(torch.stack([slope.square().sum() for slope in slopes]).sum().sqrt())
