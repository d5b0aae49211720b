"""Table encoder: each column of a table becomes numbers of about unit size.

    number     (value, missing -> training median; - mean) / std; arcsinh of that where the tail is long;
               and a 0/1 column "missing" where the training part had missing cells
    category   one 0/1 column a level; "other" for levels rare in training; "missing" where training had missing cells

A level is rare below 10 occurrences (below 0.1% of the rows, but at least 2, in tables of less than 10,000 rows). A
level never seen goes to "other"; where training had no rare level there is no such column, whose weight would be
untrained, and all its columns are 0.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from shoal.core.errors import BadData
from shoal.data.cells import is_numbers, shortened, to_numbers, to_words

LONG_TAIL = 10.0  # a training value this many standard deviations out makes the tail long


@dataclass(frozen=True)
class Number:
    """A column of numbers, of truth values, or of dates (as days since 1970)."""

    kind: ClassVar[str] = "number"
    name: str
    median: float
    mean: float
    std: float
    long_tail: bool
    missing: bool

    def features(self) -> list[str]:
        return [self.name, f"{self.name} missing"] if self.missing else [self.name]

    def encode(self, column: pd.Series) -> np.ndarray:
        values = to_numbers(column, f"column {self.name!r}")
        empty = np.isnan(values)
        scaled = (np.where(empty, self.median, values) - self.mean) / self.std
        scaled = np.arcsinh(scaled) if self.long_tail else scaled
        return np.stack([scaled, empty] if self.missing else [scaled], axis=1)

    @classmethod
    def fit(cls, column: pd.Series, name: str) -> Number | str:
        """The encoder of a training column, or why it is of no use."""
        values = to_numbers(column, f"column {name!r}")
        empty = np.isnan(values)
        present = values[~empty]
        if not present.size or (present.min() == present.max() and not empty.any()):
            return "constant" if present.size else "empty"
        with np.errstate(over="ignore", invalid="ignore"):
            mean, std = float(present.mean()), float(present.std())
        if not np.isfinite(mean) or not np.isfinite(std):
            raise BadData(f"column {name!r}: values up to {np.abs(present).max():.3g} are too large; rescale it")
        std = std if std > 0 else 1.0
        long_tail = bool(np.abs(present - mean).max() > LONG_TAIL * std)
        return cls(name, float(np.median(present)), mean, std, long_tail, bool(empty.any()))


@dataclass(frozen=True)
class Category:
    """A column of words, as one 0/1 column a level."""

    kind: ClassVar[str] = "category"
    name: str
    levels: tuple[str, ...]
    other: bool
    missing: bool

    def features(self) -> list[str]:
        words = [f"{self.name}={level}" for level in self.levels]
        return words + [f"{self.name} other"] * self.other + [f"{self.name} missing"] * self.missing

    def encode(self, column: pd.Series) -> np.ndarray:
        empty = column.isna().to_numpy()
        place = pd.Index(list(self.levels), dtype=object).get_indexer(to_words(column))
        place = np.where((place < 0) | empty, len(self.levels) if self.other else -1, place)
        place = np.where(empty & self.missing, len(self.levels) + self.other, place)
        coded = np.zeros((len(column), len(self.features())))
        rows = np.flatnonzero(place >= 0)
        coded[rows, place[rows]] = 1
        return coded

    @classmethod
    def fit(cls, column: pd.Series, name: str) -> Category | str:
        """The encoder of a training column, or why it is of no use."""
        counts = pd.Series(to_words(column)[column.notna().to_numpy()], dtype=object).value_counts()
        if len(counts) > 1000 or len(counts) > len(column) / 2:
            return f"like an identifier ({len(counts)} levels in {len(column)} rows)"
        enough = min(10, max(2, 0.001 * len(column)))
        levels = tuple(sorted(str(word) for word in counts.index[counts.to_numpy() >= enough]))
        made = cls(name, levels, len(levels) < len(counts), bool(column.isna().any()))
        return made if len(made.features()) > 1 else "constant"


@dataclass(frozen=True)
class Table:
    """Rows of a table to (n, features) float32. `inputs` names all raw columns, in order, also those not used."""

    kind: ClassVar[str] = "table"
    inputs: tuple[str, ...]
    columns: tuple[Number | Category, ...]

    def __call__(self, raw: Any) -> Tensor:
        frame = self._frame(raw)
        coded = np.empty((len(frame), len(self.features())), dtype=np.float32)
        at = 0
        for column in self.columns:
            block = column.encode(frame[column.name])
            coded[:, at : at + block.shape[1]] = block
            at += block.shape[1]
        return torch.from_numpy(coded)

    def features(self) -> list[str]:
        """The name of each number of a prepared row."""
        return [feature for column in self.columns for feature in column.features()]

    def _frame(self, raw: Any) -> pd.DataFrame:
        if not isinstance(raw, pd.DataFrame):
            array = np.asarray(raw)
            if array.ndim != 2 or array.shape[1] != len(self.inputs):
                raise BadData(f"x: shape {array.shape}; expected (n, {len(self.inputs)}), the columns of training")
            return pd.DataFrame(array, columns=list(self.inputs)).infer_objects()
        frame = raw.copy(deep=False)
        frame.columns = pd.Index([str(column) for column in raw.columns])
        absent = [column.name for column in self.columns if column.name not in frame.columns]
        if absent:
            raise BadData(
                f"table: column {absent[0]!r} is missing ({len(absent)} in all); give all columns of training"
            )
        if not frame.columns.is_unique:
            raise BadData("table: a column name occurs twice; rename one")
        return frame

    def to_json(self) -> dict[str, Any]:
        columns = [{"kind": column.kind, **asdict(column)} for column in self.columns]
        return {"kind": self.kind, "inputs": list(self.inputs), "columns": columns}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Table:
        return cls(tuple(data["inputs"]), tuple(_column_from_json(column) for column in data["columns"]))


def _column_from_json(data: dict[str, Any]) -> Number | Category:
    settings = {key: value for key, value in data.items() if key != "kind"}
    if data["kind"] == Number.kind:
        return Number(**settings)
    if data["kind"] == Category.kind:
        return Category(**{**settings, "levels": tuple(settings["levels"])})
    raise ValueError(f"column kind {data['kind']!r}")


def fit_table(frame: pd.DataFrame) -> tuple[Table, list[str]]:
    """Fit the encoder of a training part, (rows, columns), with notes on what was found. BadData if nothing is of use.

    Whether a column is numbers or words is told by its type in the frame; all else is learned from these rows.
    """
    columns: list[Number | Category] = []
    dropped: dict[str, list[str]] = {}
    for name in frame.columns:
        made = (Number if is_numbers(frame[name]) else Category).fit(frame[name], name)
        if isinstance(made, str):
            dropped.setdefault(made, []).append(name)
        else:
            columns.append(made)
    reasons = [f"columns dropped, {reason}: {shortened(names)}" for reason, names in dropped.items()]
    if not columns:
        raise BadData(f"table: no column to learn from; {'; '.join(reasons) or 'it has only the target'}; add columns")
    table = Table(tuple(frame.columns), tuple(columns))
    numbers = sum(column.kind == Number.kind for column in columns)
    tails = [column.name for column in columns if isinstance(column, Number) and column.long_tail]
    found = f"columns: numbers {numbers}, categories {len(columns) - numbers}; features {len(table.features())}"
    notes = [found, *reasons]
    return table, notes + ([f"long tails, arcsinh taken: {shortened(tails)}"] if tails else [])
