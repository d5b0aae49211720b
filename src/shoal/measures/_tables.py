"""Tables: running means by visit and column, and the rows that every measure gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from shoal.core.base import Task
from shoal.core.scene import Scene, rows_of
from shoal.core.spans import Span, Visit


class Means:
    """Means over batches, weighted by how many values each was taken of."""

    def __init__(self) -> None:
        self._sums: dict[str, dict[Visit, float]] = {}
        self._counts: dict[str, dict[Visit, int]] = {}

    def add(self, at: Visit, column: str, values: Tensor) -> None:
        """Some values, in whatever shape."""
        self.put(at, column, float(values.double().mean()), values.numel())

    def put(self, at: Visit, column: str, value: float, weight: int) -> None:
        """A value that stands for so many."""
        sums, counts = self._sums.setdefault(column, {}), self._counts.setdefault(column, {})
        sums[at] = sums.get(at, 0.0) + value * weight
        counts[at] = counts.get(at, 0) + weight

    def columns(self, scene: Scene) -> dict[str, list[float]]:
        """The means, column by column, a span a row."""
        return {
            column: [sums[span.at] / self._counts[column][span.at] for span in scene.spans]
            for column, sums in self._sums.items()
        }


def table(scene: Scene, columns: Mapping[str, Sequence[float]]) -> pd.DataFrame:
    """One row a visited span: its path, its visit, and the columns."""
    names = {"path": [span.path for span in scene.spans], "visit": [span.visit for span in scene.spans]}
    return pd.DataFrame({**names, **columns})


def label(span: Span) -> str:
    """The span's path, and which visit it is where that is not the first."""
    return f"{span.path}:{span.visit}" if span.visit else span.path


def square(scene: Scene, values: Tensor, other: Scene | None = None) -> pd.DataFrame:
    """(spans, spans) numbers with the names of the spans on both sides."""
    down, across = ([label(span) for span in one.spans] for one in (scene, other or scene))
    return pd.DataFrame(values.numpy(), index=down, columns=across)


def rows(flow: Tensor, span: Span) -> Tensor:
    """(places, channels) of a flow, in double precision."""
    return rows_of(flow, span.axis).double()


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosines between rows; 0 where one is nothing."""
    return F.cosine_similarity(a, b, dim=-1, eps=1e-30).clamp(-1.0, 1.0)


def entropy_rank(values: Tensor) -> Tensor:
    """exp of the entropy of singular values, (..., n) -> (...): how many of them there would be if all were alike."""
    share = values / values.sum(dim=-1, keepdim=True).clamp_min(1e-300)
    rank = torch.special.entr(share).sum(dim=-1).exp()
    return torch.where(values.sum(dim=-1) > 0, rank, torch.zeros_like(rank))


def apart(task: Task | None, own: Tensor, found: Tensor) -> Tensor:
    """(rows,) how far answers are from the module's own: KL(own | found) in nats, the mean over places, where classes
    are told apart; else the square of the difference over that of the own answer."""
    if task is not None and task.unit == "%":
        a, b = (F.log_softmax(each.double(), dim=-1) for each in (own, found))
        far = (a.exp() * (a - b)).sum(dim=-1)
        return far.flatten(1).mean(dim=1) if far.dim() > 1 else far
    a, b = (each.double().flatten(1) for each in (own, found))
    return (a - b).square().sum(dim=1) / a.square().sum(dim=1).clamp_min(1e-12)
