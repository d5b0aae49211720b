"""Joints: where like modules of other people may be joined side by side into a wide one.

Each carries a skip of its own, and they stand in a chain. The weights of what makes inner units and of what reads them
stand side by side; biases and norms behind what reads them belong to the sum. Where a norm or scale stands before what
makes the units, they can be joined only if it is the same in all.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from shoal.core.scene import Scene
from shoal.coupling import Coupling, Width
from shoal.coupling.widths import Count, Held
from shoal.edits.merge import Merge

log = logging.getLogger("shoal")
MATRICES = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True, eq=False)
class Joint:
    """What of a span is joined: its inner widths, what reads them, what ends its branches, by names within the span."""

    widths: tuple[Width, ...]
    readers: tuple[str, ...]
    sums: tuple[str, ...]
    norms: tuple[tuple[str, str], ...]

    def merge(self, paths: Sequence[str]) -> Merge:
        """The edit that joins spans of this form."""
        joins = {(held.weight, held.axis): None for width in self.widths for held in width.held}
        counts = {(count.path, count.attribute): None for width in self.widths for count in width.counts}
        return Merge(paths=tuple(paths), joins=tuple(joins), sums=self.sums, norms=self.norms, counts=tuple(counts))

    @property
    def form(self) -> tuple[object, ...]:
        """What must be alike in spans that are joined."""
        axes = tuple((held.weight, held.axis) for width in self.widths for held in width.held)
        counts = tuple((count.path, count.attribute) for width in self.widths for count in width.counts)
        return (axes, counts, self.sums, self.norms)


def joints(scene: Scene, found: Coupling) -> dict[str, Joint]:
    """By path, of the spans that stand in chains; of what cannot be joined, the reason is logged."""
    made: dict[str, Joint] = {}
    for path in (path for chain in scene.anatomy.chains for path in chain):
        widths = tuple(_within(width, path) for width in found.widths if _inside(width, path))
        try:
            made[path] = _joint(scene.module.get_submodule(path), path, widths, scene.anatomy.folds)
        except ValueError as why:
            log.info("%s: not joined with others: %s", path, why)
    return made


def united(several: Sequence[Joint], path: str) -> tuple[Width, ...]:
    """The inner widths of the wide module at a path, by names in the whole module; units in the order of the spans."""
    return tuple(_united(each, path) for each in zip(*(joint.widths for joint in several), strict=True))


def _united(widths: Sequence[Width], path: str) -> Width:
    first = widths[0]
    begins = np.cumsum([0, *(width.units for width in widths)])
    held = [
        Held(f"{path}.{one.weight}", one.axis, _side_by_side([width.held[i].units for width in widths], begins))
        for i, one in enumerate(first.held)
    ]
    counts = [
        Count(
            f"{path}.{one.path}".removesuffix("."),
            one.attribute,
            _side_by_side([width.counts[i].units for width in widths], begins),
        )
        for i, one in enumerate(first.counts)
    ]
    return Width(
        f"{path}.{first.path}".removesuffix("."),
        f"{path}.{first.weight}",
        first.axis,
        int(begins[-1]),
        tuple(held),
        tuple(counts),
    )


def _side_by_side(units: Sequence[np.ndarray], begins: np.ndarray) -> np.ndarray:
    return np.concatenate([np.where(one >= 0, one + begin, -1) for one, begin in zip(units, begins[:-1], strict=True)])


def _inside(width: Width, path: str) -> bool:
    return all(held.weight.startswith(f"{path}.") for held in width.held)


def _within(width: Width, path: str) -> Width:
    """The width with names within a span."""
    cut = len(path) + 1
    held = tuple(Held(one.weight[cut:], one.axis, one.units) for one in width.held)
    counts = tuple(Count(one.path[cut:], one.attribute, one.units) for one in width.counts)
    return Width(width.path[cut:], width.weight[cut:], width.axis, width.units, held, counts)


def _joint(span: nn.Module, path: str, widths: tuple[Width, ...], folds: Sequence[tuple[str, str]]) -> Joint:
    """Raises ValueError, with the reason, where it cannot be joined."""
    if not widths:
        raise ValueError("no inner width was found in it")
    axes: dict[str, int] = {}
    for width in widths:
        for held in width.held:
            if (np.diff(held.units) < 0).any():
                raise ValueError(f"its units lie several times along {held.weight}, as where queries and keys are one")
            if axes.get(held.weight, held.axis) != held.axis:
                raise ValueError(f"{held.weight} both makes and reads inner units; joined, it would be mostly zeros")
            axes[held.weight] = held.axis
    readers = [name.rpartition(".")[0] for name, axis in axes.items() if axis > 0]
    behind = {
        matrix[len(path) + 1 :]: norm[len(path) + 1 :]
        for matrix, norm in folds
        if norm.startswith(f"{path}.") and isinstance(span.get_submodule(norm[len(path) + 1 :]), NORMS)
    }
    for reader in readers:
        part = span.get_submodule(reader)
        if not isinstance(part, MATRICES) or getattr(part, "groups", 1) != 1:
            raise ValueError(f"{reader or 'it'} reads inner units and is no plain matrix or convolution")
    if not readers:
        raise ValueError("nothing in it reads its inner units")
    norms = tuple((reader, behind[reader]) for reader in readers if reader in behind)
    open_ended = [reader for reader in readers if reader not in behind]
    sums = tuple(f"{reader}.bias" for reader in open_ended if span.get_submodule(reader).bias is not None)
    return Joint(widths, tuple(readers), sums, norms)


def alike(made: Mapping[str, Joint], chain: Sequence[str], sizes: Sequence[int]) -> Iterator[tuple[str, ...]]:
    """Neighbours of a chain that can be joined with each other, so many at a time."""
    for size in sizes:
        for first in range(len(chain) - size + 1):
            paths = tuple(chain[first : first + size])
            if all(path in made for path in paths) and len({made[path].form for path in paths}) == 1:
                yield paths
