"""DLRT: matrices are trained within low rank for some steps, and factored at the ranks that they then have.

    W = U S V^T, cut after each step at the rank whose rest is at most theta |S|: ranks rise where the loss asks for it

The steps are made on a private copy in eval mode, on the scene's rows; a matrix begins cut at theta. What is proposed
is a span at a time: its matrices factored, each at its rank, where that has fewer weights. The factors are those of
the module's own matrices: healing trains them.

Papers   low-rank-lottery-tickets-finding-efficient
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from functools import partial

from torch import Tensor, nn

from shoal.compressors._dlrt import factored, stepped
from shoal.compressors._lessons import Lesson, called, lessons, loss
from shoal.compressors._matrices import matrices_of, sides
from shoal.compressors._proposing import possible
from shoal.core.base import Compressor, Proposal
from shoal.core.errors import BadSetting
from shoal.core.scene import Scene
from shoal.edits.factor import Factor
from shoal.net import Net


class DLRT(Compressor):
    """Settings: `theta`, the share of a matrix's norm that may be cut off; `steps` of training; `lr`, their size."""

    tiny = {"theta": 0.6, "steps": 2}

    def __init__(self, *, theta: float = 0.2, steps: int = 12, lr: float = 0.01) -> None:
        if not 0 < theta < 1:
            raise BadSetting(f"compressor dlrt: theta={theta} must be above 0 and below 1")
        if steps < 0 or not lr > 0:
            raise BadSetting(f"compressor dlrt: steps={steps}, lr={lr}; give no steps below 0 and lr above 0")
        self.theta, self.steps, self.lr = theta, steps, lr

    def propose(self, scene: Scene) -> Iterator[Proposal]:
        module = scene.module
        found = {span.path: matrices_of(module, span.path) for span in scene.anatomy.spans}
        every = [path for paths in found.values() for path in paths]
        ranks = self._ranks(scene, every) if every else {}
        for span, paths in found.items():
            edits = tuple(
                Factor(path=path, rank=ranks[path])
                for path in paths
                if ranks[path] * sum(sides(module, path)) < sides(module, path)[0] * sides(module, path)[1]
            )
            proposal = Proposal(edits, (span,), into=span)
            if edits and (not isinstance(module, Net) or possible(module, proposal)):
                yield proposal

    def _ranks(self, scene: Scene, paths: list[str]) -> dict[str, int]:
        """The rank of each matrix after the steps."""
        taught, private = lessons(scene), copy.deepcopy(scene.module).eval()
        names = {f"{path}.weight" for path in paths}
        weights = {name: weight.detach() for name, weight in private.named_parameters()}
        factors = {name: factored(weights[name].flatten(1), self.theta) for name in names}
        others = {name: one for name, one in weights.items() if name not in names and one.is_floating_point()}
        for step in range(self.steps):
            asked = partial(self._loss, scene, private, taught[step % len(taught)], weights)
            factors, others = stepped(factors, others, asked, self.lr, self.theta)
        return {name.removesuffix(".weight"): one.rank for name, one in factors.items()}

    def _loss(
        self, scene: Scene, private: nn.Module, lesson: Lesson, weights: Mapping[str, Tensor], at: Mapping[str, Tensor]
    ) -> Tensor:
        """The loss of a lesson for other weights, the matrices in their flat form."""
        shaped = {name: value.view_as(weights[name]) for name, value in at.items()}
        return loss(scene, lesson, called(private, lesson.batch.example, shaped))
