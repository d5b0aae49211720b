"""Cells of a table column: as numbers, as words; and names short enough for one line."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from shoal.core.errors import BadData


def is_numbers(column: pd.Series) -> bool:
    """Whether a column is read as numbers: integers, floats, truth values, dates and durations."""
    kinds = (pd.api.types.is_numeric_dtype, pd.api.types.is_datetime64_any_dtype, pd.api.types.is_timedelta64_dtype)
    return any(kind(column.dtype) for kind in kinds)


def to_numbers(column: pd.Series, what: str) -> np.ndarray:
    """A column as float64 with NaN where missing. Raises BadData for text, complex and infinite values."""
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        days = pd.to_datetime(column, utc=True) - pd.Timestamp(0, tz="UTC")
        return to_numbers(days, what)
    if pd.api.types.is_timedelta64_dtype(column.dtype):
        column = column / pd.Timedelta(days=1)
    if pd.api.types.is_complex_dtype(column.dtype):
        raise BadData(f"{what}: holds complex numbers; give their real and imaginary parts as two columns")
    if not pd.api.types.is_numeric_dtype(column.dtype):
        parsed = pd.to_numeric(column.astype(object), errors="coerce")
        wrong = column[parsed.isna() & column.notna()]
        if len(wrong):
            raise BadData(f"{what}: {str(wrong.iloc[0])[:40]!r} is not a number; correct or remove it")
        column = parsed
    values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    infinite = int(np.isinf(values).sum())
    if infinite:
        raise BadData(f"{what}: {infinite} of {len(values)} values are infinite; replace or remove them")
    return values


def shortened(names: Sequence[str], most: int = 5) -> str:
    """A few of the names, and how many more there are."""
    tail = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(str(name)[:40] for name in names[:most]) + tail


def to_words(column: pd.Series) -> np.ndarray:
    """A column as an array of text; what a missing cell becomes is of no meaning."""
    return np.array([str(value) for value in column.astype(object)], dtype=object)
