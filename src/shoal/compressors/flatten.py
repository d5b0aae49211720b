"""Flatten: neighbours with skips side by side, merged into one wide layer, and that narrowed.

    x + f(x) + g(x + f(x))  ->  x + [f g](x)  ->  x + [f g](x) with the units alone that matter

Depth goes and weights stay: what is lost at first is only that the later layer no longer reads what the earlier one
adds. Then inner units go, the least important of all that stand side by side. In modules of other people the last
matrix is then fitted to what the layers gave one after another.

Where layers cannot be merged, nothing is proposed: side by side alone is no faster. A Net's block says how; of other
modules go like neighbours in which a run shows inner units.

Papers   make-deep-networks-shallow-again
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import ClassVar

from shoal.compressors._importance import places_in_net
from shoal.compressors._joints import Joint, alike, joints
from shoal.compressors._repair import flows_of, repaired
from shoal.compressors._seen import coupling_of, importance_of
from shoal.compressors._wide import most, narrowed
from shoal.core.base import Compressor, Edit, Proposal
from shoal.core.errors import BadSetting, Refused
from shoal.core.part import Value
from shoal.core.scene import Flow, Scene
from shoal.edits._narrowing import units_of
from shoal.edits.merge import Merge
from shoal.edits.narrow import Narrow
from shoal.edits.parallel import Parallel
from shoal.kinds import BLOCKS
from shoal.net import Net
from shoal.recipe import done, rewritten

FITTED_ON = 4000  # places of examples
log = logging.getLogger("shoal")


class Flatten(Compressor):
    """Settings: `together`, how many neighbours go together; `wide`: of their inner units as many stay as so many of
    them had, beside all; `rows` that say which units matter (by a first-order estimate of what the loss would change)
    and what the last matrix is fitted to."""

    tiny: ClassVar[Mapping[str, Value]] = {"rows": 2}

    def __init__(
        self, *, together: tuple[int, ...] = (2, 4, 8), wide: tuple[int, ...] = (1, 2, 4), rows: int = 256
    ) -> None:
        if not together or min(together) < 2:
            raise BadSetting(f"compressor flatten: together={list(together)}; two or more neighbours go together")
        if any(times < 1 for times in wide) or rows < 1:
            raise BadSetting(f"compressor flatten: wide={list(wide)}, rows={rows}; give at least 1")
        self.together, self.wide, self.rows = tuple(together), tuple(wide), rows

    def propose(self, scene: Scene) -> Iterator[Proposal]:
        yield from self._in_net(scene, scene.module) if isinstance(scene.module, Net) else self._any(scene)

    def _in_net(self, scene: Scene, net: Net) -> Iterator[Proposal]:
        for stage, found in enumerate(net.spec.stages):
            for size in self.together:
                for first in range(len(found.layers) - size + 1):
                    paths = tuple(f"stages.{stage}.layers.{index}" for index in range(first, first + size))
                    edits = (Parallel(paths=paths), Merge(paths=paths))
                    if not _possible(net, edits):
                        continue
                    yield Proposal(edits, paths, into=paths[0])
                    (width,) = BLOCKS.get(found.layers[first].block.name).widths
                    specs = found.layers[first : first + size]
                    if not scene.batches:
                        continue
                    importance = importance_of(scene, "taylor", self.rows)
                    weights = [
                        importance.of(places_in_net(net, path, spec, width), units_of(spec, width))
                        for path, spec in zip(paths, specs, strict=True)
                    ]
                    for times in self.wide:
                        keep = most(weights, times)
                        thinner = (*edits, Narrow(path=paths[0], width=width, keep=keep))
                        if keep and _possible(net, thinner):
                            yield Proposal(thinner, paths, into=paths[0])

    def _any(self, scene: Scene) -> Iterator[Proposal]:
        if not scene.anatomy.chains or not scene.batches:
            return
        made = joints(scene, coupling_of(scene))
        importance = importance_of(scene, "taylor", self.rows)
        flows = flows_of(scene.head(self.rows), tuple(made))
        for chain in scene.anatomy.chains:
            for paths in alike(made, chain, self.together):
                several = [made[path] for path in paths]
                merge = several[0].merge(paths)
                try:
                    merge.widened([scene.module.get_submodule(path) for path in paths])
                except Refused as why:
                    log.info("%s: not merged: %s", ", ".join(paths), why)
                    continue
                for edits in ((merge,), *((merge, edit) for edit in narrowed(several, paths, importance, self.wide))):
                    yield self._repaired(scene, Proposal(edits, paths, into=paths[0]), several[0], flows)

    def _repaired(self, scene: Scene, one: Proposal, joint: Joint, flows: Mapping[str, Flow]) -> Proposal:
        """The proposal with what its span gives drawn to what the spans that go gave, where one matrix ends it."""
        if len(joint.readers) != 1 or not {one.paths[0], one.paths[-1]} <= flows.keys():
            return one
        (reader,), first = joint.readers, one.paths[0]
        given, wanted = flows[first].given, flows[one.paths[-1]].made
        wide = done(scene.module, one).get_submodule(first)
        values = repaired(wide, reader, dict(joint.norms).get(reader), given, wanted, FITTED_ON, scene.seed)
        return replace(one, weights={f"{first}.{name}": value for name, value in values.items()})


def _possible(net: Net, edits: tuple[Edit, ...]) -> bool:
    try:
        rewritten(net, edits)
    except Refused:
        return False
    return True
