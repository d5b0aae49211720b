"""Table files: .csv and .tsv (also .gz), .parquet; and frames, by the name of the target."""

from __future__ import annotations

import gzip
import warnings
import zlib
from pathlib import Path
from typing import IO

import pandas as pd

from shoal.core.errors import BadData, MissingExtra, suggest
from shoal.data.arrays import named_columns, open_arrays
from shoal.data.cells import shortened
from shoal.data.dataset import Dataset

SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")


def open_table(
    frame: pd.DataFrame, *, target: str | None, name: str, seed: int, task: str | None, as_given: bool
) -> Dataset:
    """Open a frame; `target` names the column to learn. Raises BadData where it does not."""
    named = named_columns(frame)
    if not len(named.columns) or not len(named):
        raise BadData(
            f"{name}: the table has {len(named)} rows and {len(named.columns)} columns; give a table with both"
        )
    if target is None:
        columns = shortened([repr(column) for column in named.columns], 12)
        raise BadData(f"{name}: no target given; say target= and one of its columns: {columns}")
    if target not in named.columns:
        raise BadData(f"{name}: no column {target!r}; {suggest(target, [str(column) for column in named.columns])}")
    pair = (named.drop(columns=target), named[target])
    return open_arrays(pair, name=name, seed=seed, task=task, as_given=as_given, target_name=target)


def read_table(path: Path) -> pd.DataFrame:
    """Read a table file; a .csv whose first line holds semicolons or tabs and no comma is read by those."""
    if path.name.lower().endswith(".parquet"):
        return _read_parquet(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # rows longer than the header lose cells
            with _opened(path) as file:
                first = file.readline()
            separator = "\t" if ".tsv" in path.name.lower() else _separator(first)
            head = pd.read_csv(path, sep=separator, header=None, nrows=1, dtype=str, index_col=False)
            names = head.iloc[0].dropna()
            twice = list(dict.fromkeys(names[names.duplicated()]))
            if twice:
                raise BadData(f"{path}: column names occur twice: {shortened(twice)}; rename them")
            return pd.read_csv(path, sep=separator, low_memory=False, index_col=False)
    except pd.errors.EmptyDataError as error:
        raise BadData(f"{path}: is empty; give a header line and rows") from error
    except (OSError, ValueError, EOFError, zlib.error, pd.errors.ParserWarning) as error:
        why = (str(error).splitlines() or ["unreadable"])[0]
        raise BadData(f"{path}: cannot be read as a table ({why}); write it as UTF-8 with one header line") from error


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except ImportError as error:
        raise MissingExtra(f"{path}: reading .parquet needs pyarrow; pip install 'shoal[parquet]'") from error
    except (OSError, ValueError) as error:
        raise BadData(f"{path}: cannot be read as .parquet; write it again") from error


def _opened(path: Path) -> IO[str]:
    if path.name.lower().endswith(".gz"):
        return gzip.open(path, "rt", encoding="utf-8", newline="")
    return path.open(encoding="utf-8", newline="")


def _separator(first: str) -> str:
    return next((mark for mark in ",;\t" if mark in first), ",")
