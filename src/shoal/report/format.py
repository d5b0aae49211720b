"""Format: numbers as people read them: 1.23 M, 0.46 ms, 98.3% [97.1, 99.2], 0.41x [0.40, 0.42]."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SCALES = (("", 1.0), ("k", 1e3), ("M", 1e6), ("G", 1e9), ("T", 1e12))
PERCENT = ("%", "pt")  # the units whose numbers are fractions


def count(number: float) -> str:
    """``9,408``, ``12.3 k``, ``1.23 M``."""
    if abs(number) < 10_000:
        return f"{number:,.0f}"
    sign, word = _scaled(number)
    return f"{sign} {word}"


def size(number: float) -> str:
    """Bytes: ``512 B``, ``4.1 kB``, ``1.23 MB``."""
    digits, word = _scaled(number) if abs(number) >= 1000 else (f"{number:.0f}", "")
    return f"{digits} {word}B"


def milliseconds(number: float) -> str:
    """``0.46 ms``, ``12.3 ms``, ``4.2 µs``."""
    return f"{number * 1000:.2g} µs" if 0 < number < 0.01 else f"{bare_ms(number)} ms"


def bare_ms(number: float) -> str:
    """Milliseconds without their unit, for a column that names it: ``0.46``, ``12.3``, ``120``."""
    return f"{number:.3f}" if number < 0.1 else f"{number:.2f}" if number < 10 else f"{number:.1f}"


def seconds(number: float) -> str:
    """``4.2 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if number < 60:
        return f"{number:.1f} s"
    minutes, rest = divmod(round(number), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def amount(value: float, unit: str) -> str:
    """A number in the unit of an Evidence: fractions as percent or points, ``x`` for a ratio."""
    if unit == "%":
        return f"{_whole(100 * value, 1)}%"
    if unit == "pt":
        return f"{100 * value:+.1f} pt"
    return f"{value:.2f}x" if unit == "x" else f"{value:.4g}{unit}"


def interval(evidence: Mapping[str, Any]) -> str:
    """``[97.1, 99.2]``, in the unit of the number before it."""
    unit = evidence.get("unit", "")
    form, scale = ("{:.1f}", 100) if unit == "%" else ("{:+.1f}", 100) if unit == "pt" else ("{:.4g}", 1)
    form = "{:.2f}" if unit == "x" else form
    return f"[{form.format(scale * evidence['low'])}, {form.format(scale * evidence['high'])}]"


def evidence(found: Mapping[str, Any]) -> str:
    """``98.3% [97.1, 99.2]``."""
    return f"{amount(found['value'], found.get('unit', ''))} {interval(found)}"


def metric(name: str, value: float) -> str:
    """A measured figure, by the name of what was measured."""
    if name == "latency":
        return milliseconds(value)
    return size(value) if name in ("bytes", "memory") else count(value)


def _whole(number: float, digits: int) -> str:
    return f"{number:.{digits}f}"


def _scaled(number: float) -> tuple[str, str]:
    """Three digits and the letter of their scale."""
    word, scale = next(((w, s) for w, s in SCALES if abs(number) < 999.5 * s), SCALES[-1])
    value = number / scale
    return (f"{value:.2f}" if abs(value) < 9.995 else f"{value:.1f}" if abs(value) < 99.95 else f"{value:.0f}"), word
