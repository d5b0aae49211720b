"""Kernels: how long single operations take on this machine, learned from some that were timed.

convolution, product, attention     trees over the sizes, on top of what peak and bandwidth allow
everything else                     a curve over the bytes that are moved, one for each name

Times grow with sizes but not smoothly: a width of 48 can be faster than 44, since vectors hold 8 or 16 numbers. So the
trees see what divides the sizes, and how many bytes of weights there are in all: weights that fit no cache come late.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesRegressor

from shoal.core.errors import BadData
from shoal.costing.table import Cost, Operation

Array = NDArray[np.float64]

_CONVOLUTIONS = {"aten.convolution", "aten._convolution", "aten.convolution_overrideable"}
_PRODUCTS = {"aten.mm": 0, "aten.bmm": 0, "aten.mv": 0, "aten.dot": 0, "aten.addmm": 1, "aten.baddbmm": 1}
FAMILIES = ("convolution", "product", "attention", "other")
FEWEST = 8  # timed operations that a family needs


@dataclass(frozen=True)
class Sample:
    """An operation that was timed: its family, its sizes as :func:`sizes_of` gives them, and milliseconds."""

    family: str
    name: str
    sizes: tuple[float, ...]
    ms: float


def kernels_of(found: Cost) -> list[Operation]:
    """The operations that take time: no bare allocations, and attention in one piece, as processors run it.

    On the meta device attention is counted in its parts: two scalings, a product, a softmax, a product.
    """
    kept: list[Operation] = []
    waiting: Operation | None = None  # the product of an attention whose other product is to come
    for operation in found.operations:
        if operation.name.startswith("aten.empty"):
            continue
        if operation.name == "aten._safe_softmax":
            while kept and kept[-1].name != "aten.bmm":
                kept.pop()  # what was added to the scores
            waiting = kept.pop()
            while kept and kept[-1].name == "aten.mul" and kept[-1].path == operation.path:
                kept.pop()
        elif waiting is not None and operation.name == "aten.bmm":
            kept.append(_attention(waiting, operation))
            waiting = None
        else:
            kept.append(operation)
    return kept


def _attention(scores: Operation, mixed: Operation) -> Operation:
    (batch, dim, places), value = scores.inputs[1], mixed.inputs[1]
    inputs = (scores.inputs[0], (batch, places, dim), value)
    name = "aten._scaled_dot_product_flash_attention_for_cpu"
    return replace(mixed, name=name, inputs=inputs, macs=scores.macs + mixed.macs)


def family_of(operation: Operation) -> str:
    """One of FAMILIES."""
    if operation.name in _CONVOLUTIONS:
        return "convolution"
    if operation.name in _PRODUCTS:
        return "product"
    return "attention" if "scaled_dot_product" in operation.name else "other"


def sizes_of(operation: Operation, pool: int) -> tuple[float, ...]:
    """What the time of an operation depends on; the first two are multiply-adds and bytes moved.

    `pool` is the bytes of all weights of the net that it stands in.
    """
    work = (float(operation.macs), float(operation.moved))
    family = family_of(operation)
    if family == "convolution":
        x, weight = operation.inputs[:2]
        out = operation.output or x
        inner, kernel = prod(weight[1:]), prod(weight[2:])
        groups = x[1] / weight[1] if len(x) == len(weight) else 1.0
        rows = prod(out) / weight[0]
        strided = prod(x[2:]) / max(prod(out[2:]), 1)
        return (*work, pool, rows, inner, weight[0], kernel, x[0], groups, strided)
    if family == "product":
        left, right = operation.inputs[_PRODUCTS[operation.name] :][:2]
        batch, rows = (left[0] if len(left) == 3 else 1), (left[-2] if len(left) > 1 else 1)
        return (*work, pool, rows, left[-1], right[-1] if len(right) > 1 else 1, batch)
    if family == "attention":
        query, key = operation.inputs[:2]
        moved = 4.0 * sum(math.prod(shape) for shape in (*operation.inputs[:3], query))  # some kernels give more out
        return (float(operation.macs), moved, pool, query[-2], key[-2], query[-1], prod(query[:-2]))
    return work


def prod(sizes: Sequence[float]) -> float:
    """Their product, 1 for none."""
    return math.prod(sizes)


class Kernels:
    """Milliseconds of operations, by what was timed. Raises BadData where a family has too few samples."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        by_family: dict[str, list[Sample]] = {family: [] for family in FAMILIES}
        for sample in samples:
            by_family[sample.family].append(sample)
        for family, own in by_family.items():
            if len(own) < FEWEST:
                raise BadData(f"latency model: {len(own)} timed operations of {family}; run shoal probe again, longer")
        self._trees = {family: _Trees(by_family[family]) for family in FAMILIES[:-1]}
        self._curves = _Curves(by_family["other"])

    def times(self, operations: Sequence[Operation], pool: int) -> Array:
        """Milliseconds of each, in order."""
        found = np.zeros(len(operations))
        for family in FAMILIES:
            at = [i for i, one in enumerate(operations) if family_of(one) == family]
            if not at:
                continue
            sizes = [sizes_of(operations[i], pool) for i in at]
            names = [operations[i].name for i in at]
            found[at] = self._curves(names, sizes) if family == "other" else self._trees[family](sizes)
        return found


class _Trees:
    """log(ms) over the least that peak and bandwidth allow, as the mean of many random trees."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        sizes, ms = np.array([sample.sizes for sample in samples]), np.array([sample.ms for sample in samples])
        self._least_ms = float(np.quantile(ms, 0.01))
        self._macs_per_ms = float(np.quantile(sizes[:, 0] / ms, 0.98))
        self._bytes_per_ms = float(np.quantile(sizes[:, 1] / ms, 0.98))
        self._forest = ExtraTreesRegressor(100, min_samples_leaf=2, random_state=0)
        self._forest.fit(_features(sizes), np.log(ms / self._floor(sizes)))

    def __call__(self, sizes: Sequence[tuple[float, ...]]) -> Array:
        rows, back = np.unique(np.array(sizes), axis=0, return_inverse=True)  # layers repeat
        found: Array = np.exp(self._forest.predict(_features(rows))) * self._floor(rows)
        return found[back.reshape(-1)]

    def _floor(self, sizes: Array) -> Array:
        least = self._least_ms + sizes[:, 0] / self._macs_per_ms + sizes[:, 1] / self._bytes_per_ms
        return np.asarray(least)


def _features(sizes: Array) -> Array:
    """Logarithms, and whether 4, 8 and 16 divide what is behind the first three."""
    inner = sizes[:, 3:]
    whole = [(inner % by == 0).astype(float) for by in (4, 8, 16)]
    return np.concatenate([np.log2(1 + sizes), *whole], axis=1)


class _Curves:
    """Milliseconds over the bytes moved: one curve a name, and the median of all for names that were not timed."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        names = sorted({sample.name for sample in samples})
        points = {name: sorted((s.sizes[1], s.ms) for s in samples if s.name == name) for name in names}
        self._curves: Mapping[str, Array] = {name: np.log(np.array(own)).T for name, own in points.items()}

    def __call__(self, names: Sequence[str], sizes: Sequence[tuple[float, ...]]) -> Array:
        moved = np.log([max(own[1], 1.0) for own in sizes])
        return np.array([self._at(name, float(x)) for name, x in zip(names, moved, strict=True)])

    def _at(self, name: str, x: float) -> float:
        curves = [self._curves[name]] if name in self._curves else list(self._curves.values())
        return float(np.exp(np.median([_line(curve, x) for curve in curves])))


def _line(curve: Array, x: float) -> float:
    """Between the points a straight line; beyond the last, time grows as the bytes do."""
    xs, ys = curve
    return float(np.interp(x, xs, ys)) + max(0.0, x - float(xs[-1]))
