"""Which row goes where: training, validation and test parts, seeded, and even over the classes.

    no official test part    70 / 15 / 15 %; below 10,000 rows 55 / 15 / 30 %, so that a point or two can be told
    an official test part    kept as it is (the last rows); validation is 10 % of the others, 15 % below 10,000 rows

Every class of three members or more is in every part that is cut here; smaller ones stay in training. Where all
classes are smaller, the split is random.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from shoal.core.errors import BadData

FEWEST_ROWS = 10
MANY_ROWS = 10_000  # from here on a smaller share is test enough


@dataclass(frozen=True)
class Parts:
    """Row numbers, int64 and rising: every row is in exactly one part."""

    train: Tensor
    valid: Tensor
    test: Tensor


def cut(labels: np.ndarray, seed: int, official: int = 0) -> tuple[Parts, list[str]]:
    """Share out the rows of `labels`, (n,) class numbers (all zero where there are none), the last `official` to test.

    Raises BadData below 10 rows (not counting the official test part).
    """
    rows = len(labels) - official
    if rows < FEWEST_ROWS:
        raise BadData(f"data: {rows} rows are too few to train, validate and test; give at least {FEWEST_ROWS}")
    many = rows >= MANY_ROWS
    shares = (0.15, 0.15 if many else 0.3)
    if official:
        shares = (0.1 if many else 0.15, 0.0)
    random = np.random.default_rng(seed)
    part = np.zeros(len(labels), dtype=np.int8)  # 0 train, 1 valid, 2 test
    part[rows:] = 2
    known, group, counts = np.unique(labels[:rows], return_inverse=True, return_counts=True)
    random_split = bool(counts.max() < 3)
    group = np.zeros(rows, dtype=np.int64) if random_split else group
    small = 0
    for index in range(1 if random_split else len(known)):
        members = random.permutation(np.flatnonzero(group == index))
        if len(members) < 3:
            small += 1
            continue
        valid, test = (max(1, int(share * len(members) + 0.5)) if share else 0 for share in shares)
        part[members[:valid]], part[members[valid : valid + test]] = 1, 2
    train, valid_rows, test_rows = (torch.from_numpy(np.flatnonzero(part == which)) for which in range(3))
    how = "split " + "/".join(f"{100 * share:.0f}" for share in (1 - sum(shares), *shares))
    if official:
        how = f"official test part kept, {100 * shares[0]:.0f} % of the rest for validation"
    notes = [f"{how}: {len(train)} train, {len(valid_rows)} validation, {len(test_rows)} test rows"]
    notes += [f"classes of less than 3 rows, all in training: {small}"] if small else []
    notes += ["no class has 3 rows: split at random"] if random_split else []
    return Parts(train, valid_rows, test_rows), notes


def fingerprint(values: Iterable[np.ndarray | bytes], parts: Parts) -> str:
    """16 hex digits of the SHA-256 of the raw values and of the parts."""
    digest = hashlib.sha256()
    for value in (*values, parts.train.numpy(), parts.valid.numpy(), parts.test.numpy()):
        if isinstance(value, np.ndarray):
            digest.update(f"{value.dtype.str}{value.shape}".encode())
            digest.update(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)
        else:
            digest.update(f"bytes{len(value)}".encode() + value)
    return digest.hexdigest()[:16]
