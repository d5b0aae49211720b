"""Fuse layers: a stage gets shallower by runs of layers becoming one each; which runs, a shallower net says.

    1  the shallow net: the same, with so many layers of the stage left as are wanted, evenly chosen
    2  a: each of its layers is matched with one of the deep net's, in order, by the CKA of the streams behind them
    3  layers a(j) to a(j + 1) - 1 become one: their neurons laid on each other by optimal transport and fused

One proposal a run that is longer than one layer; all of a stage together leave as many layers as were wanted.

Exact when the later layers of a run do what the first does and do not read it
Papers   on-cross-layer-alignment-for-model, model-fusion-via-optimal-transport
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from shoal.compressors._alignment import aligned, cka
from shoal.compressors._products import products
from shoal.compressors._proposing import possible
from shoal.compressors._transport import fusible, joined
from shoal.compressors._units import Units
from shoal.core.base import Compressor, Proposal
from shoal.core.errors import BadSetting
from shoal.core.example import arguments, unmarked
from shoal.core.scene import Scene, pooled
from shoal.edits.drop import Drop
from shoal.measures._likeness import Units as Features
from shoal.net import Net
from shoal.recipe import done


class FuseLayers(Compressor):
    """Settings: `share` of a stage's layers that goes; `rows` that streams and neurons are seen on."""

    def __init__(self, *, share: float = 0.5, rows: int = 1000) -> None:
        if not 0 < share < 1:
            raise BadSetting(f"compressor fuse_layers: share={share} takes nothing or all; give between 0 and 1")
        if rows < 2:
            raise BadSetting(f"compressor fuse_layers: rows={rows} show no likeness; give at least 2")
        self.share, self.rows = share, rows

    def propose(self, scene: Scene) -> Iterator[Proposal]:
        net = scene.module
        if not isinstance(net, Net):
            return
        for stretch in fusible(net):
            wanted = max(len(stretch) - round(self.share * len(stretch)), 1)
            if wanted == len(stretch):
                continue
            starts = self._starts(scene, net, stretch, wanted)
            runs = [stretch[start:stop] for start, stop in pairwise([*starts, len(stretch)])]
            paths = [path for units in stretch for path in (*units.makers, *units.readers)]
            seen = products(scene, net, paths, self.rows)
            for run in runs:
                if len(run) > 1 and len(seen) == len(paths):
                    one = joined(net, run, seen, by_weights=False)
                    if possible(net, one):
                        yield one

    def _starts(self, scene: Scene, net: Net, stretch: list[Units], wanted: int) -> list[int]:
        """Where the runs begin: with the layers that the shallow net's are matched with."""
        stay = [number * len(stretch) // wanted for number in range(wanted)]
        drops = [Drop(path=units.path, branch=True) for at, units in enumerate(stretch) if at not in stay]
        shallow = done(net, Proposal(tuple(reversed(drops)), ()))
        stage, first = stretch[0].path.rsplit(".", 1)
        few = streams(scene, shallow, [f"{stage}.{int(first) + number}" for number in range(wanted)], self.rows)
        deep = streams(scene, net, [units.path for units in stretch], self.rows)
        return aligned(np.array([[1 - cka(one, other) for other in few] for one in deep]))


def streams(scene: Scene, net: nn.Module, paths: Sequence[str], rows: int) -> list[Features]:
    """The stream behind each of some layers that add to it, on the first examples: the mean over all places."""
    found: dict[str, list[Tensor]] = {path: [] for path in paths}

    def keep(path: str, _: nn.Module, args: tuple[Any, ...], out: Tensor) -> None:
        found[path].append(pooled(args[0] + out, -1))

    with ExitStack() as stack, unmarked(net), torch.no_grad():
        for path in paths:
            stack.callback(net.get_submodule(path).register_forward_hook(partial(keep, path)).remove)
        for batch in scene.head(rows).batches:
            args, kwargs = arguments(batch.example)
            net(*args, **kwargs)
    return [Features(torch.cat(parts)) for parts in found.values()]
