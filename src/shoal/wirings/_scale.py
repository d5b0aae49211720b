"""How much of what a layer gives is added: the setting that the wirings ``scaled`` and ``expansion`` share."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

from shoal.core.errors import BadSetting

Scale: TypeAlias = float | Literal["one", "mean", "root"]


def scale_at(scale: Scale, depth: int, wiring: str) -> float:
    """The number: "one" is 1, "mean" 1 / depth, "root" 1 / sqrt(depth), a number itself."""
    named = {"one": 1.0, "mean": 1 / depth, "root": depth**-0.5}
    value = named[scale] if isinstance(scale, str) else float(scale)
    if not math.isfinite(value):
        raise BadSetting(f"wiring {wiring}: scale={scale} is no finite number; give one, mean, root or a number")
    return value
