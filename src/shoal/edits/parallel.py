"""Parallel: neighbours that ran one after another run side by side, on the same input.

    x + f(x) + g(x + f(x))        becomes   x + f(x) + g(x)

Depth goes, weights and multiply-adds stay. What is lost is of second order in what the layers add.

Exact when the later span does not read what the earlier adds
Papers   make-deep-networks-shallow-again, on-residual-network-depth
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from shoal.core.base import Edit
from shoal.core.errors import Refused
from shoal.core.part import Value
from shoal.core.spec import Spec, wiring_of
from shoal.edits._surgery import (
    PassThrough,
    SideBySide,
    group_at,
    grouped,
    groups_of,
    run_of_layers,
    submodule,
    with_stage,
)


@dataclass(frozen=True, kw_only=True)
class Parallel(Edit):
    """Settings: `paths` of the neighbours, in the order they run; stream spans, or layers of a Net."""

    tiny: ClassVar[Mapping[str, Value]] = {"paths": tuple(f"stages.0.layers.{i}" for i in range(3))}
    paths: tuple[str, ...]

    def rewrite(self, spec: Spec, weights: Mapping[str, Tensor]) -> tuple[Spec, dict[str, Tensor]]:
        index, start, stop = run_of_layers(spec, self.paths)
        groups = groups_of(spec.stages[index], self.paths[0])
        first, last = group_at(groups, start, stop, self.paths[0])
        wiring = grouped([*groups[:first], sum(groups[first:last]), *groups[last:]])
        stage = spec.stages[index]
        before, after = (wiring_of(part, stage.dim, stage.depth).reads() for part in (stage.wiring, wiring))
        for one in spec.exits:
            if one.stage == index and before[one.layer] != after[one.layer]:
                raise Refused(
                    f"exit {one.stage}.{one.layer}: it would no longer read what the layers before it add; "
                    "take it out of the spec first"
                )
        return with_stage(spec, index, wiring=wiring), dict(weights)

    def apply(self, module: nn.Module) -> nn.Module:
        spans = [submodule(module, path) for path in self.paths]
        if len(spans) < 2:
            raise Refused(f"{', '.join(self.paths)}: side by side takes two or more spans")
        for path in self.paths[1:]:
            module.set_submodule(path, PassThrough())
        module.set_submodule(self.paths[0], SideBySide(spans))
        return module
