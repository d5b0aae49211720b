"""Unlabelled: inputs without targets. What the original answers is asked for: quality is fidelity to it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from shoal.core.errors import BadData, BadModel
from shoal.core.example import evaluating, failed
from shoal.core.part import Part
from shoal.data import Dataset, Signature, Split, open_data
from shoal.data.batches import is_batches
from shoal.data.encoders import Given
from shoal.data.loaders import call
from shoal.data.split import cut, fingerprint
from shoal.net import Net

BATCH = 256


def opened(module: nn.Module, data: Any, target: str | None, seed: int) -> Dataset:
    """Data for a module as :func:`open_data` reads them, or inputs alone, with what the module answers."""
    as_given = not isinstance(module, Net)
    if isinstance(data, str) and ".py:" in data:
        made = call(data)
        if not isinstance(made, str | Path):  # a path is refused with the place of the function
            data, as_given = made, not isinstance(made, pd.DataFrame)
    inputs, data = inputs_of(data)
    if inputs is not None:
        return answered(module, inputs, seed)
    return open_data(data, target=target, seed=seed, as_given=as_given)


def inputs_of(data: Any) -> tuple[Tensor | None, Any]:
    """All inputs where data are inputs alone: a tensor, or batches that are no (x, y); else None, and the data.

    An iterator is looked into, so the data come back whole. Raises BadData where inputs are no tensors of one shape.
    """
    if isinstance(data, Tensor | np.ndarray):
        return torch.as_tensor(data), data
    if not is_batches(data) or _arrays(data):
        return None, data
    with torch.random.fork_rng(devices=[]):  # a loader that shuffles draws when it is gone through
        rest = iter(data)
        first = next(rest, None)
    whole: Any = chain((first,), rest) if rest is data and first is not None else data
    if first is None or not _alone(first):
        return None, whole
    return torch.cat(list(_rows(whole))), whole


def _arrays(data: Any) -> bool:
    """Whether a list is (X, y), or four arrays: batches of inputs have rows of one shape and type, those have not."""
    if not isinstance(data, list) or len(data) not in (2, 4) or not isinstance(data[0], Tensor | np.ndarray):
        return False
    return len({(str(one.dtype), tuple(one.shape[1:])) for one in data if hasattr(one, "shape")}) != 1


def _alone(batch: Any) -> bool:
    """Whether a batch is an input and not a pair; a loader of one tensor gives lists of one."""
    return not isinstance(batch, tuple | list) or len(batch) == 1


def _rows(data: Iterable[Any]) -> Iterator[Tensor]:
    shape: tuple[int, ...] | None = None
    for number, one in enumerate(data):
        x = one[0] if isinstance(one, tuple | list) and len(one) == 1 else one
        x = torch.from_numpy(x) if isinstance(x, np.ndarray) else x
        if not isinstance(x, Tensor) or not x.dim():
            raise BadData(
                f"batch {number}: inputs without targets must be tensors, found {type(one).__name__}; "
                "give tensors, and a module that takes one"
            )
        if shape is not None and tuple(x.shape[1:]) != shape:
            raise BadData(f"batch {number}: rows of {tuple(x.shape[1:])}, before of {shape}; give rows of one shape")
        shape = tuple(x.shape[1:])
        yield x


def answered(module: nn.Module, x: Tensor, seed: int) -> Dataset:
    """A dataset in which the module's own answers are the targets. Raises BadModel where it gives no tensor a row."""
    y = _answers(module, x)
    parts, cuts = cut(np.zeros(len(x), dtype=np.int64), seed)
    tokens = x.dim() == 2 and not x.is_floating_point() and x.dtype != torch.bool
    shape = tuple(x.shape[1:])
    places, channels = (shape, 0) if tokens else (shape[:-1], shape[-1] if shape else 1)
    vocabulary = int(x.max()) + 1 if tokens else None
    raw = x.contiguous().reshape(len(x), -1).view(torch.uint8).numpy()
    train, valid, test = (Split(x[rows], y[rows]) for rows in (parts.train, parts.valid, parts.test))
    task = Part("fidelity", {"outputs": y.shape[-1]})
    notes = ("no targets: what the original answers is asked for", *cuts)
    signature = Signature(places, channels, vocabulary, task)
    return Dataset("inputs", train, valid, test, signature, Given(), notes, fingerprint([raw], parts))


def _answers(module: nn.Module, x: Tensor) -> Tensor:
    found: list[Tensor] = []
    with evaluating(module), torch.no_grad():
        for rows in x.split(BATCH):
            try:
                y = module(rows)
            except Exception as error:  # whatever a stranger's forward raises, the user must read it
                raise failed(module, error, "does not run on the inputs") from error
            if not isinstance(y, Tensor) or y.dim() < 2 or len(y) != len(rows) or not y.is_floating_point():
                raise BadModel(
                    f"{type(module).__name__}: gives no tensor of numbers with a row an input; wrap it in a module "
                    "that gives the one that counts"
                )
            found.append(y.float())
    return torch.cat(found)
