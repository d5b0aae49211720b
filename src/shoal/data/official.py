"""Official files of named data, read as plain bytes: idx files, and the binary archive of CIFAR-10.

Nothing is unpickled, and nothing is unpacked to disk.
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from shoal.core.errors import BadData
from shoal.data.npz import interleaved

Arrays = tuple[np.ndarray, ...]  # x_train, y_train, x_test, y_test; or x, y


def read_idx(path: Path) -> np.ndarray:
    """An array of bytes from a gzipped idx file: zero, zero, 8, axes; the sizes, big endian; the bytes."""
    try:
        with gzip.open(path) as file:
            content = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise BadData(f"{path}: cannot be unpacked; delete it, so that it is fetched again") from error
    axes = content[3] if content[:3] == b"\x00\x00\x08" and len(content) > 3 else 0
    start = 4 + 4 * axes
    sizes = np.frombuffer(content[4:start], dtype=">u4").astype(np.int64) if len(content) >= start else np.zeros(0)
    if not axes or int(np.prod(sizes)) != len(content) - start:
        raise BadData(f"{path}: is not an idx file of bytes; delete it, so that it is fetched again")
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape([int(size) for size in sizes])


def _read_idx_files(paths: list[Path]) -> Arrays:
    x_train, y_train, x_test, y_test = (read_idx(path) for path in paths)
    return x_train, y_train.astype(np.int64), x_test, y_test.astype(np.int64)


def _read_cifar(paths: list[Path]) -> Arrays:
    """Records of 1 label byte and 3 x 32 x 32 pixel bytes, in five training files and a test file of the archive."""
    try:
        with tarfile.open(paths[0], "r:gz") as archive:
            held = {Path(item.name).name: item for item in archive.getmembers() if item.isfile()}
            wanted = [f"data_batch_{number}.bin" for number in range(1, 6)] + ["test_batch.bin"]
            blocks = [_member(archive, held[name]) for name in wanted]
    except (OSError, EOFError, KeyError, ValueError, zlib.error, tarfile.TarError) as error:
        raise BadData(f"{paths[0]}: is not the binary CIFAR-10 archive; delete it, so it is fetched again") from error
    x, y = zip(*((block[:, 1:].reshape(-1, 3, 32, 32), block[:, 0].astype(np.int64)) for block in blocks), strict=True)
    train, test = (interleaved(images.swapaxes(0, 1)) for images in (np.concatenate(x[:5]), x[5]))
    return train, np.concatenate(y[:5]), test, y[5]


def _member(archive: tarfile.TarFile, item: tarfile.TarInfo) -> np.ndarray:
    file = archive.extractfile(item)
    if file is None:
        raise ValueError(f"{item.name} is not a file")
    return np.frombuffer(file.read(), dtype=np.uint8).reshape(-1, 1 + 3 * 32 * 32)


READERS: Mapping[str, Callable[[list[Path]], Arrays]] = {
    "mnist": _read_idx_files,
    "fashion_mnist": _read_idx_files,
    "cifar10": _read_cifar,
}
