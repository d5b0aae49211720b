"""Random prune: which weights of a matrix go is drawn by lot; only how many is thought about.

    W  ->  M * W        M drawn, once and for all, with as many ones as the rule gives the matrix

The plainest there is, and the one to compare others with. One proposal a span; taken all together they keep the share
asked for, to the weight. Where a mask stands, no run gets faster.

    uniform, er, erk    by the shape of a matrix alone
    snip                as many as there are in it of the largest |weight * gradient| of all

Papers   the-unreasonable-effectiveness-of-random-pruning
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from shoal.compressors._densities import kept, weighted
from shoal.compressors._proposing import maskable
from shoal.core.base import Compressor, Proposal
from shoal.core.errors import BadSetting
from shoal.core.example import arguments
from shoal.core.scene import Scene, answer
from shoal.edits.mask import Mask


class RandomPrune(Compressor):
    """Settings: `density`, the share of all weights that stays; `rule`, by which the matrices share it."""

    def __init__(self, *, density: float = 0.5, rule: Literal["uniform", "er", "erk", "snip"] = "erk") -> None:
        if not 0 < density < 1:
            raise BadSetting(f"compressor random_prune: density={density} takes nothing or all; give between 0 and 1")
        self.density, self.rule = density, rule

    def propose(self, scene: Scene) -> Iterator[Proposal]:
        spans = {span.path: maskable(scene.module, span.path) for span in scene.anatomy.spans}
        weights = {path: weight for found in spans.values() for path, weight in found.items()}
        if not weights:
            return
        shapes = [weight.shape for weight in weights.values()]
        sizes = [weight.numel() for weight in weights.values()]
        worth = snip(scene, list(weights), self.density) if self.rule == "snip" else weighted(shapes, self.rule)
        counts = dict(zip(weights, kept(sizes, worth, self.density), strict=True))
        chooser = torch.Generator().manual_seed(scene.seed)
        for span, found in spans.items():
            edits: list[Mask] = []
            values: dict[str, Tensor] = {}
            for path, weight in found.items():
                count, size = counts[path], weight.numel()
                if count < size:
                    mask = torch.zeros(size, dtype=torch.bool)
                    mask[torch.randperm(size, generator=chooser)[:count]] = True
                    edits.append(Mask(path=path, density=count / size))
                    values |= {f"{path}.mask": mask.view_as(weight), f"{path}.weight": weight * mask.view_as(weight)}
            if edits:
                yield Proposal(tuple(edits), (span,), into=span, weights=values)


def snip(scene: Scene, paths: list[str], density: float) -> list[float]:
    """The share that each matrix has of its weights among the share ``density`` of all with the largest
    |weight * gradient of the loss|; where nothing is asked, of the mean square of the answer."""
    module = copy.deepcopy(scene.module).eval()
    parameters = dict(module.named_parameters(remove_duplicate=False))
    weights = [parameters[f"{path}.weight"].requires_grad_() for path in paths]
    slopes = [torch.zeros_like(weight) for weight in weights]
    for batch in scene.batches:
        args, kwargs = arguments(batch.example)
        y = answer(module(*args, **kwargs))
        if scene.task is not None and batch.target is not None:
            loss = scene.task.loss(y, batch.target)
        else:
            loss = y.square().mean()
        for slope, now in zip(slopes, torch.autograd.grad(loss, weights, allow_unused=True), strict=True):
            if now is not None:
                slope += now * batch.rows
    worth = [(weight * slope).detach().abs().flatten().cpu() for weight, slope in zip(weights, slopes, strict=True)]
    every = torch.cat(worth)
    among = torch.zeros(len(every))
    among[every.argsort(descending=True)[: round(density * len(every))]] = 1
    return [float(part.mean()) for part in among.split([len(part) for part in worth])]
