"""Batches: data that any module is shown as it stands, batch by batch: (x, y), or inputs alone.

An input is a tensor, a tuple of arguments or a dict of keyword arguments; one such dict by itself is one batch. Nothing
is split, and nothing prepared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
from torch import Tensor, nn

from shoal.core.base import Task
from shoal.core.errors import BadData, BadModel
from shoal.core.example import tensors
from shoal.core.part import Part
from shoal.core.resuming import Resumable
from shoal.core.scene import Batch, answer, cut
from shoal.data.dataset import Dataset
from shoal.kinds import TASKS

ROWS = 32  # on which it is seen whether rows read each other
MEETING = 1e-3  # of what is answered: rounding changes less


def is_batches(data: Any) -> bool:
    """Whether it is gone through batch by batch: a list, a generator, a loader; a tuple is (X, y)."""
    if isinstance(data, Dataset | str | tuple | pd.DataFrame | Tensor) or hasattr(data, "edge_index"):
        return False
    return isinstance(data, Iterable)


def batches_in(module: nn.Module, data: Iterable[Any], rows: int) -> tuple[list[Batch], Task | None]:
    """The batches until there are enough rows, and what is asked for; None where there are no targets.

    Raises BadData where there is no batch, or one is none.
    """
    whole = (cut(Batch(dict(data)), rows),) if isinstance(data, Mapping) else data
    found = _taken(whole, rows)
    if not found:
        raise BadData("batches: there is none; give an iterable that can still be gone through")
    if rows_meet(module, found[0]):
        found = [batch._replace(whole=True) for batch in found]
    return found, task_of(module, found[0])


def _taken(data: Iterable[Any], rows: int) -> list[Batch]:
    found: list[Batch] = []
    had = 0
    for number, one in enumerate(data):
        batch = one if isinstance(one, Batch) else Batch(*one) if _is_pair(one) else Batch(one)
        if not tensors(batch.example):
            raise BadData(f"batch {number}: there is no tensor in it; give tensors, tuples or dicts of them, or (x, y)")
        if batch.target is not None and len(batch.target) != batch.rows:
            raise BadData(f"batch {number}: {batch.rows} rows and {len(batch.target)} targets; give one a row")
        if found and (batch.target is None) != (found[0].target is None):
            raise BadData(f"batch {number}: some batches have targets and some have none; give them to all or to none")
        found.append(batch)
        had += batch.rows
        if had >= rows:
            break
    return found


def _is_pair(one: Any) -> bool:
    return isinstance(one, tuple | list) and len(one) == 2


def task_of(module: nn.Module, batch: Batch) -> Task | None:
    """Classification where targets are whole numbers, the next token where there is one at every place, else
    regression; as wide as the answers. None where there are no targets."""
    if batch.target is None:
        return None
    with Resumable(module, ()) as runs:
        width = answer(runs.record(cut(batch, 1).example).output).shape[-1]
    if batch.target.is_floating_point():
        part = Part("regression", {"outputs": width})
    elif batch.target.dim() > 1:
        part = Part("next_token", {"vocabulary": width})
    else:
        part = Part("classification", {"classes": width})
    made: Task = TASKS.make(part)
    return made


def rows_meet(module: nn.Module, batch: Batch) -> bool:
    """Whether the rows of a batch read each other, as the nodes of a graph do: without some, others change.

    Seen on the first rows, of which half are left out. Raises BadModel where the module does not run at all.
    """
    some = cut(batch, ROWS)
    few = cut(some, some.rows // 2)
    if some.rows < 2:
        return False
    with Resumable(module, ()) as runs:
        try:
            part, whole = (answer(runs.record(each.example).output).double() for each in (few, some))
        except BadModel:
            runs.record(batch.example)
            return True
    if len(part) != few.rows or len(whole) != some.rows:
        return True
    apart = (whole[: few.rows] - part).square().mean().sqrt()
    return bool(apart > MEETING * whole.square().mean().sqrt())
