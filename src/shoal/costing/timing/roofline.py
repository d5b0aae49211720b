"""Roofline: the least time that some work can take on this machine, by what the machine was measured to do at best.

    seconds  >=  multiply-adds / peak          seconds  >=  bytes moved / bandwidth

Peak is that of float32 matrix products. The bandwidth depends on how much is moved: what fits into a cache is moved
many times faster than what comes from main memory. A layer is bound by the one that takes longer; or by neither, where
calling its operations at all takes longer than both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from math import inf
from statistics import mean
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from shoal.core.errors import BadSetting
from shoal.costing.timing.latency import pinned

_SIDES, _LARGE = (128, 256, 512, 1024, 2048), 512  # of the matrices that are multiplied; those above if time allows
_ARRAYS = tuple(2**power for power in range(15, 28, 2))  # bytes of what is moved: the last are far larger than caches
_FEWEST = 3  # times that everything is run


@dataclass(frozen=True)
class Roof:
    """What this machine does at best with that many threads: multiply-adds and bytes (read and written) a second.

    `bytes_per_s` is that of main memory. `caches` has pairs of bytes and bytes a second, from small to large: so fast
    is moved what is at least so large. `call_s` is what calling one small operation in a module takes.
    """

    macs_per_s: float
    bytes_per_s: float
    threads: int
    call_s: float = 0.0
    caches: tuple[tuple[int, float], ...] = ()

    def compute(self, macs: int) -> float:
        """Seconds that so many multiply-adds take at the peak."""
        return macs / self.macs_per_s

    def memory(self, moved: int) -> float:
        """Seconds that moving so many bytes takes at the bandwidth of the cache that they may be in."""
        rate = self.bytes_per_s if not self.caches else self.caches[0][1]
        for size, faster in self.caches:
            rate = faster if moved >= size else rate
        return moved / rate

    def bound(self, macs: int, moved: int) -> float:
        """Seconds at least needed for so many multiply-adds on so many bytes."""
        return max(self.compute(macs), self.memory(moved))

    def to_json(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)


@dataclass(frozen=True)
class Bound:
    """The least that some operations one after another take: seconds in all, and what takes the most of the time."""

    seconds: float
    by: str


def bound_of(roof: Roof, operations: Iterable[tuple[int, int]]) -> Bound:
    """The bound of operations, each given by its multiply-adds and the bytes that it moves.

    `by` is compute, memory or overhead (of nothing at all, too). Overhead is no part of the seconds: it goes where
    operations are fused.
    """
    spent = {"overhead": 0.0, "compute": 0.0, "memory": 0.0}
    for macs, moved in operations:
        compute, memory = roof.compute(macs), roof.memory(moved)
        spent["compute" if compute >= memory else "memory"] += max(compute, memory)
        spent["overhead"] += roof.call_s
    return Bound(spent["compute"] + spent["memory"], max(spent, key=lambda name: spent[name]))


def measure_roof(threads: int | None = None, *, seconds: float = 1.0) -> Roof:
    """Measure this machine for about that many seconds: the best of each, for a roof is what is possible at all.

    `threads` are pinned while measuring; None: as many as torch uses now. Raises BadSetting for settings out of range.
    """
    if not seconds > 0 or (threads is not None and threads < 1):
        raise BadSetting(f"roofline: seconds={seconds}, threads={threads}: both must be above 0")
    with pinned(threads) as count, torch.inference_mode():
        peak = _peak(0.4 * seconds)
        rates = [(2 * size, _bandwidth(size, 0.4 * seconds / len(_ARRAYS))) for size in _ARRAYS]
        call = _call(0.2 * seconds)
    caches = tuple((size, max(rate for _, rate in rates[at:])) for at, (size, _) in enumerate(rates))
    return Roof(peak, rates[-1][1], count, call, caches)


def _peak(seconds: float) -> float:
    """Multiply-adds a second of square matrices, in the best size."""
    best, until = 0.0, perf_counter() + seconds
    for side in _SIDES:
        if side > _LARGE and (1 + _FEWEST) * side**3 / best > until - perf_counter():
            break
        left, right, out = (torch.randn(side, side) for _ in range(3))
        [took] = _shortest([partial(torch.mm, left, right, out=out)], seconds / len(_SIDES))
        best = max(best, side**3 / took)
    return best


def _bandwidth(size: int, seconds: float) -> float:
    """Bytes a second, read and written, of arrays of that many bytes: copied, added and scaled; the best."""
    x, y = torch.ones(size // 4), torch.ones(size // 4)
    copied, added, scaled = _shortest([partial(y.copy_, x), partial(y.add_, x), partial(x.mul_, 1.0)], seconds)
    return max(2 * size / copied, 3 * size / added, 2 * size / scaled)


def _call(seconds: float) -> float:
    """Seconds a call of small modules that hold one operation each."""
    modules: list[tuple[nn.Module, Tensor]] = [
        (nn.Conv2d(4, 4, 3, padding=1), torch.ones(1, 4, 4, 4)),
        (nn.Linear(4, 4), torch.ones(1, 4)),
        (nn.LayerNorm(4), torch.ones(1, 4)),
        (nn.ReLU(), torch.ones(1, 4)),
    ]
    return mean(_shortest([partial(module, x) for module, x in modules], seconds))


def _shortest(calls: Sequence[Callable[[], object]], seconds: float) -> list[float]:
    """The shortest that each call took. They take turns, so that a slow spell of the machine hits none alone."""
    for call in calls:
        call()
    found, done, until = [inf] * len(calls), 0, perf_counter() + seconds
    while done < _FEWEST or perf_counter() < until:
        done += 1
        for at, call in enumerate(calls):
            begun = perf_counter()
            call()
            found[at] = min(found[at], perf_counter() - begun)
    return found
