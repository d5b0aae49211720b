"""Criticality: whether signals grow or die on their way through a span, and how deep the net is for its width.

    kernel         mean square of what goes in, and of what comes out
    parallel       dK_out / dK_in where what goes in is made larger:  <y, J x> / <x, x>
    perpendicular  E |J v|^2 / |v|^2 where it is moved anywhere, v ~ N(0, 1)
    weights        variance of its weights times their fan-in, the mean over its matrices
    ratio          sum of 1 / width over the spans so far;   of_best: over r* = 4 / (20 + 3 outputs) / nu

A plain stack stays as it is over depth where both are 1. A branch is told by itself: the stream it is added to has
1 + perpendicular. Slopes are central differences. They hold for a net as it begins where its weights are fresh;
``_kernels.py`` has what theory says of these.

Cost     five runs of every span on `rows` examples
Exact when the span is linear in what it reads
Papers   the-principles-of-deep-learning-theory
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from pandas import DataFrame
from torch import Tensor, nn

from shoal.core.base import Measure
from shoal.core.errors import BadSetting
from shoal.core.resuming import Resumable, Tape
from shoal.core.scene import Scene, answer
from shoal.core.spans import Span
from shoal.measures._alone import alone, at_least, drawing, share, squares
from shoal.measures._kernels import NU, optimal_ratio
from shoal.measures._tables import table


class Criticality(Measure):
    """Settings: `rows` that are looked at; `step`, how far an input is moved, as a share of its size; `nu`, how fast
    fluctuations grow with depth over width (5 for ReLU, 2 linear, 2/3 tanh)."""

    tiny = {"rows": 8}

    def __init__(self, *, rows: int = 64, step: float = 1e-3, nu: float = NU["relu"]) -> None:
        if not (0 < step < 1 and nu > 0):
            raise BadSetting(f"measure criticality: step={step}, nu={nu}; give a step within 0 and 1, nu above 0")
        self.rows, self.step, self.nu = at_least("criticality", "rows", rows, 1), step, nu

    def table(self, scene: Scene) -> DataFrame:
        few = scene.head(self.rows)
        sums = np.zeros((len(few.spans), 6))
        drawn = drawing(scene.seed)
        with few.runs() as runs:
            for batch in few.batches:
                tape = runs.record(batch.example)
                outputs = answer(tape.output).shape[-1]
                sums += [self._seen(runs, tape, span, drawn) for span in few.spans]
        ratio = np.cumsum([1 / span.shape[span.axis] for span in few.spans])
        return table(
            scene,
            {
                "kernel_in": [share(x, n) for x, _, _, _, _, n in sums],
                "kernel_out": [share(y, n) for _, y, _, _, _, n in sums],
                "parallel": [share(along, x) for x, _, along, _, _, _ in sums],
                "perpendicular": [share(moved, by) for _, _, _, moved, by, _ in sums],
                "weights": [_variance(scene.module.get_submodule(span.path)) for span in few.spans],
                "ratio": list(ratio),
                "of_best": list(ratio / optimal_ratio(outputs, self.nu)),
            },
        )

    def _seen(self, runs: Resumable, tape: Tape, span: Span, drawn: torch.Generator) -> list[float]:
        """Sums over a batch: <x, x>, <y, y>, <y, J x>, |J v|^2, |v|^2, and how many numbers there are."""
        found: list[float] = []

        def look(x: Tensor, run: Callable[[Tensor], Tensor]) -> None:
            size = float(x.double().square().mean().sqrt()) or 1.0
            v = (size * torch.randn(x.shape, generator=drawn, dtype=torch.float64)).to(x)
            y = run(x)
            turned, longer = ((run(x + self.step * by) - run(x - self.step * by)) / (2 * self.step) for by in (v, x))
            along = float((y.double() * longer.double()).sum())
            found.extend([squares(x), squares(y), along, squares(turned), squares(v), x.numel()])

        alone(runs, tape, span, look)
        return found


def _variance(part: nn.Module) -> float:
    """Variance of a weight times its fan-in, the mean over the matrices of a part."""
    matrices = [weight.detach().double() for weight in part.parameters() if weight.dim() > 1]
    return float(np.mean([float(one.var(correction=0)) * one[0].numel() for one in matrices]))
