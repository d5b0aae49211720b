"""Prediction: how long a net will take on this machine, before it is run or even trained.

    predict_latency("convolution[channels=1] | residual(conv) 24x16 | pool[outputs=10]", torch.zeros(1, 8, 8, 1))
    predict_latency(module, example).ms

It needs what ``shoal probe`` found on this machine, once. Where a net has a width at which a wider one is faster,
``faster`` names it: vectors hold 8 or 16 numbers, and widths between leave some of them empty.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from shoal.core.errors import BadSetting, BadSpec
from shoal.core.named import read_spec
from shoal.core.spec import Spec
from shoal.costing.counting.count import cost
from shoal.costing.predicting.latency_model import LatencyModel
from shoal.costing.predicting.probing import Probed, probe_file
from shoal.costing.timing.runtimes import RUNTIMES
from shoal.net import Net, empty

_WORTH = 0.97  # of the milliseconds: a wider net that is not faster than this is not worth a word


@dataclass(frozen=True)
class Prediction:
    """Milliseconds, where nine in ten like it lie, and a wider spec that is faster, with its milliseconds, if any."""

    ms: float
    low: float
    high: float
    runtime: str
    threads: int
    faster: tuple[Spec, float] | None = None

    def __str__(self) -> str:
        text = f"{self.ms:.4g} ms [{self.low:.4g}, {self.high:.4g}] predicted, {self.runtime}, {self.threads} threads"
        return text if self.faster is None else f"{text}; {self.faster[0]} is wider and faster: {self.faster[1]:.4g} ms"


def predict_latency(
    target: Spec | str | nn.Module, example: Any, *, runtime: str = "eager", threads: int | None = None
) -> Prediction:
    """How long a run of a spec (complete, with stem and head) or module on an example will take; nothing is timed.

    A spec is built without memory and counted without computing; a module with weights is counted by one run.
    `threads` None: as many as torch uses now. Raises BadSetting where ``shoal probe`` did not run for that runtime and
    those threads yet or the runtime is unknown, BadModel where the module does not run.
    """
    threads = threads or torch.get_num_threads()
    model = latency_model(runtime, threads)
    spec = read_spec(target) if isinstance(target, str) else target
    module = empty(spec) if isinstance(spec, Spec) else spec
    ms = model.ms(cost(module, example, training=False))
    faster = _faster(module.spec, example, model, ms) if isinstance(module, Net) else None
    return Prediction(ms, *model.interval(ms), runtime, threads, faster)


def latency_model(runtime: str = "eager", threads: int | None = None) -> LatencyModel:
    """What ``shoal probe`` learned of this machine. Raises BadSetting where it did not run for that."""
    if runtime not in RUNTIMES:
        raise BadSetting(f"runtime {runtime!r}: not known; give one of {', '.join(RUNTIMES)}")
    threads = threads or torch.get_num_threads()
    path = probe_file(runtime, threads)
    if not path.exists():
        raise BadSetting(
            f"latency in {runtime} with {threads} threads: this machine was not probed for it; run: shoal probe "
            f"--runtime {runtime} --threads {threads}"
        )
    return _read(path, path.stat().st_mtime_ns)


@cache
def _read(path: Path, written: int) -> LatencyModel:
    return Probed.read(path).model()


def _faster(spec: Spec, example: Any, model: LatencyModel, ms: float) -> tuple[Spec, float] | None:
    """The fastest of the specs with each stage's width rounded up to a multiple of 4, 8 or 16, where it is faster."""
    found: list[tuple[float, Spec]] = []
    for by in (4, 8, 16):
        stages = tuple(replace(stage, dim=-(-stage.dim // by) * by) for stage in spec.stages)
        if stages == spec.stages:
            continue
        try:
            wider = empty(replace(spec, stages=stages))
        except (BadSetting, BadSpec):  # some part of it takes no such width
            continue
        found.append((model.ms(cost(wider, example, training=False)), wider.spec))
    best = min(found, key=lambda one: one[0], default=None)
    return (best[1], best[0]) if best is not None and best[0] < _WORTH * ms else None
