"""Transport: the neurons of one layer laid on those of another, and the two layers made one.

    T = argmin sum_ij T_ij C_ij,    every row and every column of T adds up to 1 / n        C_ij: how far i is from j
    neuron j of the one laid on the other:    sum_i n T_ij (neuron i)
    fused:    rows and shifts are the mean of both, columns their sum: what both add to the stream

Between as many neurons on either side there is a best T that is a permutation over n, and it is found exactly.

Papers   model-fusion-via-optimal-transport
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from shoal.compressors._neurons import Neurons, is_sum, layer_spec, neurons_of, weights_for
from shoal.compressors._products import Product
from shoal.compressors._units import Units, units_of
from shoal.core.base import Proposal
from shoal.core.spec import wiring_of
from shoal.edits.drop import Drop
from shoal.kinds import BLOCKS
from shoal.net import Net


def transport(cost: Tensor) -> Tensor:
    """T, (n, n), of costs (n, n)."""
    rows, columns = linear_sum_assignment(cost.numpy())
    plan = torch.zeros_like(cost)
    plan[rows, columns] = 1 / len(cost)
    return plan


def laid(neurons: Neurons, plan: Tensor) -> Neurons:
    """The neurons of the one layer where those of the other are that they go to."""
    return neurons.like(len(plan) * plan.T @ neurons.flat())


def fused(several: Sequence[Neurons]) -> Neurons:
    """Layers whose neurons are laid on each other, as one."""
    rows, shifts = (
        tuple(torch.stack(parts).mean(dim=0) for parts in zip(*each, strict=True))
        for each in ([one.rows for one in several], [one.shifts for one in several])
    )
    return Neurons(rows, shifts, torch.stack([one.columns for one in several]).sum(dim=0))


def distances(one: Tensor, other: Tensor) -> Tensor:
    """(n, m) squared distances between (n, size) and (m, size), a number of that size."""
    return torch.cdist(one.double(), other.double()).square() / one.shape[1]


def activity(product: Product) -> Tensor:
    """(neurons, rows): what a reader reads of each neuron, at the middle place of its kernel."""
    return product.x[:, :, product.x.shape[2] // 2].T


def fusible(net: Net) -> Iterator[list[Units]]:
    """Runs of like layers of one stage, each a sum of neurons that is added to the stream before the next reads it."""
    alone = [units for units in units_of(net) if is_sum(net, units) and _gives_all(net, units)]
    for stage, spec in enumerate(net.spec.stages):
        if set(wiring_of(spec.wiring, spec.dim, spec.depth).groups() or ()) != {1}:
            continue
        run: list[Units] = []
        for index in range(len(spec.layers)):
            units = next((one for one in alone if one.path == f"stages.{stage}.layers.{index}"), None)
            if run and (units is None or layer_spec(net, units) != layer_spec(net, run[-1])):
                yield run
                run = []
            if units is not None:
                run.append(units)
        if run:
            yield run


def _gives_all(net: Net, units: Units) -> bool:
    """Whether the reader of the units gives all that the layer gives."""
    outlets = BLOCKS.get(layer_spec(net, units).block.name).outlets
    return units.readers == tuple(f"{units.path}.block.{name}" for name in outlets)


def joined(net: Net, run: Sequence[Units], seen: Mapping[str, Product], by_weights: bool) -> Proposal:
    """A run of neighbours as its first: the others laid on it and fused with it, and dropped.

    ``seen``: what the readers read, for distances between neurons; and what the makers read where a norm is behind.
    """
    first = run[0]
    neurons = [neurons_of(net, units) for units in run]
    laid_ones = [neurons[0]]
    for units, own in zip(run[1:], neurons[1:], strict=True):
        if by_weights:
            ends = [
                torch.cat((*each.rows, *(shift[:, None] for shift in each.shifts)), 1) for each in (own, neurons[0])
            ]
        else:
            ends = [activity(seen[each.readers[0]]) for each in (units, first)]
        laid_ones.append(laid(own, transport(distances(*ends))))
    weights = weights_for(net, first, fused(laid_ones), seen)
    drops = tuple(Drop(path=units.path, branch=True) for units in reversed(run[1:]))
    return Proposal(drops, tuple(units.path for units in run), into=first.path, weights=_rest(net, run) | weights)


def _rest(net: Net, run: Sequence[Units]) -> dict[str, Tensor]:
    """All other values of the first layer: the bias of the reader is the sum of all, norms before are their mean."""
    state, found = net.state_dict(), {}
    for name in state:
        path, dot, own = name.partition(run[0].path + ".")
        if path or not dot:
            continue
        every = torch.stack([state[f"{units.path}.{own}"].cpu().double() for units in run])
        total = every.sum(0) if name == f"{run[0].readers[0]}.bias" else every.mean(0)
        found[name] = total.to(state[name])
    return found
