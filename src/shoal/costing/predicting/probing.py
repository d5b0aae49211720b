"""Probing: what this machine does with operations and small nets of many sizes, timed once and kept for later.

A shared machine changes its speed by half within a second. So nothing is timed alone: every time is taken as a multiple
of a reference convolution that runs just before and just after, and the multiple is told in milliseconds by the median
of all times of the reference.
"""

from __future__ import annotations

import itertools
import json
import os
import platform
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shoal.core.errors import BadData, BadSetting
from shoal.costing.counting.count import cost
from shoal.costing.predicting.draws import DRAWS, Draw, nets
from shoal.costing.predicting.kernels import FEWEST, Kernels, Sample, family_of, kernels_of, sizes_of
from shoal.costing.predicting.latency_model import LatencyModel, fit
from shoal.costing.table import Cost
from shoal.costing.timing.latency import pinned
from shoal.costing.timing.runtimes import RUNTIMES, runner
from shoal.net import Net

LONGEST = 120.0  # seconds that a probe may take
_VERSION = 1  # of the file
_SHARES = {"convolution": 0.3, "product": 0.15, "attention": 0.1, "other": 0.1}  # of the seconds; the rest is for nets


@dataclass(frozen=True)
class Probed:
    """What a probe found, and on what: operations in eager mode, and what they weigh within nets in the runtime."""

    machine: str
    torch: str
    threads: int
    runtime: str
    seconds: float
    unit_ms: float
    samples: tuple[Sample, ...]
    weights: tuple[float, ...]
    errors: tuple[float, ...]

    def model(self) -> LatencyModel:
        """The model that was learned."""
        return LatencyModel(Kernels(self.samples), self.weights, self.errors)

    def write(self, path: Path) -> None:
        """As JSON, beside and then in its place."""
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(f".{os.getpid()}.partial")
        beside.write_text(json.dumps({"version": _VERSION, **asdict(self)}), encoding="utf-8")
        beside.replace(path)

    @classmethod
    def read(cls, path: Path) -> Probed:
        """The inverse of :meth:`write`. Raises BadData for a file that is damaged or of another version."""
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            if data.pop("version") != _VERSION:
                raise ValueError("it is of another version")
            samples = tuple(Sample(**{**one, "sizes": tuple(one["sizes"])}) for one in data.pop("samples"))
            return cls(
                **{**data, "samples": samples, "weights": tuple(data["weights"]), "errors": tuple(data["errors"])}
            )
        except (ValueError, KeyError, TypeError) as error:
            raise BadData(f"{path}: not what shoal probe writes ({error}); run shoal probe again") from None


def machine_name() -> str:
    """The processor's name, as the system tells it."""
    told = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", told.read_text("utf-8"), re.MULTILINE) if told.exists() else None
    return found[1].strip() if found else platform.processor() or platform.machine()


def probe_file(runtime: str, threads: int) -> Path:
    """Where a probe of this machine is kept: $SHOAL_CACHE or ~/.cache/shoal, by processor, threads and torch."""
    given = os.environ.get("SHOAL_CACHE")
    folder = Path(given) if given else Path.home() / ".cache" / "shoal"
    words = f"{machine_name()} {threads} threads torch {torch.__version__} {runtime}"
    return folder / "probes" / (re.sub(r"[^A-Za-z0-9.]+", "-", words) + ".json")


def probe(
    runtime: str = "eager",
    *,
    threads: int | None = None,
    seconds: float = 100.0,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> Probed:
    """Time operations and small nets for about that many seconds, and keep what was found in the cache.

    `threads` None: as many as torch uses now. A few operations of each family and a few nets are timed in any case.
    Operations are timed in eager mode whatever the runtime; where that was done before, all the time is for the nets,
    each of which has to be compiled or exported. Raises BadSetting for settings out of range.
    """
    if runtime not in RUNTIMES:
        raise BadSetting(f"runtime {runtime!r}: not known; give one of {', '.join(RUNTIMES)}")
    if not 0 < seconds <= LONGEST:
        raise BadSetting(f"seconds={seconds}: a probe takes more than 0 and at most {LONGEST:g}")
    say, chance, began = progress or (lambda line: None), random.Random(seed), time.perf_counter()
    with pinned(threads) as count, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        clock, known = Clock(), probe_file("eager", count)
        if runtime != "eager" and known.exists():
            samples = Probed.read(known).samples
            say(f"{len(samples)} operations were timed before, by the probe of eager mode")
        else:
            samples = _timed_operations(chance, clock, seconds, say)
        whole = list(_timed_nets(chance, clock, runtime, count, began + seconds))
        say(f"{len(whole)} nets timed in {runtime}")
    unit = clock.unit()
    weights, errors = fit([found for found, _ in whole], [ratio * unit for _, ratio in whole], Kernels(samples))
    took = time.perf_counter() - began
    found = Probed(machine_name(), torch.__version__, count, runtime, took, unit, samples, weights, errors)
    found.write(probe_file(runtime, count))
    return found


class Clock:
    """Times calls as multiples of a reference that runs around them."""

    def __init__(self) -> None:
        x, weight = torch.randn(1, 16, 16, 16), torch.randn(16, 16, 3, 3)
        self._reference = partial(F.conv2d, x, weight, padding=1)
        self._seen: list[float] = []
        for _ in range(50):
            self._tick()
        self._seen.clear()

    def unit(self) -> float:
        """The median of all times of the reference, in milliseconds."""
        return median(self._seen)

    def ratio(self, calls: Sequence[Callable[[], object]], rounds: int = 1, budget: float = 0.004) -> float:
        """How many times as long as the reference a call takes, the calls taken in turn; the median over rounds.

        A round takes the calls for `budget` seconds, three of them at least; the first three of all are to warm up.
        """
        turn = itertools.cycle(calls)
        for _ in range(3):
            next(turn)()
        found = []
        for _ in range(rounds):
            times: list[float] = []
            before, end = self._tick(), time.perf_counter() + budget
            while len(times) < 3 or time.perf_counter() < end:
                start = time.perf_counter()
                next(turn)()
                times.append(time.perf_counter() - start)
            after = self._tick()
            found.append(median(times) * 1e3 / ((before + after) / 2))
        return median(found)

    def _tick(self) -> float:
        times = []
        for _ in range(5):
            start = time.perf_counter()
            self._reference()
            times.append(time.perf_counter() - start)
        found = median(times) * 1e3
        self._seen.append(found)
        return found


class _Call(nn.Module):
    """A function as a module, so that its operations can be counted."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Tensor) -> Tensor:
        return self.function(*args)


def _timed_operations(
    chance: random.Random, clock: Clock, seconds: float, say: Callable[[str], None]
) -> tuple[Sample, ...]:
    """Operations of every family, each family for its share of the seconds."""
    until = time.perf_counter()
    timed: list[tuple[Sample, float]] = []
    for family, share in _SHARES.items():
        until += seconds * share
        own = list(_sampled(DRAWS[family](chance), clock, until))
        say(f"{family}: {len(own)} operations timed")
        timed += own
    unit = clock.unit()
    return tuple(replace(one, ms=ratio * unit) for one, ratio in timed)


def _sampled(draws: Iterator[Draw], clock: Clock, until: float) -> Iterator[tuple[Sample, float]]:
    """Operations with their time in units of the reference, until the time is up; enough to learn from."""
    for done, draw in enumerate(draws):
        if done >= FEWEST and time.perf_counter() > until:
            return
        empty = tuple(given.to("meta") for given in draw.arguments)  # counted without computing
        found = kernels_of(cost(_Call(draw.function), empty, training=False))
        if len(found) != 1:
            raise BadSetting(f"probe: {draw.function} is {len(found)} operations; their times cannot be told apart")
        with torch.inference_mode():
            ratio = clock.ratio(draw.calls())
        yield Sample(family_of(found[0]), found[0].name, sizes_of(found[0], draw.pool), 0.0), ratio


def _timed_nets(
    chance: random.Random, clock: Clock, runtime: str, threads: int, until: float
) -> Iterator[tuple[Cost, float]]:
    """What nets cost, and their time in units of the reference, until the time is up; enough to learn from."""
    for done, (spec, shape) in enumerate(nets(chance)):
        if done >= FEWEST and time.perf_counter() > until:
            return
        net, x = Net(spec).eval(), torch.randn(shape)
        yield cost(net, x, training=False), clock.ratio([runner(net, x, runtime, threads)], rounds=9, budget=0.02)
