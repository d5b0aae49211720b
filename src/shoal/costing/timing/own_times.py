"""Own times: what each submodule takes by itself within a run, without what it calls."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from statistics import median
from time import perf_counter_ns
from typing import Any

import torch
from torch import nn

from shoal.core.errors import BadModel
from shoal.core.example import arguments, evaluating, failed
from shoal.costing.timing.latency import pinned

_WARM_UP, _FEWEST = 2, 6  # runs that are dropped, and runs at least


def own_ms(
    module: nn.Module, example: Any, paths: Iterable[str], *, threads: int | None = None, seconds: float = 1.0
) -> dict[str, float]:
    """Median milliseconds in each submodule of `paths`, less what is spent in others of them that it calls; eager.

    All visits in a run are added up. What calls what is seen while it happens: a wiring that is handed its layers is
    not charged for them. Following the calls takes some microseconds a call, which are charged to the caller.
    Raises BadModel where it does not run, or has no submodule of that path.
    """
    parts = dict(module.named_modules())
    watch = _Watch()
    with pinned(threads), evaluating(module), ExitStack() as stack, torch.inference_mode():
        args, kwargs = arguments(example)
        for path in paths:
            if path not in parts:
                raise BadModel(f"{type(module).__name__}: has no submodule {path!r}; give paths of named_modules()")
            watch.runs[path] = []
            stack.callback(parts[path].register_forward_pre_hook(watch.enter).remove)
            stack.callback(parts[path].register_forward_hook(watch.leaver(path), prepend=True).remove)
        until, done = perf_counter_ns() + seconds * 1e9, 0
        while done < _FEWEST or perf_counter_ns() < until:
            done += 1
            try:
                module(*args, **kwargs)
            except Exception as error:
                raise failed(module, error) from error
            watch.finish()
    return {path: median(runs[_WARM_UP:]) / 1e6 for path, runs in watch.runs.items()}


class _Watch:
    """The calls that are running, innermost last: when each began, and what was spent in those within it."""

    def __init__(self) -> None:
        self.runs: dict[str, list[int]] = {}
        self.spent: dict[str, int] = {}
        self.calls: list[tuple[int, list[int]]] = []

    def enter(self, *_: Any) -> None:
        self.calls.append((perf_counter_ns(), [0]))

    def leaver(self, path: str) -> Any:
        def leave(*_: Any) -> None:
            now = perf_counter_ns()
            begun, within = self.calls.pop()
            self.spent[path] = self.spent.get(path, 0) + now - begun - within[0]
            if self.calls:
                self.calls[-1][1][0] += now - begun

        return leave

    def finish(self) -> None:
        """A run is over."""
        for path, runs in self.runs.items():
            runs.append(self.spent.get(path, 0))
        self.spent.clear()
