"""Listed: several methods named in one option, and sizes in bytes, as people write them."""

from __future__ import annotations

import re

from shoal.core.errors import BadSetting, BadSpec
from shoal.core.part import Reader

UNITS = {"b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9}


def listed(text: str, option: str) -> list[str]:
    """The methods in ``skip,loop[times=3]``, as text; none in nothing. Raises BadSetting where it cannot be read."""
    reader, found = Reader(text), list[str]()
    if not text.strip():
        return found
    try:
        found.append(str(reader.part()))
        while reader.take(","):
            found.append(str(reader.part()))
        reader.end()
    except BadSpec as error:
        raise BadSetting(f"{option} {text!r}: is no list of names ({error}); write skip,loop[times=3]") from error
    return found


def size(text: str, option: str) -> float:
    """The bytes in ``64MB`` or ``2GB``. Raises BadSetting for anything else."""
    found = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*([kmg]?b)\s*", text, re.IGNORECASE)
    if not found or not float(found[1]):
        raise BadSetting(f"{option} {text!r}: is no size; write a number above 0 and a unit: 64MB or 2GB")
    return float(found[1]) * UNITS[found[2].lower()]
