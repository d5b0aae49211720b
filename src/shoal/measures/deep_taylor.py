"""Deep Taylor: what share of an answer was made inside each span, by passing relevance back from the output.

    R = largest logit at the output, where it is positive;    R_i = sum_j (x_i w_ij)^+ / sum_i (x_i w_ij)^+ R_j

Sums are split in proportion to the sizes of their two sides, means to their parts; the largest takes all of a maximum;
norms and activations pass on what they get. `relevance` is what goes through the span and not past it: of a span with
a skip, what its sums give to the side that came through a matrix. `kept` is all that is on what the span gives; on a
stream it is 1, less what is lost where an active unit has nothing but its bias.

The rules are those for ReLU; other activations that are about 0 below 0 go by them too. Refused where there is none,
as for attention and recurrence.

Cost     1 run, and 1 backward run that takes about four
Exact when inputs of all matrices are not negative and biases are not positive: then nothing is lost
Papers   explaining-nonlinear-classification-decisions-with-deep
"""

from __future__ import annotations

from contextlib import ExitStack

import pandas as pd
import torch
from torch import Tensor

from shoal.core.base import Measure
from shoal.core.errors import Refused
from shoal.core.example import unmarked
from shoal.core.scene import Batch, Scene, answer
from shoal.core.spans import Visit
from shoal.measures._alone import at_least
from shoal.measures._rules import Rules
from shoal.measures._tables import table
from shoal.measures._visits import hooked, requiring, traced


class DeepTaylor(Measure):
    """Settings: `rows`, on how many."""

    def __init__(self, *, rows: int = 256) -> None:
        self.rows = at_least("deep_taylor", "rows", rows, 1)

    def table(self, scene: Scene) -> pd.DataFrame:
        whole, sums = 0.0, _Sums()
        for batch in scene.head(self.rows).batches:
            whole += float(_relevance(scene, batch, sums)[0].sum())
        inside = [sums.inside.get(span.at, sums.behind.get(span.at, 0.0)) for span in scene.spans]
        behind = [sums.behind.get(span.at, 0.0) for span in scene.spans]
        return table(
            scene,
            {
                "relevance": [each / whole if whole else 0.0 for each in inside],
                "kept": [each / whole if whole else 0.0 for each in behind],
            },
        )

    def inputs(self, scene: Scene, batch: Batch) -> Tensor:
        """The relevance of every number of the input, or of what its first embedding gives; shaped as that is."""
        return _relevance(scene, batch, _Sums())[1]


class _Sums:
    """Relevance by visit: what went through a span, and what was behind it."""

    def __init__(self) -> None:
        self.inside: dict[Visit, float] = {}
        self.behind: dict[Visit, float] = {}


def _relevance(scene: Scene, batch: Batch, sums: _Sums) -> tuple[Tensor, Tensor]:
    """At the output, and at the input; what goes through spans is added to the sums."""
    rules = Rules()

    def add(to: dict[Visit, float], visit: Visit, relevance: Tensor) -> None:
        to[visit] = to.get(visit, 0.0) + float(relevance.abs().sum())

    def before(visit: Visit, _: Tensor) -> None:
        rules.open(lambda share: add(sums.inside, visit, share))

    def after(visit: Visit, made: Tensor) -> None:
        rules.open(None)
        if made.requires_grad:
            made.register_hook(lambda relevance: add(sums.behind, visit, relevance))

    with unmarked(scene.module), requiring(scene.module, False):
        args, kwargs, leaf = traced(batch.example)
        with ExitStack() as stack:
            hooked(stack, scene, before, after)
            stack.enter_context(rules)
            output = answer(scene.module(*args, **kwargs))
        given = rules.first if leaf is None else leaf
        if given is None or not output.requires_grad:
            raise Refused(
                "measure deep_taylor: the answer does not come from an input of numbers or an embedding of one; "
                "leave the measure out for such modules"
            )
        best = output.detach().max(dim=-1, keepdim=True)
        start = torch.zeros_like(output).scatter(-1, best.indices, best.values.clamp_min(0))
        return start, torch.autograd.grad(output, given, start)[0].abs()
