"""Unlabelled: inputs without targets. What the original answers is asked for: quality is fidelity to it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from shoal.core.errors import BadData, BadModel
from shoal.core.example import failed, unmarked
from shoal.core.inputs import Inputs, answer_to, count, joined, pieces, taken
from shoal.core.part import Part
from shoal.data import Dataset, Signature, Split, open_data
from shoal.data.batches import is_batches
from shoal.data.encoders import Given
from shoal.data.given import check_alike, raw_of, read_given, sizes_of
from shoal.data.loaders import call
from shoal.data.split import cut, fingerprint
from shoal.net import Net

BATCH = 256
TASK = "fidelity"  # to what the original answers
LABELS = ("labels", "label")  # what models of transformers are given to learn by


def opened(module: nn.Module, data: Any, target: str | None, seed: int) -> Dataset:
    """Data for a module as :func:`open_data` reads them, or inputs alone, with what the module answers."""
    data, as_given = _made(data, not isinstance(module, Net))
    inputs, data = inputs_of(data)
    if inputs is not None:
        return answered(module, inputs, seed)
    return open_data(data, target=target, seed=seed, as_given=as_given)


def first_rows(source: str, target: str | None, rows: int) -> Inputs:
    """The first rows of data that are named, as a module that is no Net takes them, with targets or without."""
    data, as_given = _made(source, True)
    inputs, data = inputs_of(data)
    if inputs is not None:
        return taken(inputs, slice(rows))
    return open_data(data, target=target, as_given=as_given).example(rows)


def _made(data: Any, as_given: bool) -> tuple[Any, bool]:
    """What a function in a file gives, and whether that is passed on untouched; anything else as it is."""
    if not isinstance(data, str) or ".py:" not in data:
        return data, as_given
    made = call(data)
    if isinstance(made, str | Path):
        return data, as_given  # it is refused with the place of the function
    return made, not isinstance(made, pd.DataFrame)


def inputs_of(data: Any) -> tuple[Inputs | None, Any]:
    """All inputs where data are inputs alone: a tensor, a dict of them by name, or batches that are no (x, y); else
    None, and the data.

    An iterator is looked into, so the data come back whole. Raises BadData where rows differ in their shape.
    """
    if isinstance(data, Tensor | np.ndarray):
        return torch.as_tensor(data), data
    if isinstance(data, Mapping):
        return read_given(data, "inputs"), data
    if isinstance(data, TorchDataset) and not hasattr(data, "edge_index"):
        data = DataLoader(data, batch_size=BATCH)
    if not is_batches(data) or _arrays(data):
        return None, data
    with torch.random.fork_rng(devices=[]):  # a loader that shuffles draws when it is gone through
        rest = iter(data)
        first = next(rest, None)
    whole: Any = chain((first,), rest) if rest is data and first is not None else data
    if first is None or not _alone(first):
        return None, whole
    return joined(list(_rows(whole))), whole


def _arrays(data: Any) -> bool:
    """Whether a list is (X, y), or four arrays: batches of inputs have rows of one shape and type, those have not."""
    if not isinstance(data, list) or len(data) not in (2, 4) or not isinstance(data[0], Tensor | np.ndarray):
        return False
    return len({(str(one.dtype), tuple(one.shape[1:])) for one in data if hasattr(one, "shape")}) != 1


def _alone(batch: Any) -> bool:
    """Whether a batch is an input and not a pair; a loader of one tensor gives lists of one."""
    return not isinstance(batch, tuple | list) or len(batch) == 1


def _rows(data: Iterable[Any]) -> Iterator[Inputs]:
    before: Inputs | None = None
    for number, one in enumerate(data):
        x = one[0] if isinstance(one, tuple | list) and len(one) == 1 else one
        if isinstance(x, Mapping):
            x = read_given(x, f"batch {number}")
        x = torch.from_numpy(x) if isinstance(x, np.ndarray) else x
        if not isinstance(x, Tensor | dict) or (isinstance(x, Tensor) and not x.dim()):
            raise BadData(
                f"batch {number}: inputs without targets must be tensors, or dicts of them, found "
                f"{type(one).__name__}; give tensors, or a dict of the module's arguments by their names"
            )
        if before is not None:
            check_alike(x, before, f"batch {number}", "batch 0", "inputs")
        before = x if before is None else before
        yield x


def answered(module: nn.Module, x: Inputs, seed: int) -> Dataset:
    """A dataset in which the module's own answers are the targets. Raises BadModel where it gives no tensor a row."""
    y = _answers(module, x)
    parts, cuts = cut(np.zeros(len(y), dtype=np.int64), seed)
    places, channels, vocabulary = sizes_of(x)
    train, valid, test = (Split(taken(x, rows), y[rows]) for rows in (parts.train, parts.valid, parts.test))
    task = Part(TASK, {"outputs": y.shape[-1]})
    notes = ("no targets: what the original answers is asked for", *cuts)
    held = [name for name in LABELS if isinstance(x, dict) and name in x]
    if held:
        notes = (*notes, f"{held[0]} is taken as an input like the others; to be scored on it, give ({{...}}, y)")
    signature = Signature(places, channels, vocabulary, task)
    return Dataset("inputs", train, valid, test, signature, Given(), notes, fingerprint(raw_of(x), parts))


def own_answers(data: Dataset) -> bool:
    """Whether the targets are what a module answered, as :func:`answered` makes them."""
    return data.signature.task.name == TASK


def _answers(module: nn.Module, x: Inputs) -> Tensor:
    found: list[Tensor] = []
    with unmarked(module), torch.no_grad():
        for rows in pieces(x, BATCH):
            try:
                y = answer_to(module, rows)
            except BadModel:
                raise
            except Exception as error:  # whatever a stranger's forward raises, the user must read it
                raise failed(module, error, "does not run on the inputs") from error
            if y.dim() < 2 or len(y) != count(rows) or not y.is_floating_point():
                raise BadModel(
                    f"{type(module).__name__}: gives no tensor of numbers with a row an input; wrap it in a module "
                    "that gives the one that counts"
                )
            found.append(y.float())
    return torch.cat(found)
