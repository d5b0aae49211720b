"""Data by name: digits comes with scikit-learn; mnist, fashion_mnist and cifar10 are looked for, then fetched.

    1  $SHOAL_DATA, else ../shared/data of the current folder where there is one: mnist.npz, fashion_mnist.npz,
       cifar10_train_a.npz, cifar10_train_b.npz and cifar10_test.npz (differences of pixels)
    2  $SHOAL_CACHE, else ~/.cache/shoal: the official files, fetched once from their addresses

The official files are read as plain bytes; nothing is unpickled.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shoal.core.errors import BadData, suggest
from shoal.data.arrays import open_arrays
from shoal.data.dataset import Dataset
from shoal.data.fetch import fetch
from shoal.data.npz import from_delta, read_npz
from shoal.data.official import READERS, Arrays


@dataclass(frozen=True)
class Address:
    """Where an official file is, and its published checksum."""

    url: str
    checksum: str


_MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist"
_FASHION = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
ADDRESSES: Mapping[str, tuple[Address, ...]] = {
    "mnist": (
        Address(f"{_MNIST}/train-images-idx3-ubyte.gz", "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873"),
        Address(f"{_MNIST}/train-labels-idx1-ubyte.gz", "md5:d53e105ee54ea40749a09fcbcd1e9432"),
        Address(f"{_MNIST}/t10k-images-idx3-ubyte.gz", "md5:9fb629c4189551a2d022fa330f9573f3"),
        Address(f"{_MNIST}/t10k-labels-idx1-ubyte.gz", "md5:ec29112dd5afa0611ce80d1b7f02629c"),
    ),
    "fashion_mnist": (
        Address(f"{_FASHION}/train-images-idx3-ubyte.gz", "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
        Address(f"{_FASHION}/train-labels-idx1-ubyte.gz", "md5:25c81989df183df01b3e8a0aad5dffbe"),
        Address(f"{_FASHION}/t10k-images-idx3-ubyte.gz", "md5:bef4ecab320f06d8554ea6380940ec79"),
        Address(f"{_FASHION}/t10k-labels-idx1-ubyte.gz", "md5:bb300cfdad3c16e7a12a480ee83cd310"),
    ),
    "cifar10": (
        Address("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", "md5:c32a1d4ab5d03f1284b67883e8d87530"),
    ),
}
CLASSES: Mapping[str, tuple[str, ...] | None] = {
    "digits": None,
    "mnist": None,
    "fashion_mnist": (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
}
FILES: Mapping[str, tuple[str, ...]] = {
    "mnist": ("mnist.npz",),
    "fashion_mnist": ("fashion_mnist.npz",),
    "cifar10": ("cifar10_train_a.npz", "cifar10_train_b.npz", "cifar10_test.npz"),
}
NAMES = tuple(CLASSES)
DIGITS_TEST = 0.4  # the same rows for every seed, and enough of them to tell a point; the set itself has no test part


def open_named(
    name: str,
    *,
    seed: int,
    task: str | None = None,
    as_given: bool = False,
    folder: Path | None = None,
    cache: Path | None = None,
    addresses: Mapping[str, tuple[Address, ...]] = ADDRESSES,
) -> Dataset:
    """Open data by name; `folder` and `cache` stand for the places of step 1 and 2. Raises BadData."""
    if name not in NAMES:
        raise BadData(f"data {name!r}: unknown; {suggest(name, NAMES)}")
    arrays = _digits() if name == "digits" else _find(name, folder or data_folder(), cache, addresses)
    return open_arrays(arrays, name=name, seed=seed, task=task, as_given=as_given, classes=CLASSES[name])


def data_folder() -> Path | None:
    """$SHOAL_DATA, else ../shared/data of the current folder, else None. BadData where the variable names no folder."""
    given = os.environ.get("SHOAL_DATA")
    if given:
        if not Path(given).is_dir():
            raise BadData(f"SHOAL_DATA {given!r}: no such folder; correct or unset the variable")
        return Path(given)
    beside = Path.cwd().parent / "shared" / "data"
    return beside if beside.is_dir() else None


def cache_folder() -> Path:
    """$SHOAL_CACHE, else ~/.cache/shoal."""
    given = os.environ.get("SHOAL_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "shoal"


def _digits() -> Arrays:
    from sklearn.datasets import load_digits  # slow to import, and only needed here

    images, labels = load_digits(return_X_y=True)
    pixels = np.round(images.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    order = np.random.default_rng(0).permutation(len(labels))
    rest, test = np.split(order, [int((1 - DIGITS_TEST) * len(order))])
    classes = labels.astype(np.int64)
    return pixels[rest], classes[rest], pixels[test], classes[test]


def _find(name: str, folder: Path | None, cache: Path | None, addresses: Mapping[str, tuple[Address, ...]]) -> Arrays:
    files = [folder / file for file in FILES[name]] if folder else []
    if files and all(file.is_file() for file in files):
        return _read_folder(files)
    keep = (cache or cache_folder()) / name
    hint = f", or set SHOAL_DATA to a folder with {', '.join(FILES[name])}"
    official = [fetch(address.url, address.checksum, keep, hint=hint) for address in addresses[name]]
    return READERS[name](official)


def _read_folder(files: list[Path]) -> Arrays:
    with ThreadPoolExecutor() as pool:  # unpacking is most of the time, and releases the interpreter
        found = list(pool.map(_read_one, files))
    if len(found) == 1:
        return found[0]
    (x_a, y_a), (x_b, y_b), (x_test, y_test) = found
    return np.concatenate([x_a, x_b]), np.concatenate([y_a, y_b]), x_test, y_test


def _read_one(file: Path) -> Arrays:
    found = read_npz(file)
    keys = ("delta", "y") if "delta" in found else ("x_train", "y_train", "x_test", "y_test")
    absent = [key for key in keys if key not in found]
    if absent:
        raise BadData(f"{file}: has no array {absent[0]}; it is not the file expected under this name")
    return tuple(from_delta(found[key]) if key == "delta" else found[key] for key in keys)
