"""Engine: what one run of training holds, and how it makes a step; `fit` drives it.

batch -> loss -> gradient -> checked, clipped -> optimizer -> average
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from shoal.core.base import Method, Task
from shoal.core.errors import BadArtifact, Diverged
from shoal.core.example import tensors as tensors_in
from shoal.core.inputs import Inputs, answer_to, placed
from shoal.data import Dataset, Split
from shoal.kinds import TASKS
from shoal.net import Net
from shoal.training.augment import augmented
from shoal.training.checkpoint import Checkpoint
from shoal.training.diverged import whence
from shoal.training.graphs import asked
from shoal.training.layout import ROWS, lay_out
from shoal.training.objectives.exits import Exits
from shoal.training.optimizer import lr_share, make_optimizer, optimizer_tensors, restore_optimizer
from shoal.training.recipe import TrainingRecipe
from shoal.training.state import Average, Stream, copied, fill, generator_of, seed_of, tensors_of

Objective: TypeAlias = Callable[[nn.Module, Inputs, Tensor], Tensor]  # (net, x, y) -> a scalar to go down
SMALLEST_SCALE = 1e-4  # of float16 losses: below it no step has been finite for long
RESIDENT = 8 << 30  # training parts of up to so many bytes are held on the GPU


@dataclass(frozen=True)
class Made:
    """A step that was made: its epoch, the loss of its batch before it, its learning rate."""

    epoch: int
    loss: float
    lr: float


class Engine:
    """What a run of training holds; `index` counts the steps made, `began` is when its clock started."""

    def __init__(
        self,
        net: nn.Module,
        data: Dataset,
        recipe: TrainingRecipe,
        seed: int,
        device: torch.device,
        objective: Objective | None,
        began: float,
    ) -> None:
        self.net, self.data, self.recipe, self.seed, self.device = net, data, recipe, seed, device
        self.model, split = asked(net, data.train, device)
        self.split = _resident(split, device)
        self.moved = lay_out(net, self.split.batch(slice(0, ROWS))[0]) if device.type == "cpu" else ()
        task: Task = TASKS.make(data.signature.task)
        self.objective = objective or _objective(net, task, recipe.smoothing)
        self.methods = [module for module in net.modules() if isinstance(module, Method)]
        self.optimizer = make_optimizer(net, recipe)
        self.learned = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        self.average = None if recipe.ema is None else Average(net, recipe.ema)
        self.stream = Stream(seed_of(seed, "dropout"), device)
        auto = "float32" if device.type == "cpu" else "bfloat16"
        self.precision = auto if recipe.precision == "auto" else recipe.precision
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision == "float16")
        rows = len(self.split)
        self.batches = math.ceil(rows / recipe.batch) - (rows > recipe.batch > 1 and rows % recipe.batch == 1)
        self.total = None if recipe.epochs is None else max(1, math.ceil(recipe.epochs * self.batches - 1e-9))
        self.index, self.closed, self.took = 0, False, 0.0
        self.order = (-1, torch.empty(0, dtype=torch.int64))
        self.started = began

    def elapsed(self) -> float:
        """Seconds on the clock, those before a resumed checkpoint too."""
        return time.perf_counter() - self.started

    def done(self) -> bool:
        """Whether the next step would be one too many, or end behind the wall clock."""
        late = self.recipe.seconds is not None and self.index > 0 and self.elapsed() + self.took > self.recipe.seconds
        return late or (self.total is not None and self.index >= self.total)

    def progress(self) -> float:
        """The share of training that is over in the middle of the next step."""
        steps = 0.0 if self.total is None else (self.index + 0.5) / self.total
        if self.recipe.seconds is None:
            return steps
        return min(1.0, max(steps, (self.elapsed() + 0.5 * self.took) / self.recipe.seconds))

    def batch(self) -> tuple[Inputs, Tensor]:
        """The rows of the next step, on the device; they depend on the seed and on its number alone."""
        epoch, place = divmod(self.index, self.batches)
        if self.recipe.views is not None:
            epoch %= self.recipe.views
        if self.order[0] != epoch:
            order = torch.randperm(len(self.split), generator=generator_of(self.seed, "order", epoch))
            self.order = (epoch, order.to(self.split.y.device))
        start = place * self.recipe.batch
        x, y = self.split.batch(self.order[1][start : start + self.recipe.batch])
        x, y = placed(x, self.device), y.to(self.device)
        if self.recipe.augment:
            x = augmented(x, self.recipe.augment, generator_of(self.seed, "augment", epoch, place))
        return x, y

    def loss(self, x: Inputs, y: Tensor) -> Tensor:
        """The objective of a batch, in the precision of the recipe."""
        if self.precision == "float32":
            return self._whole(x, y)
        with torch.autocast(self.device.type, dtype=getattr(torch, self.precision)):
            return self._whole(x, y)

    def _whole(self, x: Inputs, y: Tensor) -> Tensor:
        """The objective, and what gates and experts add to it."""
        loss = self.objective(self.model, x, y)
        for module in self.methods:
            extra = module.auxiliary_loss()
            loss = loss if extra is None else loss + extra
        return loss

    def step(self) -> Made:
        """Make one step."""
        began = self.elapsed()
        lr = self.recipe.lr * lr_share(self.recipe, self.progress())
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        x, y = self.batch()
        if not self.net.training:
            self.net.train()
        with self.stream:
            loss = self.loss(x, y)
            self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        value, norm = self._norms(loss)
        if not math.isfinite(value) or not (math.isfinite(norm) or self._scaling()):
            raise self._diverged(x, y, lr)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update()
        epoch = self.index // self.batches
        self.index += 1
        self.took = self.elapsed() - began
        return Made(epoch, value, lr)

    def _norms(self, loss: Tensor) -> tuple[float, float]:
        """The loss and the norm of the gradient, which is then clipped."""
        gradients = [p.grad for p in self.learned if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        value, size = torch.stack([loss.detach().float(), norm.to(loss.device).float()]).tolist()
        if self.recipe.clip is not None and self.recipe.clip < size < math.inf:
            torch._foreach_mul_(gradients, self.recipe.clip / size)
        return value, size

    def _scaling(self) -> bool:
        """Whether a gradient too large for float16 may yet be cured by a smaller scale; such a step changes nothing."""
        return self.scaler.is_enabled() and self.scaler.get_scale() > SMALLEST_SCALE

    def _diverged(self, x: Inputs, y: Tensor, lr: float) -> Diverged:
        def again() -> Tensor:
            self.stream.rewind()
            with self.stream:
                return self.loss(x, y)

        where, fix = whence(self.net, x, y, again)
        epoch, place = divmod(self.index, self.batches)
        return Diverged(
            f"training: not finite at epoch {epoch}, step {place} of {self.batches} (lr {lr:.3g}), first {where}; {fix}"
        )

    def checkpoint(self) -> Checkpoint:
        """Everything, in memory of its own."""
        parts = {
            "net": tensors_of(self.net),
            "average": {} if self.average is None else self.average.tensors,
            "optimizer": optimizer_tensors(self.optimizer),
            "random": {str(index): state for index, state in enumerate(self.stream.states)},
        }
        tensors = copied({f"{part}/{name}": value for part, values in parts.items() for name, value in values.items()})
        facts = {
            **identity(self.recipe, self.seed, self.data),
            "index": self.index,
            "elapsed": self.elapsed(),
            "updates": 0 if self.average is None else self.average.updates,
            "scaler": self.scaler.state_dict(),
        }
        return Checkpoint(tensors, facts)

    def restore(self, saved: Checkpoint) -> None:
        """Go on where a checkpoint was taken."""
        fill(tensors_of(self.net), saved.under("net"), "checkpoint")
        if self.average is not None:
            fill(self.average.tensors, saved.under("average"), "checkpoint")
            self.average.updates = saved.facts["updates"]
        restore_optimizer(self.optimizer, saved.under("optimizer"))
        states = saved.under("random")
        if len(states) != len(self.stream.states):
            raise BadArtifact(f"checkpoint: not of a run on {self.device.type}; go on where it was begun")
        self.stream.states = [states[str(index)].cpu() for index in range(len(states))]
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(saved.facts["scaler"])
        self.index = saved.facts["index"]
        self.started -= saved.facts["elapsed"]


def _objective(net: nn.Module, task: Task, smoothing: float) -> Objective:
    """What a net learns where nobody says: its task, and all its exits theirs."""
    if isinstance(net, Net) and net.spec.exits:
        return Exits(task, smoothing=smoothing)
    return lambda model, x, y: task.loss(answer_to(model, x), y, smoothing)


def identity(recipe: TrainingRecipe, seed: int, data: Dataset) -> dict[str, object]:
    """What a checkpoint must share with the run that goes on from it."""
    return {"recipe": recipe.to_json(), "seed": seed, "data": data.fingerprint}


def _resident(split: Split, device: torch.device) -> Split:
    """The split on the GPU where it fits there, so that no row is sent twice."""
    size = sum(value.numel() * value.element_size() for value in tensors_in((split.x, split.y)))
    if device.type == "cpu" or size > RESIDENT:
        return split
    return Split(placed(split.x, device), split.y.to(device), split.prepare)
