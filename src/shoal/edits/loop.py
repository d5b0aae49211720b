"""Loop: one span runs several times in place of a run of neighbours.

    stream span   h(g(f(x)))                 becomes   f(f(f(x)))
    branch span   x + f(x), then + g, + h    becomes   x <- x + f(x), three times

As often as there were neighbours, unless another number is said: the depth is the same and the weights are fewer.

Exact when the neighbours had the same weights
Papers   skip-a-layer-or-loop-it
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from shoal.core.base import Edit
from shoal.core.errors import BadSetting, Refused
from shoal.core.part import Part, Value
from shoal.core.spec import Spec, Stage, wiring_of
from shoal.edits._spans import put
from shoal.edits._surgery import PassThrough, Zero, group_at, grouped, layer_at, run_of_layers, submodule
from shoal.edits._visits import revisited


@dataclass(frozen=True, kw_only=True)
class Loop(Edit):
    """Settings: `paths` of the neighbours in the order they run; `keep`, the number of the one that runs; `times`, how
    often (as many as there are paths where not said); `branch`, whether somebody else adds them to the stream."""

    tiny: ClassVar[Mapping[str, Value]] = {"paths": ("stages.0.layers.1", "stages.0.layers.2"), "times": 3}
    paths: tuple[str, ...]
    keep: int = 0
    times: int | None = None
    branch: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.keep < len(self.paths):
            raise BadSetting(f"edit loop: keep={self.keep} is the number of none of the {len(self.paths)} paths")
        if self.often < 2:
            raise BadSetting(f"edit loop: {self.often} times is no loop; give 2 at least")

    @property
    def often(self) -> int:
        """How often the span runs."""
        return len(self.paths) if self.times is None else self.times

    def rewrite(self, spec: Spec, weights: Mapping[str, Tensor]) -> tuple[Spec, dict[str, Tensor]]:
        index, start = layer_at(spec, self.paths[0])
        stop = run_of_layers(spec, self.paths)[2] if len(self.paths) > 1 else start + 1
        stage = spec.stages[index]
        steps = [*range(start), *[start + self.keep] * self.often, *range(stop, stage.depth)]
        wiring = _wiring(stage, start, stop, self.often, self.paths[0])
        if any(one.stage == index for one in spec.exits) and (wiring != stage.wiring or len(steps) != stage.depth):
            raise Refused(f"stages.{index}: its exits would read something else; take them out of the spec first")
        return revisited(spec, weights, index, steps, [(layer, 0) for layer in steps], wiring, False)

    def apply(self, module: nn.Module) -> nn.Module:
        spans = [submodule(module, path) for path in self.paths]
        kept = spans[self.keep]
        for name, part in kept.named_modules():
            if getattr(part, "layer_idx", None) is not None:
                at = f"{self.paths[self.keep]}.{name}".rstrip(".")
                raise Refused(
                    f"{at}: it has one place in a cache (layer_idx) and would write there at each turn; share"
                )
        for path in self.paths[1:]:
            put(module, path, Zero() if self.branch else PassThrough())
        return put(module, self.paths[0], _Repeated(kept, self.often, self.branch))


class _Repeated(nn.Module):
    """A span that runs several times, each time on what it gave before."""

    def __init__(self, span: nn.Module, times: int, branch: bool) -> None:
        super().__init__()
        self.span, self.times, self.branch = span, times, branch

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        y: Tensor = self.span(x, *args, **kwargs)
        for _ in range(self.times - 1):
            again: Tensor = self.span(x + y if self.branch else y, *args, **kwargs)
            y = y + again if self.branch else again
        return y


def _wiring(stage: Stage, start: int, stop: int, times: int, path: str) -> Part:
    """The wiring once the layers start to stop are so many steps one behind the other."""
    groups = wiring_of(stage.wiring, stage.dim, stage.depth).groups()
    if groups is not None:
        first, last = group_at(groups, start, stop, path)
        looped = [*groups[:first], *[1] * times, *groups[last:]]
        return stage.wiring if looped == list(groups) else grouped(looped)
    reads = wiring_of(stage.wiring, stage.dim, stage.depth).reads()
    if times == stop - start or all(row == {step} for step, row in enumerate(reads)):
        return stage.wiring
    raise Refused(f"{path}: wiring {stage.wiring.name} cannot have another depth; give times={stop - start}")
