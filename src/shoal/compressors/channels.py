"""Channels: of every inner width the least important units go: channels, hidden units, heads.

    y = down act(up x)        becomes   y = down[:, keep] act(up[keep] x)

In a Net the blocks say their widths; in any other module they are found by a run. What stays is the share of the units
that is most important, by one of several measures (``_importance``). Where several widths lie in one span, they are
also proposed all at once.

Exact when the units that go are zero, and no norm or softmax runs along them
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from shoal.compressors._importance import Importance, Place, places_in_net
from shoal.compressors._proposing import possible
from shoal.compressors._seen import coupling_of, importance_of
from shoal.core.base import Compressor, Linear, Proposal
from shoal.core.errors import BadSetting, Refused
from shoal.core.part import Value
from shoal.core.scene import Scene
from shoal.core.spec import LayerSpec
from shoal.coupling import Width, cut_together
from shoal.edits._narrowing import units_of
from shoal.edits.narrow import Narrow
from shoal.kinds import BLOCKS
from shoal.net import Net

log = logging.getLogger("shoal")
BY = ("magnitude", "activation", "taylor", "fisher")


class Channels(Compressor):
    """Settings: `by`, how units are weighed: magnitude, activation, taylor or fisher; `share` of the units that goes;
    `multiple`: of wide widths as many stay as are a multiple of it; `rows` that are looked at."""

    tiny: ClassVar[Mapping[str, Value]] = {"rows": 2}

    def __init__(self, *, by: str = "taylor", share: float = 0.5, multiple: int = 8, rows: int = 256) -> None:
        if by not in BY:
            raise BadSetting(f"compressor channels: by={by!r} is not known; give one of {', '.join(BY)}")
        if not 0 < share < 1:
            raise BadSetting(f"compressor channels: share={share} takes nothing or all; give between 0 and 1")
        if multiple < 1 or rows < 1:
            raise BadSetting(f"compressor channels: multiple={multiple}, rows={rows}; give at least 1")
        self.by, self.share, self.multiple, self.rows = by, share, multiple, rows

    def propose(self, scene: Scene) -> Iterator[Proposal]:
        importance = importance_of(scene, self.by, self.rows)
        yield from (
            self._in_net(scene.module, importance) if isinstance(scene.module, Net) else self._any(scene, importance)
        )

    def _in_net(self, net: Net, importance: Importance) -> Iterator[Proposal]:
        for stage, found in enumerate(net.spec.stages):
            for index, spec in enumerate(found.layers):
                path = f"stages.{stage}.layers.{index}"
                edits: list[Narrow] = []
                for width in BLOCKS.get(spec.block.name).widths:
                    keep = self._kept_in_net(net, path, spec, width, importance)
                    edit = Narrow(path=path, width=width, keep=keep)
                    if keep and possible(net, Proposal((edit,), (path,))):
                        edits.append(edit)
                        yield Proposal((edit,), (path,), into=path)
                if len(edits) > 1 and possible(net, Proposal(tuple(edits), (path,))):
                    yield Proposal(tuple(edits), (path,), into=path)

    def _kept_in_net(self, net: Net, path: str, spec: LayerSpec, width: str, importance: Importance) -> tuple[int, ...]:
        units = units_of(spec, width)
        groups = max(part.groups for part in net.get_submodule(f"{path}.block").modules() if isinstance(part, Linear))
        return self._keep(importance.of(places_in_net(net, path, spec, width), units), units, groups, path)

    def _any(self, scene: Scene, importance: Importance) -> Iterator[Proposal]:
        found = coupling_of(scene)
        for place, why in found.left.items():
            log.info("%s: not narrowed: %s", place, why)
        within: dict[str, list[tuple[Width, tuple[int, ...]]]] = {}
        for width in found.widths:
            places = [Place(one.weight, one.axis, torch.from_numpy(one.units)) for one in width.held]
            keep = self._keep(importance.of(places, width.units), width.units, 1, width.path)
            span = _span_around(scene, width)
            if keep:
                yield _proposal([(width, keep)], span)
                within.setdefault(span or "", []).append((width, keep))
        for span, several in within.items():
            if not span or len(several) < 2:
                continue
            try:
                together = _proposal(several, span)
            except Refused as reason:
                log.info("%s: its widths are not narrowed together: %s", span, reason)
                continue
            yield together

    def _keep(self, weights: Tensor | None, units: int, groups: int, path: str) -> tuple[int, ...]:
        """The units that stay, as many of each group; none where nothing is proposed."""
        if weights is None:
            log.info("%s: not narrowed: %s says nothing of its units", path, self.by)
            return ()
        groups = groups if units % groups == 0 else 1
        size = units // groups
        kept = max(size - round(self.share * size), 1)
        if size >= 2 * self.multiple:
            kept = -(-kept // self.multiple) * self.multiple
        order = weights.view(groups, size).argsort(dim=1, descending=True, stable=True)[:, :kept].sort(dim=1).values
        numbers = (order + size * torch.arange(groups, device=order.device).unsqueeze(1)).flatten().tolist()
        return tuple(numbers) if len(numbers) < units else ()


def _span_around(scene: Scene, width: Width) -> str | None:
    """The smallest span that all weights of a width lie in."""
    around = [
        span.path for span in scene.anatomy.spans if all(f"{path}.".startswith(f"{span.path}.") for path in width.paths)
    ]
    return max(around, key=len, default=None)


def _proposal(several: Sequence[tuple[Width, tuple[int, ...]]], span: str | None) -> Proposal:
    """One edit that cuts some widths: within a span, or in all the modules whose weights hold them."""
    widths, keeps = [width for width, _ in several], [keep for _, keep in several]
    slices, settings = cut_together(widths, keeps)
    keep = keeps[0] if len(keeps) == 1 else ()
    edit = Narrow(path=span or widths[0].path, keep=keep, slices=slices, settings=settings)
    if span:
        return Proposal((edit,), (span,), into=span)
    return Proposal((edit,), widths[0].paths, stay=True)
