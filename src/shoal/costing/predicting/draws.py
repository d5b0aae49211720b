"""Draws: operations and small nets of random sizes, for the latency model to learn from.

Sizes are log-uniform, since what matters is ratios, and half of the time multiples of 8, which machines like. Weights
come in several copies that are used in turn: those of a large net are in no cache when their layer is called.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial
from math import log2
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from shoal.core.spec import Spec

LARGEST = 6e7  # multiply-adds of an operation that is timed


class Draw(NamedTuple):
    """A function and what to call it with; all but its first argument are weights, of which there are that many."""

    function: Callable[..., Tensor]
    arguments: tuple[Tensor, ...]
    copies: int = 1

    def calls(self) -> list[Callable[[], Tensor]]:
        """One call for each copy of the weights."""
        x, *weights = self.arguments
        return [partial(self.function, x, *(weight.clone() for weight in weights)) for _ in range(self.copies)]

    @property
    def pool(self) -> int:
        """Bytes of all copies of the weights."""
        return self.copies * sum(weight.nbytes for weight in self.arguments[1:])


def _copies(chance: random.Random, *weights: Tensor) -> int:
    """How many copies of the weights: up to 64 MB in all, so that some are met in no cache."""
    return max(1, min(64, round(2 ** chance.uniform(14, 26) / sum(weight.nbytes for weight in weights))))


def _size(chance: random.Random, low: float, high: float) -> int:
    """A whole number between, log-uniform; half of the time a multiple of 8."""
    size = 2 ** chance.uniform(log2(low), log2(high))
    return max(1, round(size / 8) * 8 if chance.random() < 0.5 and size > 6 else round(size))


def _convolutions(chance: random.Random) -> Iterator[Draw]:
    while True:
        kernel, stride = chance.choice((1, 3, 3, 3, 3, 5, 7)), chance.choice((1, 1, 1, 2))
        inputs, side, batch = _size(chance, 3, 512), _size(chance, 4, 64), chance.choice((1, 1, 2, 8, 32, 64, 128))
        outputs = chance.choice((inputs, inputs, _size(chance, 4, 512)))
        groups = chance.choice((1, 1, 1, 1, 1, inputs)) if outputs == inputs else 1
        if batch * side**2 * max(inputs / groups * outputs * kernel**2 / stride**2, 16 * inputs) > LARGEST:
            continue
        last = chance.random() < 0.5
        x = torch.rand(batch, side, side, inputs).movedim(-1, 1) if last else torch.rand(batch, inputs, side, side)
        weights = (torch.rand(outputs, inputs // groups, kernel, kernel), torch.rand(outputs))
        convolve = partial(F.conv2d, stride=stride, padding=kernel // 2, groups=groups)
        yield Draw(convolve, (x, *weights), _copies(chance, *weights))


def _products(chance: random.Random) -> Iterator[Draw]:
    while True:
        rows, inner, columns = chance.choice((1, 1, _size(chance, 1, 4096))), _size(chance, 2, 2048), 0
        columns = chance.choice((inner, inner * 4, _size(chance, 1, 2048)))
        batch = chance.choice((0, 0, 0, _size(chance, 2, 256)))
        if max(1, batch) * rows * inner * columns > LARGEST or inner * columns * max(1, batch) > 2**22:
            continue
        if batch:
            yield Draw(torch.bmm, (torch.rand(batch, rows, inner), torch.rand(batch, inner, columns)))
        else:
            weights = (torch.rand(columns, inner), torch.rand(columns))
            yield Draw(F.linear, (torch.rand(rows, inner), *weights), _copies(chance, *weights))


def _attentions(chance: random.Random) -> Iterator[Draw]:
    while True:
        heads, dim, places = _size(chance, 1, 16), _size(chance, 4, 128), _size(chance, 2, 1024)
        batch = chance.choice((1, 1, 4, 16, 64))
        if batch * heads * places**2 * dim * 2 > LARGEST:
            continue
        parts = torch.rand(3, batch, heads, places, dim)
        yield Draw(F.scaled_dot_product_attention, tuple(parts))


def _others(chance: random.Random) -> Iterator[Draw]:
    """Every other operation at sizes from some bytes to some megabytes, the sizes in random order."""
    while True:
        width = chance.choice((16, 32, 64, 128))
        rows = max(1, round(2 ** chance.uniform(4, 22) / width))
        x, scale = torch.rand(rows, width), torch.ones(width)
        planes = torch.rand(1, width, 1, rows)
        index = torch.randint(rows, (rows,))
        square = torch.rand(1, 16, 2 * max(1, round((rows / 4) ** 0.5)), 2 * max(1, round((rows / 4) ** 0.5)))
        for function in (torch.relu, F.gelu, F.silu, torch.sigmoid, torch.tanh, torch.exp, torch.rsqrt, torch.square):
            yield Draw(function, (x,))
        for pairwise in (torch.add, torch.mul, torch.sub, torch.div, torch.maximum):
            yield Draw(pairwise, (x, x.clone()))
        yield Draw((lambda x: torch.softmax(x, -1)), (x,))
        yield Draw((lambda x: torch.mean(x, -1)), (x,))
        yield Draw((lambda x: torch.sum(x, -1)), (x,))
        yield Draw((lambda x: torch.cat((x, x), -1)), (x,))
        yield Draw((lambda x: x.T.clone(memory_format=torch.contiguous_format)), (x,))
        yield Draw((lambda x, i: torch.index_select(x, 0, i)), (x, index))
        yield Draw((lambda x, i: F.embedding(i, x)), (x, index))
        yield Draw((lambda x, w, b: F.layer_norm(x, (x.shape[-1],), w, b)), (x, scale, scale))
        yield Draw((lambda x, m, v: F.batch_norm(x, m, v, m, v)), (planes, torch.zeros(width), scale))
        yield Draw((lambda x: F.max_pool2d(x, 2)), (square,))
        yield Draw((lambda x: F.avg_pool2d(x, 2)), (square,))


DRAWS = {"convolution": _convolutions, "product": _products, "attention": _attentions, "other": _others}


def nets(chance: random.Random) -> Iterator[tuple[Spec, tuple[int, ...]]]:
    """Small nets with the shape of their input: convolutions, mlps and attention in turn, of all depths and widths."""
    while True:
        for kind in ("conv", "mlp", "attention"):
            shape: tuple[int, ...]
            width, depth = _size(chance, 8, 256), round(2 ** chance.uniform(0, 5))
            batch, places = chance.choice((1, 1, 64)), chance.choice((8, 16))
            wiring = chance.choice(("residual", "residual", "plain"))
            if kind == "conv":
                text = f"convolution[channels=3] | {wiring}(conv) {depth}x{width} | pool[outputs=10]"
                work, shape = depth * 18 * width**2 * places**2, (batch, places, places, 3)
            elif kind == "mlp":
                text = f"vector[features=16] | {wiring}(mlp) {depth}x{width} | pool[outputs=10]"
                work, shape = depth * 8 * width**2, (batch, 16)
            else:
                width = max(8, width // 8 * 8)
                block = chance.choice(("attention", "transformer"))
                text = f"convolution[channels=3] | {wiring}({block}) {depth}x{width} | pool[outputs=10]"
                work, shape = depth * 12 * width**2 * places**2, (batch, places, places, 3)
            if work * batch < 5 * LARGEST:
                yield Spec.parse(text), shape
