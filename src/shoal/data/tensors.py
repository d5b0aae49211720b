"""Tensors from raw arrays: refused with a reason where they hold anything but finite numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from shoal.core.errors import BadData


def to_pixels(raw: Any, what: str) -> Tensor:
    """Whole numbers within 0..255 as uint8, all other numbers as finite float32."""
    x = to_tensor(raw, what)
    if not x.is_floating_point() and x.numel() and int(x.min()) >= 0 and int(x.max()) <= 255:
        return x.to(torch.uint8)
    return x.to(torch.float32)


def to_tensor(raw: Any, what: str) -> Tensor:
    """A tensor as it is (detached, on the CPU); an array as a tensor. Raises BadData for text and not finite values."""
    x = raw.detach().cpu() if isinstance(raw, Tensor) else torch.from_numpy(numeric(raw, what))
    check_plain(x, what)
    if x.is_floating_point():
        wrong = x.numel() - int(torch.isfinite(x).sum())
        if wrong:
            raise BadData(f"{what}: {wrong} of {x.numel()} values are not finite; replace or remove them")
    return x


def to_numpy(raw: Any) -> Any:
    """A tensor as an array, its floats as float64, which loses none of their values; anything else as it is."""
    if not isinstance(raw, Tensor):
        return raw
    check_plain(raw, "tensor")
    return (raw.double() if raw.is_floating_point() else raw).detach().cpu().numpy()


def check_plain(x: Tensor, what: str) -> None:
    """Raises BadData for complex and sparse tensors."""
    if x.is_complex() or x.layout is not torch.strided:
        kind = "complex" if x.is_complex() else "sparse"
        raise BadData(f"{what}: {kind} tensors are not read; make it real and dense")


def numeric(raw: Any, what: str, floats: type[np.floating[Any]] = np.float32) -> np.ndarray:
    """An array of bool, uint8, int64 or `floats`. BadData names the first value of text."""
    try:
        array = np.asarray(raw)
    except ValueError as error:
        raise BadData(f"{what}: rows of unequal shape do not make an array; make them equal") from error
    if array.dtype == object or array.dtype.kind in "USV":
        array = np.asarray([_number(value, what) for value in array.reshape(-1)], dtype=float).reshape(array.shape)
    if array.dtype.kind not in "biuf":
        raise BadData(f"{what}: holds {array.dtype}; give integers or floats")
    if array.dtype.kind in "iu" and array.dtype != np.uint8:
        array = array.astype(np.int64)
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):  # what overflows float32 becomes infinite, and is counted as such
            array = array.astype(floats)
    return np.array(array, order="C", copy=None if array.flags.writeable else True)


def _number(value: Any, what: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        shown = repr(value.item() if isinstance(value, np.generic) else value)[:40]
        raise BadData(f"{what}: {shown} is not a number; give numbers, or a DataFrame for mixed columns") from error
