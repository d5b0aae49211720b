"""What every bench needs: two things timed side by side, a table, a JSON file.

The machine is shared and its speed drifts, so nothing is timed alone. A block is a, b, a, b ... (the first to go
changes from block to block), one median each; a comparison is many blocks, and its ratio the median of their ratios,
with the bootstrap interval of ``shoal.evidence.ratio_of_medians``. With one thread the clock is the processor time of
that thread, which neighbours cannot take away; with more it is the wall's, and the machine's load is written beside it.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from shoal.evidence import Evidence, ratio_of_medians

RESULTS = Path(__file__).parent / "results"
FEWEST, WARM, BLOCK = 12, 3, 0.2  # blocks, calls before the first, seconds of one side in a block

Call = Callable[[], object]


@dataclass(frozen=True)
class Pair:
    """Milliseconds a call of a and b, medians over all blocks, and how many times as long as a b takes."""

    a_ms: float
    b_ms: float
    ratio: Evidence
    clock: str

    @property
    def shown(self) -> str:
        """``1.012 [0.998, 1.023]``."""
        return f"{self.ratio.value:.3f} [{self.ratio.low:.3f}, {self.ratio.high:.3f}]"

    def verdict(self, limit: float) -> str:
        """Whether the ratio is at most that: ok, MISSED, or unclear where the interval holds the limit."""
        return "ok" if self.ratio.high <= limit else "MISSED" if self.ratio.low > limit else "unclear"


def side_by_side(a: Call, b: Call, threads: int, width: float = 0.02, seconds: float = 30.0) -> Pair:
    """Time a and b in interleaved blocks until the interval of the ratio is that narrow or the seconds have run out."""
    clock = time.thread_time if threads == 1 else time.perf_counter
    for _ in range(WARM):
        a(), b()
    calls = min(25, max(1, int(BLOCK / _timed(a, clock))))
    pairs: list[tuple[float, float]] = []
    until = time.perf_counter() + seconds
    while True:
        one, two = ((a, b), (b, a))[len(pairs) % 2]
        times = [(_timed(one, clock), _timed(two, clock)) for _ in range(calls)]
        first, second = (statistics.median(column) for column in zip(*times, strict=True))
        pairs.append((first, second) if one is a else (second, first))
        if len(pairs) < FEWEST or len(pairs) % 4:  # whole rounds: each side goes first as often
            continue
        of_a, of_b = zip(*pairs, strict=True)
        ratio = ratio_of_medians(of_b, of_a, paired=True)
        if ratio.high - ratio.low <= width or time.perf_counter() > until:
            break
    medians = (statistics.median(of_a) * 1e3, statistics.median(of_b) * 1e3)
    return Pair(*medians, ratio, "cpu" if threads == 1 else "wall")


def _timed(call: Call, clock: Callable[[], float]) -> float:
    start = clock()
    call()
    return clock() - start


def show(title: str, rows: Sequence[dict[str, Any]]) -> None:
    """Print rows as a table; the keys of the first are its head."""
    table = Table(title=title)
    for key in rows[0]:
        table.add_column(key, no_wrap=True, justify="left" if isinstance(rows[0][key], str) else "right")
    for row in rows:
        table.add_row(*(f"{x:.3f}" if isinstance(x, float) else str(x) for x in row.values()))
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def write(name: str, rows: Sequence[dict[str, Any]], **about: Any) -> Path:
    """``results/<name>.json``: the rows, and where and when they were measured."""
    machine = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "load": os.getloadavg()[0],
    }
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    date = datetime.now(UTC).isoformat(timespec="seconds")
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    beside = path.with_suffix(".tmp")
    beside.write_text(json.dumps({"date": date, "machine": machine, **versions, **about, "rows": list(rows)}, indent=1))
    beside.replace(path)
    return path


def _processor() -> str:
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
