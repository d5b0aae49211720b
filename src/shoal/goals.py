"""Goals: what a compression is to reach, as a person types it.

latency<=50%        half the measured latency of the original
params<=1e6, depth<=12        several, with commas; absolute numbers without %
bytes<=1MB          with k, M, G in powers of 1000
memory<=50%         bytes of activations alive at once, at most, while it answers
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from shoal.core.errors import BadSetting, suggest

METRICS: Mapping[str, str] = {"latency": "ms", "params": "", "macs": "", "bytes": "B", "depth": "", "memory": "B"}
_UNITS: Mapping[str, float] = {"": 1, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9}


@dataclass(frozen=True)
class Goal:
    """``metric`` at most ``bound``: a share of the original where ``relative``, else in the metric's unit."""

    metric: str
    bound: float
    relative: bool

    def __str__(self) -> str:
        return f"{self.metric}<={100 * self.bound:g}%" if self.relative else f"{self.metric}<={self.bound:g}"

    def limit(self, original: float) -> float:
        """The largest value that meets the goal."""
        return self.bound * original if self.relative else self.bound


def parse_goals(text: str) -> tuple[Goal, ...]:
    """Read ``"latency<=50%,params<=1e6"``. Raises BadSetting naming the part that cannot be read."""
    goals: list[Goal] = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*([a-z_]+)\s*<=\s*(\d+\.?\d*(?:[eE][+-]?\d+)?)\s*(%|[kKMG]?)(?:B|ms)?\s*", part)
        if not found:
            raise BadSetting(f"goal {part.strip()!r}: write metric<=number or metric<=percent%, such as latency<=50%")
        metric, number, unit = found.groups()
        if metric not in METRICS:
            raise BadSetting(f"goal {part.strip()!r}: metric {metric!r} is unknown; {suggest(metric, METRICS)}")
        relative = unit == "%"
        value = float(number) / 100 if relative else float(number) * _UNITS[unit]
        if value <= 0 or (relative and value >= 1):
            raise BadSetting(f"goal {part.strip()!r}: give a bound above 0 and, in percent, below 100%")
        if metric in {goal.metric for goal in goals}:
            raise BadSetting(f"goal {part.strip()!r}: {metric} is given twice; keep one")
        goals.append(Goal(metric, value, relative))
    return tuple(goals)
