"""Paths: the loss of a module along straight lines between two sets of weights, on a copy of it.

    theta(t) = (1 - t) a + t b        for some of the weights; all others stay at a
    barrier = max_t  L(theta(t)) - (1 - t) L(a) - t L(theta(1))

Running statistics (of batch norms) are taken anew wherever a loss is, over the same examples: those of either end fit
nothing in between.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from shoal.core.base import Task
from shoal.core.errors import BadModel
from shoal.core.example import arguments, evaluating, failed
from shoal.core.part import Part
from shoal.core.scene import Batch, Scene, answer
from shoal.kinds import TASKS
from shoal.measures._alone import drawing

Weights = Mapping[str, Tensor]


class Line:
    """A copy of a scene's module, and other weights for it. ``own`` and ``other``: its parameters by name.

    Raises BadModel where the other weights lack one, or have one of another shape.
    """

    def __init__(self, scene: Scene, other: Weights) -> None:
        self.scene = scene
        self.own: Weights = {name: weight.detach() for name, weight in scene.module.named_parameters()}
        self.other: Weights = {name: _taken(name, weight, other) for name, weight in self.own.items()}
        self._module = copy.deepcopy(scene.module)
        self._norms = [
            part for part in self._module.modules() if isinstance(getattr(part, "running_mean", None), Tensor)
        ]
        for part in self._norms:
            part.momentum = 1.0  # type: ignore[assignment]  # each batch leaves its own statistics
        self._wanted = [batch.target for batch in scene.batches]
        if scene.task is None:
            with evaluating(self._module), torch.no_grad():
                self._wanted = [self._answer(batch) for batch in scene.batches]

    def loss(self, names: Collection[str], t: float) -> float:
        """The mean loss where these weights are a share ``t`` of the way to the others."""
        total = 0.0
        with evaluating(self._module), torch.no_grad():
            for name, weight in self._module.named_parameters():
                own = self.own[name]
                weight.copy_(torch.lerp(own, self.other[name], t) if name in names else own)
            self._take_statistics()
            for batch, wanted in zip(self.scene.batches, self._wanted, strict=True):
                assert wanted is not None
                found = self._answer(batch)
                total += batch.rows * float(self._task(found).loss(found, wanted))
        return total / sum(batch.rows for batch in self.scene.batches)

    def barrier(self, names: Collection[str], steps: int) -> float:
        """How far the loss rises above the straight line between its ends; 0 where it does nowhere."""
        last = self.loss(names, 1.0)
        first = self.loss((), 0.0)
        inner = [step / (steps + 1) for step in range(1, steps + 1)]
        return max(0.0, *(self.loss(names, t) - (1 - t) * first - t * last for t in inner))

    def curvature(self, names: Collection[str], step: float = 0.05) -> float:
        """d' H d at the module's own weights, d the way to the others: a second difference of the loss.

        Were the loss a parabola, it would lie t (1 - t) / 2 of this below the straight line at t.
        """
        here = self.loss((), 0.0)
        return (self.loss(names, step) + self.loss(names, -step) - 2 * here) / step**2

    def distance(self, names: Collection[str]) -> float:
        """|b - a| / |a| over these weights."""
        apart = sum(float((self.other[name] - self.own[name]).double().square().sum()) for name in names)
        size = sum(float(self.own[name].double().square().sum()) for name in names)
        return (apart / size) ** 0.5 if size > 0 else 0.0

    def of(self, path: str) -> list[str]:
        """The names of the weights of a part."""
        part = {id(weight) for weight in self.scene.module.get_submodule(path).parameters()}
        return [name for name, weight in self.scene.module.named_parameters() if id(weight) in part]

    def astray(self, seed: int) -> Line:
        """The same with a random direction for each weight, as long as the way to the other was."""
        drawn = drawing(seed)
        found = {}
        for name, weight in self.own.items():
            way = torch.randn(weight.shape, generator=drawn, dtype=torch.float64)
            length = float((self.other[name] - weight).double().norm())
            found[name] = weight + (way * (length / float(way.norm().clamp_min(1e-30)))).to(weight)
        return Line(self.scene, found)

    def _task(self, found: Tensor) -> Task:
        if self.scene.task is not None:
            return self.scene.task
        made: Task = TASKS.make(Part("fidelity", {"outputs": found.shape[-1]}))
        return made

    def _answer(self, batch: Batch) -> Tensor:
        args, kwargs = arguments(batch.example)
        try:
            return answer(self._module(*args, **kwargs))
        except Exception as error:  # whatever a stranger's forward raises, the user must read it
            raise failed(self._module, error) from error

    def _take_statistics(self) -> None:
        """Running statistics with these weights: the mean, and the variance with that of the means of batches."""
        if not self._norms:
            return
        buffers: list[tuple[Any, Any]] = [(part.running_mean, part.running_var) for part in self._norms]
        sums = [(torch.zeros_like(mean), torch.zeros_like(var)) for mean, var in buffers]
        rows = sum(batch.rows for batch in self.scene.batches)
        for part in self._norms:
            part.training = True
        for batch in self.scene.batches:
            self._answer(batch)
            for (mean, var), (first, second) in zip(buffers, sums, strict=True):
                first += mean * (batch.rows / rows)
                second += (var + mean.square()) * (batch.rows / rows)
        for part in self._norms:
            part.training = False
        for (mean, var), (first, second) in zip(buffers, sums, strict=True):
            mean.copy_(first)
            var.copy_((second - first.square()).clamp_min(0))


def read_weights(path: str) -> dict[str, Tensor]:
    """Weights from a file in safetensors. Raises BadModel where there is none, or it holds something else."""
    if not Path(path).is_file():
        raise BadModel(f"weights {path!r}: there is no such file; name one in safetensors")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise BadModel(f"weights {path!r}: {str(error).splitlines()[0]}; name a file in safetensors") from None


def _taken(name: str, own: Tensor, other: Weights) -> Tensor:
    """The other weight of that name, of the module's type."""
    if name not in other or other[name].shape != own.shape:
        what = f"of shape {list(other[name].shape)}" if name in other else "missing"
        raise BadModel(f"other weights: {name} is {what}, wanted {list(own.shape)}; give weights of the same module")
    return other[name].detach().to(own)
