"""Dirichlet: how much neighbouring places differ; it falls to zero where depth makes them all alike.

    E(x) = mean over pairs |x_i - x_j|^2 / (2 mean over places |x_i|^2)        0: all alike, about 1: as if drawn apart

Pairs are joined by edges where the examples are nodes of a graph, else next to each other along every axis of the
places; where there are none, one example and the next. Of the stream before a span, of that behind it, and their
ratio (1 where there is none before).

Cost     one run of all examples
Papers   neural-sheaf-diffusion-a-topological-perspective
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from pandas import DataFrame
from torch import Tensor, nn

from shoal.core.base import Measure
from shoal.core.example import tensors
from shoal.core.scene import Batch, Scene
from shoal.measures._alone import share, squares
from shoal.measures._tables import table
from shoal.measures._watching import every_update

NAMED = ("edges", "edge_index", "adjacency")


class Dirichlet(Measure):
    """No settings."""

    def table(self, scene: Scene) -> DataFrame:
        sums = np.zeros((len(scene.spans), 2, 4))
        for batch, _, updates in every_update(scene):
            edges = _edges(scene.module, batch)
            for number, span in enumerate(scene.spans):
                found = updates[span.at]
                for side, x in enumerate((found.stream, found.behind)):
                    sums[number, side] += _differences(x.movedim(span.axis, -1).double(), edges)
        energies = [[share(apart * places, 2 * size * pairs) for apart, pairs, size, places in both] for both in sums]
        return table(
            scene,
            {
                "energy_in": [before for before, _ in energies],
                "energy_out": [after for _, after in energies],
                "ratio": [after / before if before > 0 else 1.0 for before, after in energies],
            },
        )


def _differences(x: Tensor, edges: Tensor | None) -> list[float]:
    """Squares of the differences of pairs, how many pairs, squares of all places, how many places."""
    size = [squares(x), x[..., 0].numel()]
    if edges is not None and (not edges.numel() or int(edges.max()) < len(x)):
        apart = x[edges[0]] - x[edges[1]]
        return [squares(apart), apart[..., 0].numel(), *size]
    axes = range(1, x.dim() - 1) if x[0, ..., 0].numel() > 1 else range(1)
    steps = [x.diff(dim=axis) for axis in axes]
    return [sum(map(squares, steps)), sum(step[..., 0].numel() for step in steps), *size]


def _edges(module: nn.Module, batch: Batch) -> Tensor | None:
    """(2, pairs) of nodes that are joined, without those joined to themselves; None where there is no graph.

    They go by their names in the example, or in the context that a module holds where it stands for a net and its
    graph; where rows are nodes, a tensor of two rows of whole numbers behind the first is taken for them.
    """
    found = _named(batch.example) or _named(getattr(module, "context", None))
    if not found and batch.whole:
        found = [one for one in tensors(batch.example)[1:] if one.dtype == torch.int64 and one.shape[:-1] == (2,)]
    if not found:
        return None
    pairs = found[0] if found[0].layout == torch.strided else found[0].to_sparse_coo().coalesce().indices()
    return pairs[:, pairs[0] != pairs[1]]


def _named(tree: Any) -> list[Tensor]:
    """Tensors that go by one of the names, at any depth."""
    if not isinstance(tree, Mapping):
        return [one for item in tree for one in _named(item)] if isinstance(tree, tuple | list) else []
    own = [tree[name] for name in NAMED if isinstance(tree.get(name), Tensor)]
    return own + [one for item in tree.values() for one in _named(item)]
