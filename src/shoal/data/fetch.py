"""Fetch a file once: download beside its place, check it, then rename it there.

What does not match its checksum is deleted, so a file in the cache is whole.
"""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from shoal.core.errors import BadData, BadSetting

log = logging.getLogger("shoal")
Opener = Callable[[str, float], AbstractContextManager[Any]]
PIECE = 1 << 20


def open_address(url: str, timeout: float) -> AbstractContextManager[Any]:
    """Open an http or https address for reading; `timeout` seconds without an answer are an error."""
    if not url.startswith(("http://", "https://")):
        raise BadSetting(f"address {url!r}: only http and https are fetched")
    opened: AbstractContextManager[Any] = urllib.request.urlopen(url, timeout=timeout)
    return opened


def fetch(
    url: str, checksum: str, folder: Path, *, opener: Opener = open_address, timeout: float = 30.0, hint: str = ""
) -> Path:
    """The file of `url` in `folder`, downloaded unless it is there with its checksum ("md5:..." or "sha256:...").

    `hint` is added to errors as one more way out. Raises BadData when it cannot be had whole.
    """
    place = folder / url.rsplit("/", 1)[-1]
    fix = f"put the file at {place}{hint}"
    if place.is_file() and _digest(place, checksum) == checksum:
        return place
    log.info("fetching %s to %s", url, place)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, beside = tempfile.mkstemp(dir=folder, prefix=place.name, suffix=".part")
    except OSError as error:
        raise BadData(
            f"{folder}: cannot be written ({error.strerror}); set SHOAL_CACHE to a folder of yours"
        ) from error
    part = Path(beside)
    try:
        with os.fdopen(handle, "wb") as file:
            _download(url, file, opener, timeout, fix)
        if _digest(part, checksum) != checksum:
            raise BadData(f"{url}: what came has not the checksum {checksum}; try again, or {fix}")
        part.replace(place)
    finally:
        part.unlink(missing_ok=True)
    return place


def _download(url: str, file: Any, opener: Opener, timeout: float, fix: str) -> None:
    try:
        with opener(url, timeout) as answer:
            length = answer.headers.get("Content-Length")
            while piece := answer.read(PIECE):
                file.write(piece)
    except (OSError, http.client.HTTPException) as error:  # OSError: no such host, no answer, 404, disk full
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        why = error.reason if type(error) is urllib.error.URLError else error
        raise BadData(f"{url}: cannot be fetched ({why}); go online, or {fix}") from error
    if length is not None and file.tell() != int(length):
        raise BadData(f"{url}: cut short, {file.tell()} of {length} bytes; try again, or {fix}")


def _digest(path: Path, checksum: str) -> str:
    """The digest of a file, written as `checksum` is: by the algorithm that it names."""
    algorithm, _, expected = checksum.partition(":")
    if algorithm not in ("md5", "sha256") or not expected:
        raise BadSetting(f"checksum {checksum!r}: expected md5:... or sha256:...")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False))
    return f"{algorithm}:{digest.hexdigest()}"
