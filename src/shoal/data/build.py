"""Build a Dataset from inputs and an understood target: cut, fit the encoder on the training part, encode, note.

build_table     a frame of features
build_places    images, or sequences of numbers
build_given     anything, untouched
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from shoal.core.errors import BadData
from shoal.core.inputs import Inputs, count, first, taken
from shoal.core.part import Part
from shoal.data.columns import fit_table
from shoal.data.dataset import Dataset, Signature, Split
from shoal.data.encoders import Encoder, Given, Pixels
from shoal.data.given import raw_of, sizes_of, told_of
from shoal.data.split import Parts, cut, fingerprint
from shoal.data.target import Target, find_target


def build_table(frame: pd.DataFrame, target: Target, *, name: str, seed: int, official: int = 0) -> Dataset:
    """From the features of a table, (n, columns) with text names; the last `official` rows are the test part."""
    check_lengths(len(frame), len(target.values))
    parts, cuts = cut(target.labels, seed, official)
    table, found = fit_table(frame.iloc[parts.train.numpy()])
    x = table(frame)
    raw = [piece for column in frame.columns for piece in (column.encode(), _raw(frame[column]))]
    mark = fingerprint([*raw, target.values], parts)
    signature = Signature((), x.shape[1], None, target.task)
    return _assemble(name, x, target, parts, signature, table, None, [*found, *cuts], mark)


def build_places(pixels: Tensor, target: Target, *, name: str, seed: int, official: int = 0) -> Dataset:
    """From uint8 or float32 images or sequences in any of the layouts of `shoal.data.arrays`."""
    x, layout = channels_last(pixels)
    check_lengths(len(x), len(target.values))
    parts, cuts = cut(target.labels, seed, official)
    encoder = Pixels.fit(x, parts.train)
    mark = fingerprint([x.numpy(), target.values], parts)
    signature = Signature(tuple(x.shape[1:-1]), x.shape[-1], None, target.task)
    return _assemble(name, x, target, parts, signature, encoder, encoder.prepare, [*layout, *cuts], mark)


def build_given(x: Inputs, y: object, *, name: str, seed: int, task: str | None, official: int = 0) -> Dataset:
    """From inputs that a stranger's model takes as they are, with their targets."""
    places, channels, vocabulary = sizes_of(x)
    shifted = None if vocabulary is None else _next_tokens(first(x), y)
    if shifted is not None:
        vocabulary = max(int(first(x).max()), int(shifted.max())) + 1
        part = Part("next_token", {"vocabulary": vocabulary})
        target = Target(part, shifted, f"target y: next token, {vocabulary} ids", as_given=True)
    else:
        target = find_target(y, "y", task, as_given=True)
    check_lengths(count(x), len(target.values))
    parts, cuts = cut(target.labels, seed, official)
    mark = fingerprint([*raw_of(x), target.values], parts)
    notes = [f"x as given: {told_of(x)}", *cuts]
    signature = Signature(places, channels, vocabulary, target.task)
    return _assemble(name, x, target, parts, signature, Given(), None, notes, mark)


def check_lengths(rows: int, targets: int) -> None:
    """Raises BadData unless there is one target a row."""
    if rows != targets:
        raise BadData(f"(X, y): X has {rows} rows and y has {targets}; give one target a row")


def channels_last(x: Tensor) -> tuple[Tensor, list[str]]:
    """(n, *places, channels) from the layouts of `shoal.data.arrays`, with a note where that took a decision."""
    if x.ndim in (3, 4) and not all(x.shape[1:]):
        raise BadData(f"X: shape {tuple(x.shape)} holds no values; give images of at least one place")
    if x.ndim == 3 and (x.dtype == torch.uint8 or x.shape[1] == x.shape[2]):
        return x.unsqueeze(-1), []
    if x.ndim == 3:
        return x, [f"X read as sequences of {x.shape[1]} places x {x.shape[2]} channels (images: add a last axis of 1)"]
    if x.ndim == 4 and x.shape[-1] > 4 and x.shape[1] in (1, 3, 4):
        return x.movedim(1, -1).contiguous(), [f"X moved from channels first to channels last: {x.shape[1]} channels"]
    if x.ndim == 4:
        return x, []
    raise BadData(f"X: {x.ndim} axes; expected 2 (table), 3 or 4 (images); as_given=True takes any shape untouched")


def _assemble(
    name: str,
    x: Inputs,
    target: Target,
    parts: Parts,
    signature: Signature,
    encoder: Encoder,
    prepare: Callable[[Tensor], Tensor] | None,
    notes: list[str],
    mark: str,
) -> Dataset:
    scale = target.scale(parts.train)
    y = target.tensor(scale)
    train, valid, test = (Split(taken(x, rows), y[rows], prepare) for rows in (parts.train, parts.valid, parts.test))
    every = (target.note, *notes, *target.unseen(parts))
    return Dataset(name, train, valid, test, signature, encoder, every, mark, target.classes, scale)


def _next_tokens(x: Tensor, y: object) -> np.ndarray | None:
    """Targets that are a token at each place of x, or None where they are something else."""
    values = np.asarray(y)
    if values.shape != tuple(x.shape) or values.dtype.kind not in "iu" or x.shape[1] == 1:
        return None
    if values.min() < 0:
        raise BadData(f"y: token {values.min()} is below 0; leave masked tokens out")
    return values.astype(np.int64)


def _raw(column: pd.Series) -> np.ndarray | bytes:
    """What a column holds, in a form that does not depend on the version of pandas."""
    if pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_complex_dtype(column.dtype):
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    empty = column.isna().to_numpy()
    words = ["\x00" if gone else str(value) for value, gone in zip(column.astype(object), empty, strict=True)]
    return "\x1f".join(words).encode()
