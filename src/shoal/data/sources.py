"""open_data: from a name, a path, arrays, a frame, batches or a function to a Dataset."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler
from torch.utils.data import Dataset as TorchDataset

from shoal.core.errors import BadData, BadSetting, suggest
from shoal.data.arrays import open_arrays
from shoal.data.dataset import Dataset
from shoal.data.graphs import ARRAYS, is_graph, open_graph, open_named_graph
from shoal.data.graphs import NAMES as GRAPHS
from shoal.data.loaders import call, collect
from shoal.data.named import NAMES, open_named
from shoal.data.npz import open_npz, read_npz
from shoal.data.tables import SUFFIXES, open_table, read_table
from shoal.data.text import open_text


def open_data(
    source: Any,
    *,
    target: str | None = None,
    seed: int = 0,
    task: str | None = None,
    as_given: bool = False,
    length: int = 64,
) -> Dataset:
    """Open data, split it, and fit its encoder on the training part. Raises BadData, in one line with the fix.

    source     a Dataset (returned as it is); a name: digits, mnist, fashion_mnist, cifar10, cora; a path: .csv .tsv
               (also .gz) .parquet .npz .txt; "PATH.py:function"; (X, y) or (X_train, y_train, X_test, y_test);
               a DataFrame; a graph of PyG; a DataLoader, a torch Dataset, or any iterable of (x, y) batches. For a
               module that takes keywords, X may be a dict of tensors: ({"input_ids": ...}, y)
    target     the column to learn, for tables
    seed       of the split
    task       "classification" or "regression", where what is found in the target is not what is meant
    as_given   leave x, class numbers and regression targets untouched, for a model that is not ours;
               batches and "PATH.py:function" are always taken so
    length     bytes in a window of text
    """
    if isinstance(source, Dataset):
        return source
    if seed < 0:
        raise BadSetting(f"seed {seed}: must be at least 0")
    if isinstance(source, pd.DataFrame):
        return open_table(source, target=target, name="table", seed=seed, task=task, as_given=as_given)
    if isinstance(source, str | Path):
        return _open_place(source, target=target, seed=seed, task=task, as_given=as_given, length=length)
    _no_target(target, "data that is no table")
    if is_graph(source):
        return open_graph(source, name="graph", seed=seed, task=task, as_given=as_given)
    if _is_arrays(source):
        return open_arrays(tuple(source), name="arrays", seed=seed, task=task, as_given=as_given)
    if isinstance(source, Mapping):
        raise BadData("data: a dict of inputs without targets, which cannot be scored; give ({...}, y)")
    if isinstance(source, TorchDataset):
        return open_data(DataLoader(source, batch_size=256), seed=seed, task=task)
    if not isinstance(source, Iterable):
        raise BadData(
            f"data: {type(source).__name__} cannot be opened; give (X, y), a DataFrame, batches, a path or name"
        )
    opened = open_arrays(collect(source), name="batches", seed=seed, task=task, as_given=True)
    if isinstance(source, DataLoader) and isinstance(source.sampler, RandomSampler):
        return _noted(opened, "the loader shuffles: the split is repeated only with the same order (shuffle=False)")
    return opened


def _open_place(
    source: str | Path, *, target: str | None, seed: int, task: str | None, as_given: bool, length: int
) -> Dataset:
    """Open a name, a path, or PATH.py:function."""
    text, path = str(source), Path(source).expanduser()
    if text in NAMES:
        _no_target(target, text)
        return open_named(text, seed=seed, task=task, as_given=as_given)
    if text in GRAPHS:
        _no_target(target, text)
        return open_named_graph(text, seed=seed, task=task, as_given=as_given)
    if ".py:" in text:
        return _open_function(text, target=target, seed=seed, task=task)
    if not text or not path.exists():
        raise BadData(f"data {text!r}: no name that is known, and no such file; {suggest(text, (*NAMES, *GRAPHS))}")
    if path.is_dir():
        raise BadData(f"{text}: is a folder; give a file: {', '.join((*SUFFIXES, '.npz', '.txt'))}")
    low = path.name.lower()
    if low.endswith(SUFFIXES):
        name = path.name.split(".")[0]
        return open_table(read_table(path), target=target, name=name, seed=seed, task=task, as_given=as_given)
    _no_target(target, text)
    if low.endswith(".npz"):
        arrays = read_npz(path)
        if set(ARRAYS) <= arrays.keys():
            return open_graph(arrays, name=path.stem, seed=seed, task=task, as_given=as_given)
        return open_npz(path, arrays, seed=seed, task=task, as_given=as_given)
    if low.endswith(".txt"):
        return open_text(path, length=length, task=task, as_given=as_given)
    raise BadData(f"{text}: files of this kind are not read; known: {', '.join((*SUFFIXES, '.npz', '.txt'))}")


def _open_function(text: str, *, target: str | None, seed: int, task: str | None) -> Dataset:
    made = call(text)
    if isinstance(made, str | Path):
        raise BadData(f"{text}: returned {made!r}; return a Dataset, (X, y), four arrays, a DataFrame or batches")
    return open_data(made, target=target, seed=seed, task=task, as_given=not isinstance(made, pd.DataFrame))


def _is_arrays(source: Any) -> bool:
    """Whether these are two or four arrays, rather than batches, each of which is a pair."""
    if not isinstance(source, tuple | list) or len(source) not in (2, 4):
        return False
    arrays = Tensor | np.ndarray | pd.DataFrame | pd.Series
    return isinstance(source[0], arrays) or (isinstance(source, tuple) and not isinstance(source[0], tuple))


def _no_target(target: str | None, what: str) -> None:
    if target is not None:
        raise BadSetting(f"target {target!r}: {what} has no columns to name; leave target out")


def _noted(data: Dataset, note: str) -> Dataset:
    return replace(data, notes=(*data.notes, note))
