"""Files: hashes, JSON that shows when it was touched, and writing beside before renaming.

Nothing is ever half written: a folder or a file is made under another name in the same place and then renamed.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shoal.core.errors import BadArtifact

SEAL = "seal"
OURS = ("shoal.json", "checkpoint.safetensors")  # a folder that holds one of these may be replaced


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def plain(data: Any, at: str = "report") -> Any:
    """The same as bare JSON. Raises BadArtifact for what JSON cannot hold, naming its place: nan, infinity, objects."""
    if data is None or isinstance(data, bool | int | str):
        return data
    if isinstance(data, float):
        if not math.isfinite(data):
            raise BadArtifact(f"{at}: is {data}, which JSON cannot hold; put null (None) where there is no number")
        return data
    if isinstance(data, Mapping):
        return {str(key): plain(value, f"{at}.{key}") for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [plain(value, f"{at}[{index}]") for index, value in enumerate(data)]
    raise BadArtifact(f"{at}: is a {type(data).__name__}, which JSON cannot hold; give numbers, words, lists, mappings")


def render(data: Mapping[str, Any]) -> str:
    """JSON as it is written here: sorted, so that the same facts are the same bytes."""
    return json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def sealed(data: Mapping[str, Any]) -> str:
    """:func:`render` with a hash of everything else under ``seal``."""
    return render({**data, SEAL: _seal(data)})


def unsealed(path: Path) -> dict[str, Any]:
    """The inverse of :func:`sealed`, from a file. Raises BadArtifact where it is no JSON, or was changed."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise BadArtifact(f"{path}: is truncated or damaged ({_first(error)}); save it again") from error
    if not isinstance(data, dict) or not isinstance(data.get(SEAL), str):
        raise BadArtifact(f"{path}: carries no seal; it was not written by shoal, or it is damaged; save it again")
    found = data.pop(SEAL)
    if found != _seal(data):
        raise BadArtifact(f"{path}: was changed: seal {found[:8]}, its content gives {_seal(data)[:8]}; save it again")
    return data


def _seal(data: Mapping[str, Any]) -> str:
    return hashlib.sha256(render(data).encode()).hexdigest()


def _first(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextmanager
def new_folder(folder: Path, overwrite: bool) -> Iterator[Path]:
    """An empty folder beside `folder`, which takes its place if all goes well and vanishes if not.

    Raises BadArtifact where `folder` holds something: without `overwrite` always, with it unless shoal wrote it.
    """
    _check_free(folder, overwrite)
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside, old = _beside(folder, "partial"), _beside(folder, "old")
    beside.mkdir()
    try:
        yield beside
        if folder.exists():
            folder.rename(old)
        try:
            beside.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)


def _check_free(folder: Path, overwrite: bool) -> None:
    if not folder.exists() and not folder.is_symlink():
        return
    if not folder.is_dir() or folder.is_symlink():
        raise BadArtifact(f"{folder}: is no folder; give the name of a new one")
    if not any(folder.iterdir()):
        return
    if not overwrite:
        raise BadArtifact(f"{folder}: exists already; give another folder, or replace it with --overwrite")
    if not any((folder / name).is_file() for name in OURS):
        raise BadArtifact(f"{folder}: was not written by shoal and is not overwritten; give another folder")


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A file name beside `path`, of the same ending, which takes its place if all goes well and vanishes if not."""
    if path.is_dir():
        raise BadArtifact(f"{path}: is a folder; give the name of a file")
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = _beside(path, "partial").with_suffix(path.suffix)
    try:
        yield beside
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def _beside(path: Path, word: str) -> Path:
    return path.parent / f".{path.name}-{word}-{secrets.token_hex(4)}"
