"""Target: what is to be learned, found from the target's own values.

    text, truth values, categories              classification
    integers, at most 20 distinct, each class
    of 5 rows or more on average                classification   (with images, or as given: any class numbers)
    floats with exactly two values              classification
    all other numbers                           regression

`task=` says otherwise. Class numbers follow the sorted classes, and regression targets are standardised on the
training part; as given, integers that are class numbers already and regression targets stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from shoal.core.errors import BadData, BadSetting, suggest
from shoal.core.part import Part
from shoal.data.cells import to_numbers
from shoal.data.split import Parts
from shoal.data.tensors import numeric, to_numpy

TASKS = ("classification", "regression")
MOST_CLASSES = 100_000
LARGEST = 1e38


@dataclass(frozen=True)
class Target:
    """A target that was understood: (n,) int64 class numbers, or (n, outputs) float64; or (n, length) int64 tokens."""

    task: Part
    values: np.ndarray
    note: str
    classes: tuple[str, ...] | None = None
    as_given: bool = False

    @property
    def labels(self) -> np.ndarray:
        """(n,) what the split should be even over."""
        return self.values if self.task.name == "classification" else np.zeros(len(self.values), dtype=np.int64)

    def scale(self, train: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Means and standard deviations of the outputs over the training rows; None where nothing is standardised."""
        if self.task.name != "regression" or self.as_given:
            return None
        rows = self.values[train.numpy()]
        stds = [float(std) if std > 0 else 1.0 for std in rows.std(axis=0)]
        return tuple(float(mean) for mean in rows.mean(axis=0)), tuple(stds)

    def tensor(self, scale: tuple[tuple[float, ...], tuple[float, ...]] | None) -> Tensor:
        """The targets as the loss wants them."""
        if self.task.name != "regression":
            return torch.from_numpy(self.values)
        mean, std = scale or (0.0, 1.0)
        return torch.from_numpy(((self.values - np.array(mean)) / np.array(std)).astype(np.float32))

    def renamed(self, classes: tuple[str, ...]) -> Target:
        """The same classes by other names."""
        if self.classes is None or len(classes) != len(self.classes):
            raise BadData(f"{self.note}; expected {len(classes)}, named {', '.join(classes)}")
        return replace(self, classes=classes)

    def unseen(self, parts: Parts) -> list[str]:
        """A note on the classes of which no row is in training."""
        if self.classes is None:
            return []
        seen = np.unique(self.values[parts.train.numpy()])
        absent = np.setdiff1d(np.unique(self.values), seen)
        names = ", ".join(self.classes[index] for index in absent[:5])
        return [f"{len(absent)} classes have no row in training: {names}"] if len(absent) else []


def find_target(y: Any, name: str, task: str | None, *, labels: bool = False, as_given: bool = False) -> Target:
    """Understand a target: a column, (n,) or (n, 1), or several outputs, (n, outputs) floats.

    `labels` says that integers are classes however many there are. Raises BadData for a target that cannot be learned.
    """
    if task is not None and task not in TASKS:
        raise BadSetting(f"task {task!r}: unknown here; {suggest(task, TASKS)}")
    if isinstance(y, pd.DataFrame):
        y = y.iloc[:, 0] if y.shape[1] == 1 else y.to_numpy()
    if not isinstance(y, pd.Series):
        y = np.asarray(to_numpy(y))
        if y.ndim == 2 and y.shape[1] > 1:
            return _outputs(y, name, task, as_given)
        if y.ndim == 0 or y.ndim > 2 or y.size != len(y):
            raise BadData(f"target {name}: shape {y.shape}; expected (n,) or (n, outputs)")
        y = pd.Series(y.reshape(-1))
    column = y.infer_objects()
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        raise BadData(f"target {name}: holds dates; make them numbers, such as days from a first day")
    gone = int(column.isna().sum())
    if gone:
        raise BadData(f"target {name}: {gone} of {len(column)} cells are missing or NaN; fill in or remove those rows")
    plain = pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype)
    if plain:
        to_numbers(column, f"target {name}")  # refuses infinite values
    words = column if plain else column.astype(object).map(str)
    distinct = words.nunique()
    if distinct < 2:
        only = str(column.iloc[0])[:40] if len(column) else "nothing"
        raise BadData(f"target {name}: constant, {only!r} in all {len(column)} rows; give one class or value more")
    if (task or _guess(column, plain, labels or as_given, distinct)) == "regression":
        return _outputs(to_numbers(column, f"target {name}")[:, None], name, "regression", as_given)
    if distinct > len(column) / 2:
        raise BadData(f"target {name}: {distinct} classes in {len(column)} rows; name another target or task")
    return _classes(words, name, plain, as_given)


def _guess(column: pd.Series, plain: bool, labels: bool, distinct: int) -> str:
    if not plain:
        return "classification"
    if not pd.api.types.is_integer_dtype(column.dtype):
        return "classification" if distinct == 2 and not labels else "regression"
    few = distinct <= 20 and distinct * 5 <= len(column)
    return "classification" if few or (labels and distinct <= len(column) / 2) else "regression"


def _classes(column: pd.Series, name: str, plain: bool, as_given: bool) -> Target:
    values = column.to_numpy()
    found = sorted(column.unique())
    if as_given and plain and found[0] >= 0 and all(value == int(value) for value in found):
        count = int(found[-1]) + 1
        if count > MOST_CLASSES:
            raise BadData(f"target {name}: class number {count - 1} is too large; number the classes from 0")
        codes, names = values.astype(np.int64), [str(number) for number in range(count)]
    else:
        codes = pd.Index(found).get_indexer(pd.Index(values)).astype(np.int64)
        names = [str(int(value)) if plain and value == int(value) else str(value) for value in found]
    if len(names) < 2:
        raise BadData(f"target {name}: one class only; give rows of another class")
    renumbered = as_given and names[0] != "0"
    note = f"target {name}: classification, {len(names)} classes" + ", numbered in sorted order" * renumbered
    return Target(Part("classification", {"classes": len(names)}), codes, note, tuple(names), as_given)


def _outputs(y: np.ndarray, name: str, task: str | None, as_given: bool) -> Target:
    values = numeric(y, f"target {name}", np.float64)
    wrong = len(values) - int(np.isfinite(values).all(axis=1).sum()) if values.dtype.kind == "f" else 0
    if wrong:
        raise BadData(f"target {name}: {wrong} of {len(values)} rows are NaN or infinite; fill in or remove them")
    if task == "classification" or (task is None and values.dtype.kind in "biu"):
        raise BadData(
            f"target {name}: shape {y.shape} of {y.dtype}; classes are (n,) integers (y.argmax(1) of one-hot)"
        )
    if float(np.abs(values).max()) > LARGEST:
        raise BadData(f"target {name}: values beyond {LARGEST:.0e} do not fit float32; rescale it")
    constant = np.flatnonzero((values == values[:1]).all(axis=0))
    if len(constant):
        raise BadData(f"target {name}: output {constant[0]} is constant; leave it out")
    note = f"target {name}: regression, {values.shape[1]} output{'s' if values.shape[1] > 1 else ''}"
    task_part = Part("regression", {"outputs": values.shape[1]})
    return Target(task_part, values.astype(np.float64), note, as_given=as_given)
