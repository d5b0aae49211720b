"""Logit lens: what the module would answer if all spans behind one were left out.

    lens_l = answer with l + 1, l + 2 ... skipped          on a residual stream: the head, applied behind l
    lens   = KL(answer | lens_l)                           in nats, where classes are told apart; else relative squares
    agree  = share of the five likeliest answers that are the same (of one where they are fewer than ten)

Nothing of the head need be known. Where the numbers that are asked for are no classes, `agree` is the cosine.

Cost     L half runs a batch
Papers   do-language-models-use-their-depth
"""

from __future__ import annotations

import pandas as pd
from torch import Tensor
from torch.nn import functional as F

from shoal.core.base import Measure
from shoal.core.scene import Scene, answer
from shoal.measures._changes import skipped
from shoal.measures._tables import Means, apart, table

LIKELIEST, CLASSES = 5, 10


class LogitLens(Measure):
    """No settings."""

    def table(self, scene: Scene) -> pd.DataFrame:
        means = Means()
        with scene.runs() as runs:
            for batch in scene.batches:
                tape = runs.record(batch.example)
                own = answer(tape.output)
                for at, span in enumerate(scene.spans):
                    found = answer(runs.resume(tape, skipped(scene.spans[at + 1 :])))
                    means.add(span.at, "lens", apart(scene.task, own, found))
                    means.add(span.at, "agree", _agree(scene, own, found))
        return table(scene, means.columns(scene))


def _agree(scene: Scene, own: Tensor, found: Tensor) -> Tensor:
    """One number an answer."""
    if scene.task is None or scene.task.unit != "%":
        return F.cosine_similarity(own.double().flatten(1), found.double().flatten(1), dim=1)
    count = LIKELIEST if own.shape[-1] >= CLASSES else 1
    a, b = (each.flatten(0, -2).topk(count, dim=-1).indices for each in (own, found))
    return (a.unsqueeze(2) == b.unsqueeze(1)).any(dim=2).double().mean(dim=1)
