"""Text: bytes, cut by position into training, validation and test parts, then into windows.

    bytes     t0 t1 t2 t3 | t4 t5 t6 t7 | ...       x = t0..t3, y = t1..t4: the next byte at each place

Windows do not overlap, and no byte of one part is seen in another.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from shoal.core.errors import BadData, BadSetting
from shoal.core.part import Part
from shoal.data.dataset import Dataset, Signature, Split
from shoal.data.encoders import Bytes
from shoal.data.split import Parts, fingerprint

SHARES = (0.8, 0.9)  # where the validation and the test part begin


def open_text(path: Path, *, length: int, task: str | None, as_given: bool) -> Dataset:
    """Open a text file for next_token, windows of `length` bytes. Raises BadData where it is too short."""
    if length < 1:
        raise BadSetting(f"length {length}: must be at least 1")
    if task not in (None, "next_token") or as_given:
        wish = "as_given=True" if as_given else f"task {task!r}"
        raise BadSetting(f"{path}: {wish} does not fit text, which is learned as next_token; leave it out")
    try:
        text = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    except OSError as error:
        raise BadData(f"{path}: cannot be read ({error.strerror}); check the file") from error
    edges = [0, *(int(share * len(text)) for share in SHARES), len(text)]
    pieces = [text[start:end] for start, end in pairwise(edges)]
    if min(len(piece) for piece in pieces) <= length:
        raise BadData(f"{path}: {len(text)} bytes are too few; give {10 * length + 20} or a length below {length}")
    train, valid, test = (_windows(piece, length) for piece in pieces)
    cuts = torch.tensor(edges)
    notes = (
        "text: next byte of 256",
        f"windows of {length} bytes: {len(train)} train, {len(valid)} validation, {len(test)} test; split by position",
    )
    mark = fingerprint([text], Parts(cuts[:2], cuts[1:3], cuts[2:]))
    signature = Signature((length,), 0, 256, Part("next_token", {"vocabulary": 256}))
    return Dataset(path.stem, train, valid, test, signature, Bytes(), notes, mark)


def _windows(piece: np.ndarray, length: int) -> Split:
    count = (len(piece) - 1) // length
    x = piece[: count * length].reshape(count, length).astype(np.int64)
    y = piece[1 : count * length + 1].reshape(count, length).astype(np.int64)
    return Split(torch.from_numpy(x), torch.from_numpy(y))
