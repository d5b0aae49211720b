"""Watching: what every span adds to which stream, seen in any run of a module."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple, TypeVar

from torch import Tensor
from torch.overrides import TorchFunctionMode

from shoal.core.example import tensors
from shoal.core.resuming import Tape
from shoal.core.scene import Batch, Scene
from shoal.core.spans import Visit
from shoal.dataflow import name_of
from shoal.measures._visits import hooked

ADDITIONS = {"add", "add_", "__add__", "__radd__", "__iadd__"}

T = TypeVar("T")


class Update(NamedTuple):
    """The stream before a span, and what the span adds to it; (rows, ...)."""

    stream: Tensor
    added: Tensor

    @property
    def behind(self) -> Tensor:
        """The stream behind the span."""
        return self.stream + self.added


class _Sums(TorchFunctionMode):
    """Follows what branches give until it is added to a stream: through a scale, a norm, a dropout."""

    def __init__(self, scene: Scene) -> None:
        super().__init__()
        self.found: dict[Visit, Update] = {}
        self._spans = {span.at: span for span in scene.spans}
        self._given: Tensor
        self.begin()

    def begin(self, *_: Any) -> None:
        """Another run begins."""
        self.found.clear()
        self._of: dict[int, set[Visit]] = {}  # id of a tensor -> the branches that it is what they gave
        self._alive: list[Tensor] = []  # so that an id is never given twice

    def before(self, visit: Visit, given: Tensor) -> None:
        """A span is about to be run."""
        self._given = given.clone()  # it may be written to

    def after(self, visit: Visit, made: Tensor) -> None:
        """A span was run."""
        branch = self._spans[visit].branch
        self.found[visit] = Update(self._given, made.clone() if branch else made - self._given)
        if branch:
            self._carry(made, {visit})

    def _carry(self, tensor: Tensor, visits: set[Visit]) -> None:
        self._of[id(tensor)] = visits
        self._alive.append(tensor)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        every = tensors((args, kwargs))
        mine = [tensor for tensor in every if id(tensor) in self._of]
        if not mine:
            return func(*args, **(kwargs or {}))
        visits = set().union(*(self._of[id(tensor)] for tensor in mine))
        others = [tensor for tensor in every if id(tensor) not in self._of and tensor.shape == mine[0].shape]
        if name_of(func) in ADDITIONS and len(others) == 1:
            stream = others[0].clone()
            for visit in visits:  # branches that were added to each other before keep what each of them gave
                self.found[visit] = Update(stream, mine[0].clone() if len(visits) == 1 else self.found[visit].added)
            for tensor in mine:
                del self._of[id(tensor)]
            return func(*args, **(kwargs or {}))
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor) and out.shape == mine[0].shape and not others:
            self._carry(out, visits)
        return out


def watched(scene: Scene, run: Callable[[], T]) -> tuple[T, Mapping[Visit, Update]]:
    """A run of the scene's module, and what every span added to which stream in it.

    The stream of a branch is what its output is added to; where it never meets a sum, what it reads stands for it.
    What a stream span adds is what it gives less what it reads.
    """
    sums = _Sums(scene)
    with ExitStack() as stack:
        stack.callback(scene.module.register_forward_pre_hook(sums.begin).remove)
        hooked(stack, scene, sums.before, sums.after)
        stack.enter_context(sums)
        given = run()
    return given, sums.found


def every_update(scene: Scene) -> Iterator[tuple[Batch, Tape, Mapping[Visit, Update]]]:
    """Batch by batch: the run and what every span added; only one batch is held at a time."""
    with scene.runs() as runs:
        for batch in scene.batches:
            yield batch, *watched(scene, partial(runs.record, batch.example))
