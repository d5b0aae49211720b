"""Latency: how long a call takes on this machine, and how much longer than another, side by side.

warm-up        a module runs until five calls take no less than the five before, within 5%: the first calls load code,
               choose kernels and fill caches, which no later call does
threads        pinned while measuring and kept with the result: a time without its number of threads says nothing
side by side   a machine's speed drifts by more than what is looked for, so two times measured one after the other say
               little; contestants alternate in short bursts, on copies made anew (see bursts.py)
not separable  the interval of the ratio holds 1: this measurement does not tell the two apart. A module against itself,
               or its copy, comes out as different in at most 5% of measurements (bench/latency_aa.py)

What runs beside slows calls down, also by half: the median in milliseconds is of this machine as busy as it was. The
ratio is taken from the fastest call of each burst, and says more.

Longer than the house's 250 lines by a few: how times are taken and what is made of them are read together.
"""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from statistics import median
from time import perf_counter_ns
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from shoal.core.errors import BadModel, BadSetting, suggest
from shoal.core.example import arguments, evaluating, failed, tensors
from shoal.costing.timing.bursts import PAIRS, Bursts, ratio_of, timed
from shoal.costing.timing.runtimes import Run, beside_in_onnxruntime, runner
from shoal.evidence import Evidence


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

    `batch` is the one asked for; None: the example's. `ratio` says how many times as long the module takes as
    `against`; None when nothing was given to compare with. Its n counts pairs of copies, not calls.
    """

    runtime: str = "eager"
    threads: int = 1
    against: Spread | None = None
    ratio: Evidence | None = None
    batch: int | None = None

    @property
    def separable(self) -> bool:
        """Whether the two differ: the interval of the ratio leaves out 1."""
        return self.ratio is not None and not self.ratio.low <= 1 <= self.ratio.high

    def __str__(self) -> str:
        text = f"{Spread.__str__(self)}, {self.runtime}, {self.threads} threads"
        text += "" if self.batch is None else f", batch {self.batch}"
        if self.ratio is None:
            return text
        return f"{text}; {self.ratio} of {self.against}" + ("" if self.separable else ", not separable")

    def to_json(self) -> dict[str, Any]:
        """The fields by name, and `separable`."""
        return {**asdict(self), "separable": self.separable}


def latency(
    module: nn.Module,
    example: Any,
    against: nn.Module | tuple[nn.Module, Any] | Prepared | None = None,
    *,
    runtime: str = "eager",
    threads: int | None = None,
    seconds: float = 1.0,
    batch: int | None = None,
) -> Latency:
    """Time a module on an example, alone or against another, in eval mode without gradients.

    `example` is a tensor, a tuple of arguments or a dict of keyword arguments. `against` is a module for the same
    example, a pair (module, example), or what :func:`prepared` made of them. `runtime` is eager, compile or
    onnxruntime. `threads` are pinned while measuring; None: as many as torch uses now. `seconds` is the time to measure
    each contestant for; warming up takes up to half of it again, building (copy, compile, export) comes on top, and
    calls longer than a 13th of it exceed it.
    `batch` repeats or cuts the examples along their first axis, see :func:`at_batch`.
    Against another, copies of both are timed, so there must be room for them; in onnxruntime there is one session of
    each, and the interval does not know of where its weights lie.
    Raises BadSetting for settings out of range, BadModel when a module does not run or cannot be copied.
    """
    if not seconds > 0 or (threads is not None and threads < 1):
        raise BadSetting(f"latency: seconds={seconds}, threads={threads}: both must be above 0")
    contestants = [(module, example)]
    if against is not None and not isinstance(against, Prepared):
        contestants.append(against if isinstance(against, tuple) else (against, example))
    if batch is not None:
        contestants = [(one, at_batch(given, batch)) for one, given in contestants]
    with ExitStack() as stack:
        threads = stack.enter_context(pinned(threads))
        for one, _ in contestants:
            stack.enter_context(evaluating(one))
        makers = [_maker(one, given, runtime, threads, against is not None) for one, given in contestants]
        if isinstance(against, Prepared):
            makers.append(against.made(runtime, threads, batch))
        stack.enter_context(_no_collection())
        bursts, repeats = timed(makers, seconds, 1 if against is None else PAIRS)
    spreads = [_spread(own, count) for own, count in zip(bursts, repeats, strict=True)]
    other, ratio = (None, None) if against is None else (spreads[1], ratio_of(*bursts))
    return Latency(**asdict(spreads[0]), runtime=runtime, threads=threads, against=other, ratio=ratio, batch=batch)


@dataclass(frozen=True)
class Prepared:
    """A module built in a runtime once, for an example, to be timed several times."""

    run: Run
    runtime: str
    threads: int

    def made(self, runtime: str, threads: int, batch: int | None) -> Callable[[], Run]:
        """What gives it, to be timed. Raises BadSetting where it was built for something else."""
        if (runtime, threads, batch) != (self.runtime, self.threads, None):
            told = f"runtime={runtime}, threads={threads}, batch={batch}"
            raise BadSetting(f"latency: {told}, and what is against was prepared in {self.runtime}, {self.threads}")
        return lambda: self.run


def prepared(module: nn.Module, example: Any, *, runtime: str, threads: int | None = None) -> Prepared:
    """The module in eval mode, built (compiled, exported) in a runtime for an example. Raises as :func:`latency`."""
    with pinned(threads) as many, evaluating(module):
        return Prepared(runner(module, example, runtime, many), runtime, many)


def prepared_beside(parts: Sequence[tuple[nn.Module, Tensor]], *, threads: int | None = None) -> list[Prepared]:
    """:func:`prepared` in onnxruntime for several modules, each with the one tensor that it takes: much sooner than one
    after the other. They must be in eval mode. Raises BadModel where one of them cannot be exported."""
    with pinned(threads) as many:
        return [Prepared(run, "onnxruntime", many) for run in beside_in_onnxruntime(parts, many)]


def alone(one: Prepared, seconds: float) -> Spread:
    """How long what was prepared takes, beside nothing else."""
    with pinned(one.threads), _no_collection():
        bursts, repeats = timed([one.made(one.runtime, one.threads, None)], seconds, 1)
    return _spread(bursts[0], repeats[0])


def at_batch(example: Any, batch: int) -> Any:
    """The example with `batch` rows: its own, repeated in their order as often as it takes, or the first ones.

    The batch it has is the first axis of its first tensor with two axes or more, or of its first with one where there
    is none. Tensors whose first axis is as long are taken for rows; all others stay as they are.
    """
    found = [tensor for tensor in tensors(example) if tensor.ndim]
    rows = next((len(tensor) for tensor in found if tensor.ndim > 1), len(found[0]) if found else 0)
    if batch < 1 or not rows:
        raise BadSetting(
            f"batch={batch} of an example with {rows} rows: give 1 or more, and tensors with rows to repeat"
        )

    def fit(tensor: Tensor) -> Tensor:
        if not tensor.ndim or len(tensor) != rows:
            return tensor
        return tensor[torch.arange(batch, device=tensor.device) % rows]

    return tree_map_only(Tensor, fit, example)


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

    with pinned(threads), evaluating(module), ExitStack() as stack, torch.inference_mode():
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


def _maker(module: nn.Module, example: Any, runtime: str, threads: int, anew: bool) -> Callable[[], Run]:
    """What makes something to time: a new copy each time, or the same again and again."""
    if anew and runtime != "onnxruntime":
        return partial(_copied, module, example, runtime, threads)
    run = runner(module, example, runtime, threads)
    return lambda: run


def _copied(module: nn.Module, example: Any, runtime: str, threads: int) -> Run:
    try:
        own = copy.deepcopy(module)
    except Exception as error:
        raise failed(module, error, "cannot be copied", "measure it without against") from error
    return runner(own, example, runtime, threads)


def _spread(pairs: list[Bursts], repeats: int) -> Spread:
    """Of all samples but the first of a burst, which pays for the other's use of the caches."""
    samples = np.concatenate([burst[1:] if len(burst) > 1 else burst for bursts in pairs for burst in bursts])
    low, middle, high = (float(x) / 1e6 for x in np.percentile(samples, [10, 50, 90]))
    return Spread(middle, low, high, len(samples), repeats)


@contextmanager
def pinned(threads: int | None) -> Iterator[int]:
    """That many threads in torch inside, as many as before afterwards; None: as many as it uses now."""
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
