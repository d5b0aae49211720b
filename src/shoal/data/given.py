"""Given: rows that a module takes as they are, one tensor or a dict of them by name; read, held together, described.

Nothing is padded here: rows of other lengths in another batch are refused, for what a pad is only the module's own
tokenizer knows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shoal.core.errors import BadData
from shoal.core.inputs import Inputs, first
from shoal.data.tensors import to_tensor

TOKENS = (torch.int32, torch.int64)


def read_given(raw: Any, what: str) -> Inputs:
    """A tensor or an array as :func:`to_tensor` reads it, a mapping of such as a dict. Raises BadData."""
    if not isinstance(raw, Mapping):
        return to_tensor(raw, what)
    found: dict[str, Tensor] = {}
    for name, value in raw.items():
        if not isinstance(name, str) or not isinstance(value, Tensor | np.ndarray | list):
            raise BadData(
                f"{what}: {name!r} is a {type(value).__name__}; give each argument of the module by its name, as a "
                "tensor with a row an example, or leave it out"
            )
        found[name] = to_tensor(value, f"{what}: {name}")
    rows = {name: len(value) if value.dim() else 0 for name, value in found.items()}
    if not rows:
        raise BadData(f"{what}: an empty dict holds no rows; give the arguments of the module by their names")
    if len(set(rows.values())) > 1:
        told = ", ".join(f"{name} {number}" for name, number in rows.items())
        raise BadData(f"{what}: its tensors have unequal numbers of rows ({told}); give each a row an example")
    return found


def check_alike(now: Inputs, before: Inputs, where: str, there: str, what: str) -> None:
    """Raises BadData unless rows of a batch, or part, can stand beside those of another one."""
    if _names(now) != _names(before):
        kinds = [", ".join(sorted(names)) if names else "one tensor" for names in (_names(now), _names(before))]
        raise BadData(f"{where}: {what} is {kinds[0]}, of {there} {kinds[1]}; give the same arguments in all")
    for name, value in _parts(now):
        other = dict(_parts(before))[name]
        if value.shape[1:] != other.shape[1:] or value.dtype != other.dtype:
            told, then = (f"{each.dtype} {tuple(each.shape[1:])}" for each in (value, other))
            fix = f"give rows of one shape{'; pad all to one length' * (name is not None)}"
            raise BadData(f"{where}: rows of {name or what} are {told}, of {there} {then}; {fix}")


def sizes_of(x: Inputs) -> tuple[tuple[int, ...], int, int | None]:
    """Places, channels and vocabulary, as a Signature has them, of the tensor or of the first of a dict."""
    main = first(x)
    shape = tuple(main.shape[1:])
    if main.ndim == 2 and main.dtype in TOKENS and main.numel() > 0 and int(main.min()) >= 0:
        return shape, 0, int(main.max()) + 1
    return shape[:-1], shape[-1] if shape else 1, None


def raw_of(x: Inputs) -> Iterator[bytes | np.ndarray]:
    """What a fingerprint is made of: names, types, shapes and values."""
    for name, value in _parts(x):
        yield f"{name or ''}{value.dtype}{tuple(value.shape[1:])}".encode()
        yield value.contiguous().view(torch.uint8).numpy()


def told_of(x: Inputs) -> str:
    """Shapes and types, in words: ``(3, 8, 8) of uint8``."""
    return ", ".join(
        f"{name + ' ' if name else ''}{tuple(value.shape[1:])} of {str(value.dtype).removeprefix('torch.')}"
        for name, value in _parts(x)
    )


def _parts(x: Inputs) -> Iterator[tuple[str | None, Tensor]]:
    yield from x.items() if isinstance(x, dict) else ((None, x),)


def _names(x: Inputs) -> set[str]:
    return set(x) if isinstance(x, dict) else set()
