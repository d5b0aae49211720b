"""NTK fuse: neurons that are alike become one, so that function and tangent kernel stay near.

    y = sum_i v_i act(w_i x + b_i)    ->    y = sum_j v'_j n_j act(w'_j x + b'_j)

The neurons (w_i, b_i, v_i) are clustered by k-means: w'_j, b'_j, v'_j are the means of a cluster, n_j is how many were
in it. Where act(a x) = a act(x) for a > 0, the root of n_j goes to either side, which keeps the gradients of both near
to what they were; else n_j goes to v'_j.

Exact when the neurons of every cluster are the same
Papers   ntk-approximating-mlp-fusion-for-efficient
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import nn

from shoal.compressors._neurons import Neurons, is_sum, layer_spec, neurons_of, weights_for
from shoal.compressors._products import Product, products
from shoal.compressors._proposing import possible
from shoal.compressors._units import Units, units_in
from shoal.core.base import Compressor, Proposal
from shoal.core.errors import BadSetting
from shoal.core.part import Value
from shoal.core.scene import Scene
from shoal.core.spec import LayerSpec
from shoal.net import Net

HOMOGENEOUS = ("identity", "relu", "leaky_relu")


class NTKFuse(Compressor):
    """Settings: `share` of the neurons that goes; `restarts` of the clustering; `rows` of what a layer reads, for the
    statistics of a norm within it."""

    tiny: ClassVar[Mapping[str, Value]] = {"restarts": 2}

    def __init__(self, *, share: float = 0.5, restarts: int = 30, rows: int = 2000) -> None:
        if not 0 < share < 1:
            raise BadSetting(f"compressor ntk_fuse: share={share} takes nothing or all; give between 0 and 1")
        if restarts < 1 or rows < 1:
            raise BadSetting(f"compressor ntk_fuse: restarts={restarts}, rows={rows}; give at least 1")
        self.share, self.restarts, self.rows = share, restarts, rows

    def propose(self, scene: Scene) -> Iterator[Proposal]:
        module = scene.module
        every = [units for units in units_in(scene) if is_sum(module, units)]
        normed = [path for units in every if units.norms for path in units.makers]
        seen = products(scene, module, normed, self.rows) if normed else {}
        for units in every:
            wanted = max(units.count - round(self.share * units.count), 1)
            if wanted < units.count and (not units.norms or units.makers[0] in seen):
                one = self._fused(module, units, wanted, seen, scene.seed)
                if possible(module, one):
                    yield one

    def _fused(self, module: nn.Module, units: Units, wanted: int, seen: Mapping[str, Product], seed: int) -> Proposal:
        split = isinstance(module, Net) and _splits(layer_spec(module, units), units)
        keep, few = fused(neurons_of(module, units), wanted, split, self.restarts, seed)
        weights = weights_for(module, units, few, seen)
        return units.proposal(keep, weights)


def _splits(spec: LayerSpec, units: Units) -> bool:
    """Whether a factor can be put before the activation as well as behind it."""
    return len(units.makers) == 1 and spec.block.settings.get("act") in HOMOGENEOUS


def fused(neurons: Neurons, wanted: int, split: bool, restarts: int, seed: int) -> tuple[list[int], Neurons]:
    """At most so many neurons in place of these, and for each the one of its cluster that is nearest to it; in the
    order of those. ``split``: the root of how many were in a cluster goes to either side."""
    flat = neurons.flat()
    clusters = min(wanted, len(np.unique(flat.numpy(), axis=0)))
    found = KMeans(clusters, n_init=restarts, random_state=seed).fit(flat.numpy())
    labels, centres = torch.from_numpy(found.labels_).long(), torch.from_numpy(found.cluster_centers_)
    far = (flat - centres[labels]).square().sum(dim=1)
    members = [torch.nonzero(labels == cluster).squeeze(1) for cluster in range(clusters)]
    keep = [int(own[far[own].argmin()]) for own in members]
    order = sorted(range(clusters), key=keep.__getitem__)
    means = torch.stack([flat[members[cluster]].mean(dim=0) for cluster in order])
    sizes = torch.tensor([len(members[cluster]) for cluster in order]).double()
    rows, shifts, columns = neurons.like(means)
    inside, outside = (sizes.sqrt(), sizes.sqrt()) if split else (torch.ones_like(sizes), sizes)
    scaled = tuple(part * inside[:, None] for part in rows), tuple(part * inside for part in shifts)
    return [keep[cluster] for cluster in order], Neurons(*scaled, columns * outside[:, None])
