"""Latency: how long a call takes on this machine, and how much longer than another, side by side.

A machine's speed drifts, so two times measured one after the other say little. Here the contestants alternate in short
bursts, in random order; the first sample of a burst is dropped, for it pays for the other's use of the caches. Each
pair of bursts gives one ratio, and the interval comes from drawing runs of neighbouring ratios again.

    round 1: A A A A | B B B B      round 2: B B B B | A A A A      ...      ratio = median of (A / B) over rounds
"""

from __future__ import annotations

import gc
import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from statistics import median
from time import perf_counter_ns
from typing import Any

import numpy as np
import torch
from torch import nn

from shoal.core.errors import BadModel, BadSetting, suggest
from shoal.core.example import arguments, evaluating, failed
from shoal.costing.runtimes import Run, runner
from shoal.evidence import Evidence, ratio_of_medians

_ROUNDS = 200  # bursts of each contestant, when the budget has room for them: slow spells last some 20 ms, bursts less
_FEWEST = 12  # and when it has not
_SHORTEST = 50_000  # ns: calls below this are timed several at once


@dataclass(frozen=True)
class Spread:
    """Milliseconds a call: median, 10th and 90th percentile of `n` samples, each the mean of `repeats` calls."""

    median: float
    p10: float
    p90: float
    n: int
    repeats: int

    def __str__(self) -> str:
        return f"{self.median:.4g} ms [{self.p10:.4g}, {self.p90:.4g}] n={self.n}"


@dataclass(frozen=True)
class Latency(Spread):
    """A spread, with what it was measured on, and against what.

    `ratio` says how many times as long the module takes as `against`; None when nothing was given to compare with. Its
    n counts rounds, not calls.
    """

    runtime: str = "eager"
    threads: int = 1
    against: Spread | None = None
    ratio: Evidence | None = None

    @property
    def separable(self) -> bool:
        """Whether the two differ: the interval of the ratio leaves out 1."""
        return self.ratio is not None and not self.ratio.low <= 1 <= self.ratio.high

    def __str__(self) -> str:
        text = f"{Spread.__str__(self)}, {self.runtime}, {self.threads} threads"
        if self.ratio is None:
            return text
        return f"{text}; {self.ratio} of {self.against}" + ("" if self.separable else ", not separable")

    def to_json(self) -> dict[str, Any]:
        """The fields by name, and `separable`."""
        return {**asdict(self), "separable": self.separable}


def latency(
    module: nn.Module,
    example: Any,
    against: nn.Module | tuple[nn.Module, Any] | None = None,
    *,
    runtime: str = "eager",
    threads: int | None = None,
    seconds: float = 1.0,
) -> Latency:
    """Time a module on an example, alone or against another, in eval mode without gradients.

    `example` is a tensor, a tuple of arguments or a dict of keyword arguments. `against` is a module for the same
    example, or a pair (module, example). `runtime` is eager, compile or onnxruntime. `threads` are pinned while
    measuring; None: as many as torch uses now. `seconds` is the time to measure each contestant for; warming up takes
    up to half of it again, building (compile, export) comes on top, and calls longer than a twelfth of it exceed it.
    Raises BadSetting for settings out of range, BadModel when a module does not run.
    """
    if not seconds > 0 or (threads is not None and threads < 1):
        raise BadSetting(f"latency: seconds={seconds}, threads={threads}: both must be above 0")
    contestants = [(module, example)]
    if against is not None:
        contestants.append(against if isinstance(against, tuple) else (against, example))
    with ExitStack() as stack:
        threads = stack.enter_context(_pinned(threads))
        for one, _ in contestants:
            stack.enter_context(evaluating(one))
        runs = [runner(one, given, runtime, threads) for one, given in contestants]
        stack.enter_context(_no_collection())
        samples, repeats = _measure(runs, seconds)
    spreads = [_spread(np.concatenate(own), count) for own, count in zip(samples, repeats, strict=True)]
    ratio = None
    if against is not None:
        ratio = ratio_of_medians(*([float(np.median(burst)) for burst in own] for own in samples), paired=True)
    return Latency(**asdict(spreads[0]), runtime=runtime, threads=threads, against=[*spreads, None][1], ratio=ratio)


def per_span_ms(
    module: nn.Module, example: Any, paths: list[str], *, threads: int | None = None, seconds: float = 1.0
) -> dict[str, float]:
    """Median milliseconds that each submodule in `paths` takes within a run of the whole module, in eager mode.

    All visits in a run are added up. Hooks are attached, so torch takes its slower path in transformer layers, and a
    span of some microseconds looks longer than it is: compare spans with spans, not with :func:`latency`.
    Raises BadModel for a path that is not there or is not called.
    """
    parts = dict(module.named_modules())
    if missing := [path for path in paths if path not in parts]:
        raise BadModel(f"{type(module).__name__} has no submodule {missing[0]!r}: {suggest(missing[0], parts)}")
    args, kwargs = arguments(example)
    started: dict[str, list[int]] = {path: [] for path in paths}
    spent = dict.fromkeys(paths, 0)
    runs: dict[str, list[int]] = {path: [] for path in paths}

    def enter(path: str) -> Any:
        return lambda *_: started[path].append(perf_counter_ns())

    def leave(path: str) -> Any:
        def stop(*_: Any) -> None:
            spent[path] += perf_counter_ns() - started[path].pop()

        return stop

    with _pinned(threads), evaluating(module), ExitStack() as stack, torch.inference_mode():
        for path in paths:
            stack.callback(parts[path].register_forward_pre_hook(enter(path)).remove)
            stack.callback(parts[path].register_forward_hook(leave(path), prepend=True).remove)
        end = perf_counter_ns() + seconds * 1e9
        done = 0
        while perf_counter_ns() < end or done < 6:
            done += 1
            spent.update(dict.fromkeys(paths, 0))
            try:
                module(*args, **kwargs)
            except Exception as error:
                raise failed(module, error) from error
            for path in paths:
                runs[path].append(spent[path])
    if idle := [path for path in paths if not any(runs[path])]:
        raise BadModel(f"{type(module).__name__}: submodule {idle[0]!r} is never called; time the one that holds it")
    return {path: median(runs[path][2:]) / 1e6 for path in paths}  # the first two warm up


def _measure(runs: list[Run], seconds: float) -> tuple[list[list[np.ndarray]], list[int]]:
    """Samples in ns a call: one array a burst, by contestant; and how many calls one sample holds."""
    repeats = [max(1, round(_SHORTEST / _warm(run, seconds / 2))) for run in runs]
    samples: list[list[np.ndarray]] = [[] for _ in runs]
    order, shuffle = list(range(len(runs))), random.Random(0)
    end = perf_counter_ns() + seconds * len(runs) * 1e9
    for done in range(_ROUNDS):
        if done >= _FEWEST and perf_counter_ns() > end:
            break
        shuffle.shuffle(order)
        for k in order:
            burst, over = [_time(runs[k], repeats[k])], perf_counter_ns() + seconds / _ROUNDS * 1e9
            while perf_counter_ns() < over:
                burst.append(_time(runs[k], repeats[k]))
            samples[k].append(np.array(burst[1:] or burst))
    return samples, repeats


def _warm(run: Run, seconds: float) -> float:
    """Run until five calls take no longer than the five before, within 5%, or until the time is up; ns a call."""
    end, before = perf_counter_ns() + seconds * 1e9, float("inf")
    while True:
        now = median(_time(run, 1) for _ in range(5))
        if now > 0.95 * before or perf_counter_ns() > end:
            return max(now, 1.0)
        before = now


def _time(run: Run, repeats: int) -> float:
    start = perf_counter_ns()
    for _ in range(repeats):
        run()
    return (perf_counter_ns() - start) / repeats


def _spread(samples: np.ndarray, repeats: int) -> Spread:
    low, middle, high = (float(x) / 1e6 for x in np.percentile(samples, [10, 50, 90]))
    return Spread(middle, low, high, len(samples), repeats)


@contextmanager
def _pinned(threads: int | None) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield threads or before
    finally:
        torch.set_num_threads(before)


@contextmanager
def _no_collection() -> Iterator[None]:
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()
