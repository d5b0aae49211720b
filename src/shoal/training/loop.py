"""Fit: the training loop, a generator that yields after every step; the net given is what learns.

    for step in fit(net, data, TrainingRecipe(epochs=10)):
        print(step.index, step.loss)

What is random comes from `seed`: the order of the rows and their augmentation from (seed, epoch, place in it), dropout
and its like from a stream of its own. The caller's random numbers are neither used nor moved. The same seed gives the
same weights on one CPU with one number of threads, unless the recipe counts seconds; GPU kernels may differ in the last
bits.

- Between steps the net is in training mode on `device`, with its own (not averaged) weights; ``with step.averaged():``
  shows the average. However it ends (finished, closed or raised), the net is left in eval mode, on the device it came
  from, with the average in it where the recipe has one.
- The last batch of an epoch may be smaller. It is left out where it would hold a single row and is not the only batch,
  for batch statistics need two; the order changes each epoch, so no row is always left out.
- `seconds` counts all time from when the first step is asked for, also what the caller spends between steps.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn

from shoal.core.errors import BadArtifact, BadData, BadModel, BadSetting
from shoal.data import Dataset
from shoal.training.checkpoint import Checkpoint
from shoal.training.engine import Engine, Objective, identity
from shoal.training.layout import put_back
from shoal.training.recipe import TrainingRecipe


@dataclass(frozen=True)
class Step:
    """One step that was made.

    index    steps made so far, this one too         epoch    its epoch, from 0
    loss     of its batch, before the step           last     whether it was the last step of its epoch
    lr       its learning rate                       seconds  since the first was asked for
    total    steps the recipe's epochs make; None where only seconds end it
    """

    index: int
    epoch: int
    loss: float
    lr: float
    seconds: float
    total: int | None
    last: bool
    _engine: Engine = field(repr=False, compare=False)

    def checkpoint(self) -> Checkpoint:
        """All that is needed to go on from here bit for bit. Only until the next step."""
        return self._current().checkpoint()

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the net holds the average of its weights (where the recipe has one). Only until the next step."""
        average = self._current().average
        if average is None:
            yield
            return
        average.swap(self._engine.net)
        try:
            yield
        finally:
            average.swap(self._engine.net)

    def _current(self) -> Engine:
        if self._engine.index != self.index or self._engine.closed:
            raise BadSetting(f"step {self.index}: training has gone on or ended; ask before the next step")
        return self._engine


def fit(
    net: nn.Module,
    data: Dataset,
    recipe: TrainingRecipe,
    *,
    seed: int = 0,
    device: torch.device | str | None = None,
    objective: Objective | None = None,
    resume: Checkpoint | None = None,
) -> Generator[Step, None, None]:
    """Train the net in place, a step at a time.

    device      where; a GPU where there is one, else the CPU
    objective   (net, x, y) -> the loss; None: the loss of the data's task, for a net with exits that of them all
    resume      a checkpoint of the same recipe (but for `seconds`), seed and data: goes on behind its last step

    Raises BadSetting or BadArtifact at once, and Diverged from a step where loss or gradient is not finite: it names
    the first module whose output was not. The weights are then those before that step; batch statistics may be spoilt.
    """
    if recipe.augment and len(data.signature.places) != 2:
        raise BadSetting(f"augment {recipe.augment[0]!r}: {data.name} holds no images; leave augment out")
    if not any(parameter.requires_grad for parameter in net.parameters()):
        raise BadModel(f"{type(net).__name__}: no parameter requires a gradient, so nothing can be trained; thaw some")
    if not len(data.train):
        raise BadData(f"{data.name}: no training rows; give some")
    if resume is not None:
        _check(resume, recipe, seed, data)
    return _steps(net, data, recipe, seed, pick_device(device), objective, resume)


def pick_device(device: torch.device | str | None) -> torch.device:
    """The device asked for; else a GPU where there is one, else the CPU. BadSetting where it cannot be had."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise BadSetting(f"device {str(device)!r} cannot be used ({str(error).splitlines()[0]}); try cpu") from error
    return torch.device(device)


def _steps(
    net: nn.Module,
    data: Dataset,
    recipe: TrainingRecipe,
    seed: int,
    device: torch.device,
    objective: Objective | None,
    resume: Checkpoint | None,
) -> Generator[Step, None, None]:
    began = time.perf_counter()
    home = next(net.parameters()).device
    net.to(device).train()
    engine = Engine(net, data, recipe, seed, device, objective, began)
    try:
        if resume is not None:
            engine.restore(resume)
        while not engine.done():
            made = engine.step()
            last = engine.index % engine.batches == 0
            yield Step(engine.index, made.epoch, made.loss, made.lr, engine.elapsed(), engine.total, last, engine)
    finally:
        engine.closed = True
        if engine.average is not None and engine.average.updates:
            engine.average.swap(net)
        put_back(engine.moved)
        net.zero_grad(set_to_none=True)
        net.eval()
        if home != device:
            net.to(home)


def _check(saved: Checkpoint, recipe: TrainingRecipe, seed: int, data: Dataset) -> None:
    for key, value in identity(recipe, seed, data).items():
        found = saved.facts.get(key)
        if isinstance(found, dict) and isinstance(value, dict):
            found = {**found, "seconds": value["seconds"]}
        if found != value:
            raise BadArtifact(f"checkpoint: begun with another {key}; go on with the same, or start anew")
