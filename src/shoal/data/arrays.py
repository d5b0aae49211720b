"""Arrays, tensors and frames: (X, y), or (X_train, y_train, X_test, y_test) with the official test part kept.

X frame             a table
X (n, d)            a table of numbers; NaN is a missing cell
X (n, h, w)         images of one channel where it is square or of whole numbers 0..255;
                    else sequences, (n, length, channels)
X (n, h, w, c)      images; (n, c, h, w) with 1, 3 or 4 channels and a last side above 4 is moved to channels last
X as given          any shape, untouched; the last axis counts as the channels, (n, length) integers as tokens;
                    or a dict of such, the arguments of a module by their names
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from shoal.core.errors import BadData
from shoal.core.inputs import count, joined
from shoal.data.build import build_given, build_places, build_table, check_lengths
from shoal.data.cells import shortened, to_numbers
from shoal.data.dataset import Dataset
from shoal.data.given import check_alike, read_given
from shoal.data.target import find_target
from shoal.data.tensors import check_plain, numeric, to_numpy, to_pixels


def open_arrays(
    arrays: tuple[Any, ...],
    *,
    name: str,
    seed: int,
    task: str | None,
    as_given: bool,
    target_name: str = "y",
    classes: tuple[str, ...] | None = None,
) -> Dataset:
    """Open two or four arrays. `classes` gives the class numbers 0, 1, ... their names. Raises BadData."""
    x, y, official = _whole(arrays)
    if as_given:
        given = read_given(_frame_numbers(x) if isinstance(x, pd.DataFrame) else x, "X")
        made = build_given(given, y, name=name, seed=seed, task=task, official=official)
        return replace(made, classes=classes or made.classes) if made.classes is not None else made
    if isinstance(x, dict):
        raise BadData("X: a dict holds arguments of a module by their names, and a net takes one tensor; give that")
    if isinstance(x, pd.DataFrame):
        target = find_target(y, target_name, task)
        return build_table(named_columns(x), target, name=name, seed=seed, official=official)
    if np.ndim(x) == 2:
        table = numeric(to_numpy(x), "X", np.float64)
        frame = pd.DataFrame(table, columns=[f"x{index}" for index in range(table.shape[1])])
        return build_table(frame, find_target(y, target_name, task), name=name, seed=seed, official=official)
    pixels = to_pixels(x, "X")
    target = find_target(y, target_name, task, labels=True)
    if classes is not None and target.task.name == "classification":
        target = target.renamed(classes)
    return build_places(pixels, target, name=name, seed=seed, official=official)


def named_columns(frame: pd.DataFrame) -> pd.DataFrame:
    """A frame whose columns have text names, each once, and whose rows are numbered from 0. Raises BadData."""
    named = frame.reset_index(drop=True)
    named.columns = pd.Index([str(column) for column in frame.columns])
    twice = list(dict.fromkeys(named.columns[named.columns.duplicated()]))
    if twice:
        raise BadData(f"table: column names occur twice: {shortened(twice)}; rename them")
    return named.infer_objects()


def _whole(arrays: tuple[Any, ...]) -> tuple[Any, Any, int]:
    """X and y of all rows, and how many of the last are the official test part."""
    if len(arrays) not in (2, 4):
        raise BadData(f"arrays: {len(arrays)} given; expected (X, y) or (X_train, y_train, X_test, y_test)")
    values = tuple(_dense(value, what) for value, what in zip(arrays, "XyXy", strict=False))
    for x, y in zip(values[::2], values[1::2], strict=True):
        check_lengths(count(x), len(y))
    if len(values) == 2:
        return values[0], values[1], 0
    return _joined(values[0], values[2], "X"), _joined(values[1], values[3], "y"), len(values[3])


def _dense(value: Any, what: str) -> Any:
    """A frame, a column or a CPU tensor as it is; a mapping as a dict of tensors; anything else as an array of at
    least one axis."""
    if isinstance(value, pd.DataFrame | pd.Series):
        return value
    if isinstance(value, Mapping):
        if what == "y":
            raise BadData("y: a dict; give one tensor of targets, with one a row")
        return read_given(value, what)
    if isinstance(value, Tensor):
        check_plain(value, what)
        array: Any = value.detach().cpu()
    else:
        try:
            array = np.asarray(value)
        except ValueError as error:
            raise BadData(f"{what}: rows of unequal shape do not make an array; make them equal") from error
    if array.ndim == 0:
        raise BadData(f"{what}: {type(value).__name__} is no array of rows; give an array, a tensor or a frame")
    return array


def _joined(first: Any, second: Any, what: str) -> Any:
    pair: Any = (first, second)
    if all(isinstance(value, pd.DataFrame | pd.Series) for value in pair):
        if isinstance(first, pd.DataFrame) and list(first.columns) != list(second.columns):
            raise BadData(f"{what}: training and test parts have other columns; give both the same, in one order")
        return pd.concat(pair, ignore_index=True)
    if isinstance(first, dict) or isinstance(second, dict):
        check_alike(first, second, "training part", "the test part", what)
        return joined(pair)
    tensors = all(isinstance(value, Tensor) for value in pair)
    if not tensors:
        pair = np.asarray(to_numpy(first)), np.asarray(to_numpy(second))
    if pair[0].shape[1:] != pair[1].shape[1:] or (tensors and first.dtype != second.dtype):
        shapes = " and ".join(f"{value.dtype} {tuple(value.shape)}" for value in pair)
        raise BadData(f"{what}: training and test parts are {shapes}; give rows of one shape and type")
    return torch.cat(pair) if tensors else np.concatenate(pair)


def _frame_numbers(frame: pd.DataFrame) -> np.ndarray:
    named = named_columns(frame)
    if not len(named.columns):
        raise BadData("X: the table has no columns; give at least one")
    columns = [to_numbers(named[column], f"column {column!r}") for column in named.columns]
    return np.stack(columns, axis=1).astype(np.float32)
