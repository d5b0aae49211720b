"""Graphs: edges as a sparse matrix, what it does to the rows of a batch, and where repeating it leads.

edges        (2, E) int64: row 0 holds where each begins, row 1 where it ends; both directions where there is none
adjacency    S = D^-1/2 (A + I) D^-1/2, sparse CSR, made once by :func:`normalised`; D: degrees of A + I
walk         D^-1 (A + I), by :func:`walking`: each node becomes the mean of itself and its neighbours

A self-loop among the edges counts once only, as the one that every node has. An edge given twice counts twice.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from itertools import tee
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.weak import WeakIdKeyDictionary

from shoal.core.errors import BadModel

EPS = 1e-10  # added where a row of zeros has no direction
BETA = "Sparse CSR tensor support is in beta state"
_TURNED = WeakIdKeyDictionary()  # matrix -> the same turned round


def check_edges(edges: Tensor, nodes: int) -> None:
    """Raises BadModel unless these are edges between so many nodes."""
    if edges.dim() != 2 or edges.shape[0] != 2 or edges.dtype != torch.int64:
        raise BadModel(f"edges: {edges.dtype} of shape {tuple(edges.shape)}; give int64 of shape (2, edges)")
    if edges.numel() and not (int(edges.min()) >= 0 and int(edges.max()) < nodes):
        raise BadModel(
            f"edges: join nodes {int(edges.min())} to {int(edges.max())}, and the batch holds {nodes} rows; "
            "give the rows of all nodes"
        )


def closed(edges: Tensor, nodes: int) -> Tensor:
    """The edges with one self-loop at every node, the loops last."""
    own = torch.arange(nodes, device=edges.device)
    return torch.cat((edges[:, edges[0] != edges[1]], own.expand(2, -1)), dim=1)


def normalised(edges: Tensor, nodes: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """S = D^-1/2 (A + I) D^-1/2 as sparse CSR, (nodes, nodes)."""
    begin, end, degrees = _sorted(edges, nodes, dtype)
    root = degrees.rsqrt()
    return _csr(begin, end, root[end] * root[begin], nodes)


def walking(edges: Tensor, nodes: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """D^-1 (A + I) as sparse CSR, (nodes, nodes): its rows sum to one."""
    begin, end, degrees = _sorted(edges, nodes, dtype)
    return _csr(begin, end, degrees.reciprocal()[end], nodes)


def spread(adjacency: Tensor, x: Tensor) -> Tensor:
    """The sparse matrix times the rows of x, (nodes, *places, dim); memory for the rows alone, none for each edge."""
    if adjacency.shape[0] != len(x):
        raise BadModel(f"adjacency of {adjacency.shape[0]} nodes for {len(x)} rows; give the rows of all nodes")
    rows = x.flatten(1).to(torch.promote_types(x.dtype, adjacency.dtype))
    with torch.autocast(x.device.type, enabled=False):  # sparse products are of one type, the matrix's
        product: Tensor = _Product.apply(adjacency, rows)  # type: ignore[no-untyped-call]
    return product.view(x.shape)


def transposed(adjacency: Tensor) -> Tensor:
    """The matrix turned round, as sparse CSR; made once and kept as long as the matrix is."""
    if adjacency not in _TURNED:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=BETA)
            _TURNED[adjacency] = adjacency.t().to_sparse_csr()
    found: Tensor = _TURNED[adjacency]
    return found


class _Product(torch.autograd.Function):
    """A sparse matrix times a dense one. Torch's own backward takes many times as long as its forward, as it multiplies
    by columns; this one multiplies by the rows of the matrix turned round."""

    @staticmethod
    def forward(ctx: Any, adjacency: Tensor, x: Tensor) -> Tensor:
        ctx.adjacency = adjacency
        product: Tensor = adjacency @ x
        return product

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        product: Tensor = _Product.apply(transposed(ctx.adjacency), grad)  # type: ignore[no-untyped-call]
        return None, product


def components(edges: Tensor, nodes: int) -> Tensor:
    """(nodes,) the smallest node that each is connected to, whichever way the edges point."""
    begin, end = torch.cat((edges, edges.flip(0)), dim=1)
    found = torch.arange(nodes, device=edges.device)
    while True:
        least = found.scatter_reduce(0, end, found[begin], "amin")
        least = least[least]  # whom my own smallest is connected to: distances halve in a round
        if torch.equal(least, found):
            return found
        found = least


def stationary(edges: Tensor, x: Tensor) -> Tensor:
    """What walking for ever makes of the rows, where edges go both ways: in each component the mean by degree.

    x^inf_v = sum_{u connected to v} (d_u + 1) / (2 m + n) x_u        m edges and n nodes in the component
    """
    nodes = len(x)
    at = components(edges, nodes)
    weights = torch.bincount(closed(edges, nodes)[1], minlength=nodes).to(x.dtype)
    rows = x.flatten(1)
    total = weights.new_zeros(nodes).index_add(0, at, weights)
    summed = torch.zeros_like(rows).index_add(0, at, weights.unsqueeze(1) * rows)
    return (summed[at] / total[at].unsqueeze(1)).view(x.shape)


def walks(edges: Tensor, x: Tensor, hops: int) -> Iterator[Tensor]:
    """x, and what 1, 2, ... ``hops`` steps of the walk make of it, one after another."""
    matrix = walking(edges, len(x), x.dtype)
    yield x
    for _ in range(hops):
        x = spread(matrix, x)
        yield x


def smoothness(steps: Iterable[Tensor], limit: Tensor) -> Iterator[Tensor]:
    """NSL of each step, (nodes,): sim(x^k, x^0) * (1 - sim(x^k, x^inf)), sim the cosine of a node's rows.

    High where a node still is itself and not yet what all of its component become.
    """
    last, first = _unit(limit), None
    for step in steps:
        row = _unit(step)
        first = row if first is None else first
        yield (row * first).sum(-1) * (1 - (row * last).sum(-1))


def adaptive(edges: Tensor, x: Tensor, hops: int) -> Tensor:
    """sum_k w_v(k) x^k_v with w_v = softmax over k of NSL_v(k), k = 0 .. ``hops``: each node at depths of its own.

    One step is held at a time: NSL lies within -2 and 2, so that the softmax needs no largest beforehand.
    """
    check_edges(edges, len(x))
    steps, again = tee(walks(edges, x, hops))
    mixed, total = torch.zeros_like(x.flatten(1)), x.new_zeros(len(x), 1)
    for level, step in zip(smoothness(steps, stationary(edges, x)), again, strict=True):
        weight = level.exp().unsqueeze(1)
        mixed, total = mixed.addcmul(step.flatten(1), weight), total + weight
    return (mixed / total).view(x.shape)


def _unit(x: Tensor) -> Tensor:
    return F.normalize(x.flatten(1), dim=-1, eps=EPS)


def _sorted(edges: Tensor, nodes: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Begins and ends of the closed edges in the order of their ends, and the degrees."""
    check_edges(edges, nodes)
    begin, end = closed(edges, nodes)
    end, order = end.sort(stable=True)
    return begin[order], end, torch.bincount(end, minlength=nodes).to(dtype)


def _csr(begin: Tensor, end: Tensor, values: Tensor, nodes: int) -> Tensor:
    starts = torch.zeros(nodes + 1, dtype=torch.int64, device=end.device)
    starts[1:] = torch.bincount(end, minlength=nodes).cumsum(0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=BETA)
        return torch.sparse_csr_tensor(starts, begin, values, (nodes, nodes), check_invariants=False)
