"""The step of a join."""

from __future__ import annotations

from shoal.core.errors import BadSetting


def require_stride(name: str, stride: int) -> None:
    """Raise BadSetting unless the join of that name goes forward."""
    if stride < 1:
        raise BadSetting(f"join {name}: stride={stride} goes nowhere; give at least 1")
