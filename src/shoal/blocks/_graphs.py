"""Graphs within blocks: the nodes are the rows of the batch; what the blocks of graphs share.

Where neither edges nor adjacency come, there are no edges: every node has its self-loop alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from shoal.core.errors import BadSetting, suggest
from shoal.core.graphs import check_edges, closed, normalised, spread

SMALLEST, LARGEST = 1e-7, 10.0  # messages that powers are taken of


def propagated(x: Tensor, hops: int, edges: Tensor | None, adjacency: Tensor | None) -> Tensor:
    """S^hops x; the adjacency where it comes, else made from the edges; x itself where neither does."""
    if hops and adjacency is None and edges is not None:
        adjacency = normalised(edges, len(x), x.dtype)
    if adjacency is None:
        return x
    for _ in range(hops):
        x = spread(adjacency, x)
    return x


def ends_of(edges: Tensor | None, x: Tensor) -> tuple[Tensor, Tensor]:
    """Where each edge begins and where it ends, with a self-loop at every node; the loops alone where none come."""
    if edges is None:
        own = torch.arange(x.shape[0], device=x.device)
        return own, own
    check_edges(edges, len(x))
    begin, end = closed(edges, len(x))
    return begin, end


def summed(messages: Tensor, end: Tensor, nodes: int) -> Tensor:
    """Messages, (edges, ...), added at the nodes where they end, (nodes, ...)."""
    return messages.new_zeros(nodes, *messages.shape[1:]).index_add(0, end, messages)


def averaged(messages: Tensor, end: Tensor, nodes: int) -> Tensor:
    """Their mean at each node; zero where none end."""
    count = torch.bincount(end, minlength=nodes).clamp(min=1).to(messages.dtype)
    return summed(messages, end, nodes) / count.view(-1, *(1 for _ in messages.shape[1:]))


def softmax_at(scores: Tensor, end: Tensor, nodes: int) -> Tensor:
    """Scores, (edges, ...), as shares of all that end at the same node."""
    index = end.view(-1, *(1 for _ in scores.shape[1:])).expand_as(scores)
    largest = scores.detach().new_zeros(nodes, *scores.shape[1:])
    largest = largest.scatter_reduce(0, index, scores.detach(), "amax", include_self=False)
    raised = (scores - largest[end]).exp()
    return raised / summed(raised, end, nodes)[end]


def softmax_aggregation(messages: Tensor, end: Tensor, nodes: int, sharpness: Tensor) -> Tensor:
    """sum of softmax(sharpness * m) * m, channel by channel: the mean at 0, the largest at infinity."""
    return summed(softmax_at(sharpness * messages, end, nodes) * messages, end, nodes)


def power_aggregation(messages: Tensor, end: Tensor, nodes: int, power: Tensor) -> Tensor:
    """(mean of m^power)^(1/power), messages held within 1e-7 and 10: the mean at 1, the largest at infinity."""
    held = messages.clamp(SMALLEST, LARGEST).log()
    power = torch.where(power.abs() < 1e-3, torch.full_like(power, 1e-3), power)  # at 0 it would be 0 / 0
    index = end.view(-1, *(1 for _ in held.shape[1:])).expand_as(held)
    scaled = power * held
    largest = scaled.detach().new_zeros(nodes, *held.shape[1:])
    largest = largest.scatter_reduce(0, index, scaled.detach(), "amax", include_self=False)
    mean = averaged((scaled - largest[end]).exp(), end, nodes)
    return ((mean.clamp(min=torch.finfo(mean.dtype).tiny).log() + largest) / power).exp()


Aggregation = Callable[[Tensor, Tensor, int, Tensor], Tensor]  # messages, ends, nodes, how sharp -> (nodes, ...)
AGGREGATIONS: Mapping[str, Aggregation] = {"softmax": softmax_aggregation, "power": power_aggregation}


def aggregation(name: str) -> Aggregation:
    """The aggregation of that name; BadSetting with the known ones otherwise."""
    if name not in AGGREGATIONS:
        raise BadSetting(f"aggregation {name!r} is unknown; {suggest(name, AGGREGATIONS)}")
    return AGGREGATIONS[name]


def checked(block: str, hops: int, dropout: float) -> None:
    """Raises BadSetting unless there may be so many hops and such a share may be left out."""
    if hops < 0:
        raise BadSetting(f"block {block}: hops={hops} is none; give 0 for no propagation, or more")
    if not 0 <= dropout < 1:
        raise BadSetting(f"block {block}: dropout={dropout} must be a share, from 0 to below 1")


def dropped(x: Tensor, share: float, training: bool) -> Tensor:
    """x with a share of its numbers left out in training, the others scaled up.

    On a processor torch's own dropout draws every number of its mask by itself, which takes longer than all else that
    there is to do where propagation is worked out once; uniform numbers are drawn twice as fast.
    """
    if not (share and training):
        return x
    return x * torch.rand(x.shape, device=x.device).ge_(share).mul_(1 / (1 - share)).to(x.dtype)
