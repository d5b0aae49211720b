"""Specs and artefacts carry a version; older ones are brought up to date here, newer ones refused.

``MIGRATIONS[v]`` turns the JSON of version v into that of v + 1. Raise VERSION with each entry; keep the old.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from shoal.core.errors import BadSpec

VERSION = 1

Json = dict[str, Any]

MIGRATIONS: Mapping[int, Callable[[Json], Json]] = {}


def migrate(
    data: Mapping[str, Any], version: int = VERSION, steps: Mapping[int, Callable[[Json], Json]] = MIGRATIONS
) -> Json:
    """The same JSON at ``version``. Raises BadSpec where it has no version, a newer one, or one too old to read."""
    found = data.get("version")
    if not isinstance(found, int) or isinstance(found, bool):
        raise BadSpec("spec: no version in it; it was not written by shoal, or it is damaged")
    if found > version:
        raise BadSpec(f"spec: version {found} is newer than this shoal reads ({version}); upgrade shoal")
    out = dict(data)
    for step in range(found, version):
        if step not in steps:
            raise BadSpec(f"spec: version {found} can no longer be read; open it with an older shoal and save it again")
        out = {**steps[step](out), "version": step + 1}
    return out
