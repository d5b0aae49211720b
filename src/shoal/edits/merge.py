"""Merge: the layers of one side-by-side group become one wide layer, exactly.

    down_1 act(up_1 x) + down_2 act(up_2 x)   =   [down_1 down_2] act([up_1; up_2] x)

Inner widths add up, biases of what is summed add up, norms of single channels stand side by side. A norm before the
layers must leave them all the same tensor: what it scales and shifts goes into the matrices that read it.

Neighbours in a module of other people, which ran one after another, become one of the same form with their branches
side by side: what stands behind the sum, a ReLU say, is then run once. Which of their weights hold the inner width is
found by a run (`shoal.coupling`); the edit holds what was found.

Exact when the layers are side by side already, of one block with one inner width, and as said above
Papers   make-deep-networks-shallow-again
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from shoal.core.base import Edit
from shoal.core.errors import Refused
from shoal.core.part import Value
from shoal.core.spec import Spec
from shoal.edits._merging import merged
from shoal.edits._surgery import (
    PassThrough,
    group_at,
    grouped,
    groups_of,
    layers_of,
    run_of_layers,
    submodule,
    with_layers,
)
from shoal.edits._widening import widened


@dataclass(frozen=True, kw_only=True)
class Merge(Edit):
    """Settings: `paths` of the layers of one whole group of a Net, or of neighbouring spans.

    Of a stranger, by names within a span: `joins`, (weight, axis) that holds the inner width; `sums`, biases that add
    up; `norms`, (matrix, norm behind it) that end a branch; `counts`, (path, attribute) that says the inner width.
    """

    exact: ClassVar[bool] = True
    tiny: ClassVar[Mapping[str, Value]] = {"paths": ("stages.0.layers.1", "stages.0.layers.2")}
    paths: tuple[str, ...]
    joins: tuple[tuple[str | int, ...], ...] = ()
    sums: tuple[str, ...] = ()
    norms: tuple[tuple[str, ...], ...] = ()
    counts: tuple[tuple[str, ...], ...] = ()

    def rewrite(self, spec: Spec, weights: Mapping[str, Tensor]) -> tuple[Spec, dict[str, Tensor]]:
        if self.joins:
            raise Refused(f"{self.paths[0]}: in a Net, the block says what is joined; leave joins out")
        index, start, stop = run_of_layers(spec, self.paths)
        stage = spec.stages[index]
        groups = groups_of(stage, self.paths[0])
        first, last = group_at(groups, start, stop, self.paths[0])
        if last != first + 1:
            raise Refused(f"{', '.join(self.paths)}: not one side-by-side group; make them one with parallel first")
        layers = layers_of(spec, weights, index, range(start, stop))
        wide = merged(stage.layers[start:stop], layers, stage.ends()[start])
        groups[first] = 1
        chosen = [*range(start), wide, *range(stop, len(stage.layers))]
        moved = [*range(start), *[start] * (stop - start), *range(start + 1, len(chosen))]
        return with_layers(spec, weights, index, chosen, grouped(groups), moved)

    def apply(self, module: nn.Module) -> nn.Module:
        if not self.joins:
            raise Refused(f"{', '.join(self.paths)}: only a Net says what is joined; compressor flatten finds it")
        if len(self.paths) < 2:
            raise Refused(f"{', '.join(self.paths)}: merging takes two or more spans")
        spans = [submodule(module, path) for path in self.paths]
        wide = self.widened(spans)
        for path, gone in zip(self.paths[1:], spans[1:], strict=True):
            module.set_submodule(path, PassThrough(like=gone))
        module.set_submodule(self.paths[0], wide)
        return module

    def widened(self, spans: Sequence[nn.Module]) -> nn.Module:
        """What takes the place of a stranger's spans, which stay as they are. Refused where they are not alike."""
        try:
            return widened(spans, self.joins, self.sums, self.norms, self.counts)
        except Refused as why:
            raise Refused(f"{', '.join(self.paths)}: {why}") from None
