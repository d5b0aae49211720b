"""Specs and artefacts carry a version; older ones are brought up to date here, newer ones refused.

``MIGRATIONS[v]`` turns the JSON of version v into that of v + 1. Raise VERSION with each entry; keep the old.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from shoal.core.errors import BadSpec

VERSION = 2

Json = dict[str, Any]


def _exits_and_own_norms(old: Json) -> Json:
    """Version 1 had neither heads within nor norms of a visit's own."""
    return {**old, "exits": [], "stages": [{**stage, "own_norms": False} for stage in old["stages"]]}


MIGRATIONS: Mapping[int, Callable[[Json], Json]] = {1: _exits_and_own_norms}


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
