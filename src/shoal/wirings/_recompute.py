"""Recompute: what backward needs of a layer is made again in backward instead of being kept; shared by two wirings.

The second run must be like the first: the same random numbers, the same precision, and batch statistics that are those
of the batch again but do not move the running ones a second time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import get_device_states, set_device_states

from shoal.core.base import Branch


def recomputes() -> bool:
    """Whether there is anything to save by recomputing: gradients will be asked for, and nobody traces the pass."""
    return torch.is_grad_enabled() and not torch.compiler.is_compiling()


class SecondRun(TorchFunctionMode):
    """Inside, a batch norm in training takes the statistics of its batch and leaves the running ones as they are."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is F.batch_norm:
            kwargs["momentum"] = 0.0
        return func(*args, **kwargs)


class Moment:
    """The random numbers and the precision at one point of the first run, to be there again in the second."""

    def __init__(self, x: Tensor) -> None:
        self.type = x.device.type
        self.cpu: Tensor | None = torch.get_rng_state()
        self.devices, self.states = get_device_states(x)
        self.autocast: tuple[bool, torch.dtype, bool] | None = None
        if torch.amp.is_autocast_available(self.type):  # there is none on the meta device
            cached = torch.is_autocast_cache_enabled()
            self.autocast = (torch.is_autocast_enabled(self.type), torch.get_autocast_dtype(self.type), cached)

    def over(self) -> None:
        """The step is over: where it drew no numbers there are none to remember."""
        if self.cpu is not None and torch.equal(self.cpu, torch.get_rng_state()):
            self.cpu = None

    @contextmanager
    def again(self) -> Iterator[None]:
        """Inside it is that moment again, with gradients; behind it everything is as it was."""
        with torch.random.fork_rng(self.devices, device_type=self.type), torch.enable_grad(), SecondRun():
            if self.cpu is not None:
                torch.set_rng_state(self.cpu)
            set_device_states(self.devices, self.states)
            with self._precision():
                yield

    def _precision(self) -> AbstractContextManager[Any]:
        if self.autocast is None:
            return nullcontext()
        enabled, dtype, cached = self.autocast
        return torch.autocast(self.type, dtype, enabled, cached)


class Step(NamedTuple):
    """One step of the columns: level <- layer(the level below + the one above) + scale() * level."""

    level: int
    layer: Branch
    scale: Callable[[], Tensor]

    def branch(self, x: Tensor, levels: Sequence[Tensor]) -> Tensor:
        """What the layer adds: below the first level stands the input, above the last nothing."""
        below = levels[self.level - 1] if self.level else x
        return self.layer(below + levels[self.level + 1] if self.level + 1 < len(levels) else below)

    def forth(self, x: Tensor, levels: Sequence[Tensor]) -> Tensor:
        """The level behind the step."""
        return self.branch(x, levels) + self.scale() * levels[self.level]

    def back(self, x: Tensor, levels: Sequence[Tensor]) -> Tensor:
        """The level before the step."""
        return (levels[self.level] - self.branch(x, levels)) / self.scale()


class Reversal:
    """Runs steps and keeps nothing of them but where they end: going back from there, each is made again.

    What autograd would keep inside a step is counted and dropped. Backward asks for it by its number, the last step
    first: the step is then run again on the levels as they were before it, found by undoing it.
    """

    def __init__(self, steps: Sequence[Step]) -> None:
        self.steps = steps
        self.needed: list[list[bool]] = []  # whether the input and each level needed a gradient, before each step
        self.moments: list[Moment] = []
        self.end: list[Tensor] = []
        self.at, self.levels, self.kept = len(steps), self.end, list[Tensor]()

    def run(self, x: Tensor, count: int) -> Tensor:
        """The last level behind all steps; every level begins as x."""
        levels = [x] * count
        for index, step in enumerate(self.steps):
            self.needed.append([tensor.requires_grad for tensor in (x, *levels)])
            self.moments.append(Moment(x))
            numbers = iter(range(2**62))

            def leave(_: Tensor, index: int = index, numbers: Iterator[int] = numbers) -> tuple[int, int]:
                return index, next(numbers)

            with saved_tensors_hooks(leave, self._fetch):
                levels[step.level] = step.forth(x, levels)
            self.moments[-1].over()
        self.x, self.end = x.detach(), [level.detach() for level in levels]
        self.levels = list(self.end)
        return levels[-1]

    def _fetch(self, place: tuple[int, int]) -> Tensor:
        index, number = place
        if index < self.at:
            for at in range(self.at - 1, index - 1, -1):
                self._again(at)
        elif index > self.at:  # another backward pass over the same graph
            self.at, self.levels = len(self.steps), list(self.end)
            return self._fetch(place)
        return self.kept[number]

    def _again(self, at: int) -> None:
        """Run step ``at`` again and go before it."""
        step, kept = self.steps[at], list[Tensor]()
        x, *levels = (
            tensor.detach().requires_grad_(needed)
            for tensor, needed in zip((self.x, *self.levels), self.needed[at], strict=True)
        )

        def keep(tensor: Tensor) -> None:
            kept.append(tensor.detach())

        with self.moments[at].again(), saved_tensors_hooks(keep, _lost):
            added = step.branch(x, levels)
            with torch.no_grad():
                before = (levels[step.level] - added) / step.scale()
            levels[step.level] = before.requires_grad_(self.needed[at][1 + step.level])
            added + step.scale() * levels[step.level]
        self.levels[step.level] = before.detach()
        self.at, self.kept = at, kept


def _lost(_: None) -> Tensor:
    raise AssertionError("nobody goes backward through a second run")
