"""Batches and functions: a DataLoader, any iterable of (x, y) batches, and "PATH.py:function"."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shoal.core.errors import BadData, ShoalError, suggest
from shoal.core.inputs import Inputs, first, joined
from shoal.data.given import check_alike, read_given


def collect(batches: Iterable[Any]) -> tuple[Inputs, Tensor]:
    """All rows of an iterable of (x, y) batches, gone through once. Raises BadData naming the first odd batch."""
    xs: list[Inputs] = []
    ys: list[Tensor] = []
    for number, batch in enumerate(batches):
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            found = (
                f"{type(batch).__name__} of {len(batch)}" if isinstance(batch, tuple | list) else type(batch).__name__
            )
            raise BadData(f"batch {number}: got {found}; expected a pair (x, y): unlabelled data cannot be scored")
        x, y = (_part(value, number, what) for value, what in zip(batch, "xy", strict=True))
        if isinstance(y, dict):
            raise BadData(f"batch {number}: y is a dict; give one tensor of targets, with one a row")
        main = first(x)
        if main.ndim == 0 or y.ndim == 0 or len(main) != len(y):
            raise BadData(f"batch {number}: x {tuple(main.shape)} and y {tuple(y.shape)}; expected one target a row")
        for value, rows, what in ((x, xs, "x"), (y, ys, "y")):
            if rows:
                check_alike(value, rows[0], f"batch {number}", "batch 0", what)
            rows.append(value)
    if not xs:
        raise BadData("batches: there is none; give an iterable of (x, y) that can still be gone through")
    return joined(xs), torch.cat(ys)


def call(place: str) -> Any:
    """What the function of "PATH.py:function" returns; modules beside the file can be imported by it.

    No bytecode is written beside a file of the user's.
    """
    file, _, name = place.rpartition(":")
    path = Path(file).resolve()
    if not path.is_file():
        raise BadData(f"{file}: no such file; give PATH.py:function")
    sys.path.insert(0, str(path.parent))
    wrote, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        return _function(path, name)()
    except ShoalError:
        raise
    except Exception as error:
        why = (str(error).splitlines() or [""])[0]
        raise BadData(f"{place}: raised {type(error).__name__}: {why}; correct that file") from error
    finally:
        sys.dont_write_bytecode = wrote
        sys.path.remove(str(path.parent))


def _function(path: Path, name: str) -> Callable[[], Any]:
    label = f"shoal_opened_{path.stem}"
    spec = importlib.util.spec_from_file_location(label, path)
    if spec is None or spec.loader is None:
        raise BadData(f"{path}: is not a Python file; give PATH.py:function")
    module = importlib.util.module_from_spec(spec)
    sys.modules[label] = module  # dataclasses look their module up by name
    spec.loader.exec_module(module)
    made = getattr(module, name, None)
    if not callable(made):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise BadData(f"{path}: no function {name!r}; {suggest(name, known)}")
    return made


def _part(value: Any, number: int, what: str) -> Inputs:
    if not isinstance(value, Tensor | np.ndarray | list | tuple | int | float | Mapping):
        raise BadData(f"batch {number}: {what} is {type(value).__name__}; expected a tensor or an array")
    return read_given(value, f"batch {number}: {what}")
