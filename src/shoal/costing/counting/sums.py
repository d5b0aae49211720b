"""Sums: what is added at an index counts as if it were multiplied by the adjacency matrix: one a number added.

So messages that are gathered and scattered cost what the sparse product does that they stand for. The largest or the
product of them, instead of the sum or the mean, is no multiply-add but a flop each.
"""

from __future__ import annotations

from itertools import zip_longest
from math import prod

import torch
from torch import Tensor

from shoal.costing.counting.products import matrix_product
from shoal.costing.counting.storage import numbers
from shoal.costing.counting.work import Call, Formula, Work, multiplied

ADDING = ("sum", "mean", "add")


def _added(count: int, how: str = "sum", factors: tuple[Tensor, ...] = ()) -> Work:
    return multiplied(count, factors) if how in ADDING else Work(0, count)


def _index_add(call: Call) -> Work:
    return _added(call.named("source").numel())


def _index_reduce(call: Call) -> Work:
    return _added(call.named("source").numel(), call.named("reduce"))


def _scatter_add(call: Call) -> Work:
    return _added(call.named("index").numel())


def _scatter_reduce(call: Call) -> Work:
    return _added(call.named("index").numel(), call.named("reduce"))


def _scatter(call: Call) -> Work:
    """A copy, unless it is told to reduce."""
    return _scatter_reduce(call) if "reduce" in call.kwargs else Work(0)


def _put(call: Call) -> Work:
    """A copy, unless it is told to accumulate."""
    return _added(call.named("source").numel()) if call.named("accumulate") else Work(0)


def _index_put(call: Call) -> Work:
    """A copy, unless it is told to accumulate; the values may be spread over the places."""
    if not call.named("accumulate"):
        return Work(0)
    x, indices, values = call.args[0], call.named("indices"), call.named("values")
    given = [index for index in indices if index is not None]
    if any(index.dtype in (torch.bool, torch.uint8) for index in given):
        return Work(0, values.numel())  # a mask names each place once
    whole = prod(size for size, index in zip_longest(x.shape, indices) if index is None)
    return _added(prod(torch.broadcast_shapes(*(index.shape for index in given))) * whole)


def _segments(call: Call) -> Work:
    return _added(call.named("data").numel(), call.named("reduce"))


def _bags(call: Call) -> Work:
    """Rows of a table, summed by bag; mode 0 is the sum, 1 the mean, 2 the largest."""
    count = call.named("indices").numel() * call.named("weight").shape[-1]
    return _added(count, ("sum", "mean", "max")[call.named("mode")])


def _sparse_reduce(call: Call) -> Work:
    left, right, how = call.args[:3]
    count = matrix_product(left, right)
    return Work(None) if count is None else _added(count, how, (left, right))


def _sampled(call: Call) -> Work:
    """A product of which only the stored places of the first argument are computed."""
    at, left, right = call.args[:3]
    return multiplied(numbers(at) * left.shape[-1], (left, right))


def _looked_up_backward(call: Call) -> Work:
    return _added(call.args[0].numel())


SUMS: dict[str, Formula] = {
    "index_add": _index_add,
    "index_reduce": _index_reduce,
    "scatter_add": _scatter_add,
    "scatter_reduce": _scatter_reduce,
    "scatter": _scatter,
    "put": _put,
    **dict.fromkeys(("index_put", "_index_put_impl", "_unsafe_index_put"), _index_put),
    "segment_reduce": _segments,
    **dict.fromkeys(("_embedding_bag", "_embedding_bag_forward_only"), _bags),
    "embedding_dense_backward": _looked_up_backward,
    "_sparse_mm_reduce_impl": _sparse_reduce,
    "sparse_sampled_addmm": _sampled,
}
