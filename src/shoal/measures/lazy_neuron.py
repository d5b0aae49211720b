"""Lazy neuron: how few units inside a span are awake for an example, and which never are.

    zero = share of activations that are exactly 0      near = share with |a| <= eps * rms(a)
    dead = share of units that are near 0 on all rows   twin = share of units that another one before them doubles

Units are those behind the span's activation functions (ReLU, GELU and the like, called as modules or as functions);
`activations` is how many calls were seen, and where it is 0 the units are the channels of what the span gives. A unit
doubles another where their correlation over `rows` places is above 0.999.

Cost     1 run a batch; hidden^2 multiply-adds a span and kept place; `rows` places of all units are kept
Papers   the-lazy-neuron-phenomenon-on-emergence
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from shoal.core.base import Measure
from shoal.core.errors import BadSetting
from shoal.core.example import arguments, unmarked
from shoal.core.scene import Batch, Scene, rows_of
from shoal.core.spans import Visit
from shoal.dataflow import name_of
from shoal.measures._tables import table
from shoal.measures._units import Units
from shoal.measures._visits import hooked

NAMED = ("relu", "gelu", "silu", "swish", "mish")  # in the class of a module without weights
ACTIVATIONS = {"relu", "relu_", "relu6", "threshold", "gelu", "silu", "mish", "hardswish", "elu", "leaky_relu"}


class LazyNeuron(Measure):
    """Settings: `eps`, the share of the root mean square below which an activation is near 0; `rows`, how many places
    are compared for twins."""

    tiny = {"rows": 16}

    def __init__(self, *, eps: float = 0.01, rows: int = 256) -> None:
        if eps < 0 or rows < 3:
            raise BadSetting(f"measure lazy_neuron: eps={eps}, rows={rows}; give no less than 0, and at least 3 rows")
        self.eps, self.rows = eps, rows

    def table(self, scene: Scene) -> pd.DataFrame:
        found: dict[tuple[Visit, int], Units] = {}
        calls: dict[Visit, int] = {}
        for batch in scene.batches:
            for at, seen in _activations(scene, batch).items():
                calls[at] = seen.calls
                for number, a in enumerate(seen.given or [seen.made]):
                    found.setdefault((at, number), Units()).add(rows_of(a, _axis(scene, at, a)), self.eps, self.rows)
        units = [[one for (at, _), one in found.items() if at == span.at] for span in scene.spans]
        return table(
            scene,
            {
                "activations": [calls[span.at] for span in scene.spans],
                "zero": [sum(one.zero for one in each) / sum(one.count for one in each) for each in units],
                "near": [sum(one.near for one in each) / sum(one.count for one in each) for each in units],
                "dead": [_share([one.dead(self.eps) for one in each]) for each in units],
                "twin": [_share([one.twin(self.eps) for one in each]) for each in units],
            },
        )


class _Seen(TorchFunctionMode):
    """What activation functions give between the ends of a span, and what the span gives."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[Visit, _Given] = {}
        self._open: list[Visit] = []
        self._within = 0  # modules that are activations themselves: of what happens in them, the end counts

    def hook(self, stack: ExitStack, part: nn.Module) -> None:
        """See a module that is an activation, until the stack is closed."""

        def enter(*_: Any) -> None:
            self._within += 1

        def leave(_: nn.Module, args: Any, out: Tensor) -> None:
            self._within -= 1
            self._note(out)

        stack.callback(part.register_forward_pre_hook(enter).remove)
        stack.callback(part.register_forward_hook(leave).remove)

    def _note(self, out: Tensor) -> None:
        if self._open and not self._within:
            self.found[self._open[-1]].given.append(out.clone())

    def before(self, visit: Visit, _: Tensor) -> None:
        self._open.append(visit)
        self.found[visit] = _Given()

    def after(self, visit: Visit, made: Tensor) -> None:
        self._open.pop()
        self.found[visit].made = made.clone()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if name_of(func) in ACTIVATIONS:
            self._note(out)
        return out


@dataclass
class _Given:
    given: list[Tensor] = field(default_factory=list)
    made: Tensor = field(default_factory=lambda: torch.zeros(()))

    @property
    def calls(self) -> int:
        return len(self.given)


def _activations(scene: Scene, batch: Batch) -> dict[Visit, _Given]:
    args, kwargs = arguments(batch.example)
    seen = _Seen()
    with unmarked(scene.module), torch.no_grad(), ExitStack() as stack:
        hooked(stack, scene, seen.before, seen.after)
        for part in scene.module.modules():
            if _is_activation(part):
                seen.hook(stack, part)
        stack.enter_context(seen)
        scene.module(*args, **kwargs)
    return seen.found


def _is_activation(part: nn.Module) -> bool:
    """Whether a module is an activation by its name, and holds nothing."""
    empty = not any(True for _ in part.children()) and not any(True for _ in part.parameters())
    return empty and any(name in type(part).__name__.lower() for name in NAMED)


def _axis(scene: Scene, at: Visit, a: Tensor) -> int:
    """Where the units are: as the span's channels, but last where a place has been taken in."""
    axis = next(span.axis for span in scene.spans if span.at == at)
    return axis if a.dim() > 2 else -1


def _share(flags: list[Tensor]) -> float:
    return float(torch.cat(flags).double().mean())
