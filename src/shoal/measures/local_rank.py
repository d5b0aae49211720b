"""Local rank: how many directions of the input can still be told apart behind a span.

    rank = the mean over examples of #{ i : s_i(J) > eps * s_1(J) },    J = d h / d x

h is the stream behind the span, x the module's input, or what its first embedding gives where that is no number.
`spread` is the deviation between examples, `effective` exp of the entropy of the s_i / sum s, which needs no eps, and
`largest` the mean of s_1. Of a stream of more numbers than `directions`, so many random directions at right angles are
looked at: the rank is then at most that.

Cost     1 run and L * directions backward runs of `rows` examples; several directions at once, each on rows of its own
Exact when the stream has no more numbers than `directions`
Papers   learning-to-compress-local-rank-and
"""

from __future__ import annotations

from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from shoal.core.base import Measure
from shoal.core.errors import BadSetting, Refused
from shoal.core.example import unmarked
from shoal.core.scene import Batch, Scene
from shoal.dataflow import name_of
from shoal.measures._tables import entropy_rank, table
from shoal.measures._visits import requiring, traced
from shoal.measures._watching import watched

COPIES = 8  # of the rows in a run: so many directions at once


class LocalRank(Measure):
    """Settings: `eps`, below which share of the largest a singular value is none; `rows`, on how many examples;
    `directions`, in how many directions of the stream at most."""

    tiny = {"rows": 2, "directions": 8}

    def __init__(self, *, eps: float = 1e-3, rows: int = 4, directions: int = 32) -> None:
        if not 0 < eps < 1 or min(rows, directions) < 1:
            raise BadSetting(
                f"measure local_rank: eps={eps}, rows={rows}, directions={directions}; give an eps between 0 and 1, "
                "and at least 1 of the others"
            )
        self.eps, self.rows, self.directions = eps, rows, directions

    def table(self, scene: Scene) -> pd.DataFrame:
        few = scene.head(self.rows)
        found: list[list[Tensor]] = [[] for _ in scene.spans]
        for batch in few.batches:
            for values, each in zip(found, self._values(few, batch), strict=True):
                values.append(each)
        spectra = [torch.cat(values) for values in found]
        ranks = [(s > self.eps * s[:, :1]).sum(dim=1).double() for s in spectra]
        return table(
            scene,
            {
                "rank": [float(rank.mean()) for rank in ranks],
                "spread": [float(rank.std(correction=0)) for rank in ranks],
                "effective": [float(entropy_rank(s).mean()) for s in spectra],
                "largest": [float(s[:, 0].mean()) for s in spectra],
            },
        )

    def _values(self, scene: Scene, batch: Batch) -> list[Tensor]:
        """(rows, n) singular values a span, largest first. A whole batch is one row."""
        examples, copies = (1, 1) if batch.whole else (batch.rows, min(self.directions, COPIES))
        generator = torch.Generator().manual_seed(scene.seed)
        with unmarked(scene.module), requiring(scene.module, True):
            args, kwargs, leaf = traced(_repeated(batch, copies))
            with _Embedded() as embedded:
                _, found = watched(scene, lambda: scene.module(*args, **kwargs))
            x = embedded.first if leaf is None else leaf
            if x is None:
                raise Refused(
                    "measure local_rank: the input holds no floating-point numbers, and no embedding reads it; "
                    "give the module an input of numbers"
                )
            streams = [found[span.at].behind.reshape(copies, examples, -1) for span in scene.spans]
            return [
                torch.linalg.svdvals(self._jacobian(h, x, self._directions(h.shape[2], generator))) for h in streams
            ]

    def _directions(self, size: int, generator: torch.Generator) -> Tensor:
        """(directions, size) of a stream: every number, or some at random and at right angles."""
        if size <= self.directions:
            return torch.eye(size, dtype=torch.float64)
        return torch.linalg.qr(torch.randn(size, self.directions, generator=generator, dtype=torch.float64)).Q.T

    def _jacobian(self, h: Tensor, x: Tensor, directions: Tensor) -> Tensor:
        """(rows, directions, inputs): rows do not read each other, so one backward run serves them all, and each copy
        of them has a direction of its own."""
        lines = []
        for some in directions.to(h).split(len(h)):
            along = torch.zeros_like(h)
            along[: len(some)] = some.unsqueeze(1)
            found = torch.autograd.grad(h, x, along, retain_graph=True, allow_unused=True)[0]
            line = torch.zeros_like(x) if found is None else found
            lines.append(line.reshape(*h.shape[:2], -1)[: len(some)])
        return torch.cat(lines).transpose(0, 1).double()


def _repeated(batch: Batch, copies: int) -> Any:
    """The example with all its rows so many times, one copy behind the other."""
    rows = batch.rows
    return tree_map_only(
        Tensor, lambda t: torch.cat([t] * copies) if t.dim() and t.shape[0] == rows else t, batch.example
    )


class _Embedded(TorchFunctionMode):
    """Keeps what the first embedding gives."""

    first: Tensor | None = None

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if self.first is None and name_of(func) == "embedding":
            self.first = out
        return out
