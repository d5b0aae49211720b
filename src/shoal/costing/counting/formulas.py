"""Formulas: multiply-adds and flops of one operation, as executed. These conventions hold wherever shoal counts.

    macs                multiply-adds
    flops               2 macs, and the work done element by element

Multiply-adds:

    matrix product      entries of the left times columns of the right; a bias begins the sum and adds nothing
    convolution         entries of the output (transposed: of the input) times weights that one entry meets
    attention           two matrix products, queries by keys and weights by values; a mask saves nothing
    LSTM layer          (inputs + state) * 4 units, each step; other recurrent layers are the products they consist of
    bilinear form       entries of x W z: batch * outputs * inputs of x * inputs of z
    distances           of rows to rows: what their matrix product takes
    sparse product      stored numbers of the sparse factor times columns; of two sparse ones the pairs that meet
    sums over a graph   one for each number that is added at an index, as in the product by the adjacency matrix
    Fourier transform   2.5 N log2 N for N complex numbers over all its axes, half of it from or to N real ones
    outer product       entries of a product that is larger than both its factors, since a sum normally follows; that
                        sum has flops of its own, so each entry is one flop
    complex numbers     a product takes four real multiply-adds; a convolution is three real ones, as torch does it
    quantised           what the product of floats takes that it stands for

Flops beside them, a number:

    1   that comes out      add, mul, relu, exp, tanh, sqrt, compare, select, whatever its type
    2-6 that comes out      sigmoid 4; silu, gelu, glu 5; others by their steps
    5   that comes out      softmax, log-softmax, and the scores within attention
    7   that comes out      layer and group norm, batch norm in training; RMS norm 4; batch norm in eval 2
    1   that goes in        sum, mean, max, cumulative sum; norm 2, variance 4
    1   in each window      pooling;  resampling 2 for each corner: linear 4, bilinear 8, bicubic 32
    0                       views, copies, gathers, padding, sorting and searching, random numbers

What is in no formula and no such list is said by name, with its place: never counted as nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from shoal.costing.counting.elementwise import element_work
from shoal.costing.counting.products import PRODUCTS
from shoal.costing.counting.sums import SUMS
from shoal.costing.counting.work import Call, Formula, Work, multiplied

FORMULAS: dict[str, Formula] = {**PRODUCTS, **SUMS}
NESTED = {"matmul": PRODUCTS["mm"], "bmm": PRODUCTS["bmm"], "linear": PRODUCTS["linear"]}  # they may come so


def work_of(call: Call) -> Work:
    """What an operation does; its macs are None when that is not known."""
    if call.key in NESTED and _is_nested(call.out):
        return _each(call, NESTED[call.key])
    if call.key in FORMULAS:
        return FORMULAS[call.key](call)
    found = (_outer_product(call) if call.key == "mul" else None) or element_work(call.key, call)
    return Work(None, factors=call.given) if found is None else found


def counts_whole(call: Call) -> bool:
    """Whether an operation that torch could take apart has a formula as it is."""
    return call.key in FORMULAS or (call.key in NESTED and any(_is_nested(arg) for arg in call.args))


def _outer_product(call: Call) -> Work | None:
    """Multiply-adds where both factors are spread out; the flops are the products', since the sum has its own."""
    left, right, out = *call.args[:2], call.first
    if not (isinstance(left, Tensor) and isinstance(right, Tensor)):
        return None
    if out.numel() <= max(left.numel(), right.numel()) or not (out.is_floating_point() or out.is_complex()):
        return None
    matrices = all(sum(size > 1 for size in factor.shape) > 1 for factor in (left, right))
    macs, flops = (4, 6) if out.is_complex() else (1, 1)
    return Work(macs * out.numel(), flops * out.numel(), (left, right) if matrices else ())


def _is_nested(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_nested


def _each(call: Call, formula: Formula) -> Work:
    """The work on several tensors behind one face: that on each of them."""
    count = call.out.size(0)
    columns = [arg.unbind() if _is_nested(arg) else [arg] * count for arg in call.args]
    parts = zip(zip(*columns, strict=True), call.out.unbind(), strict=True)
    works = [formula(replace(call, args=args, out=out)) for args, out in parts]
    return multiplied(sum(work.macs or 0 for work in works), call.args)
