"""Calibrating: what exits say of themselves made true, and thresholds at which rows leave for a budget."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional as F

from shoal.core.errors import BadData, BadModel, Diverged, OutOfReach
from shoal.core.example import evaluating
from shoal.costing import cost
from shoal.data import Split
from shoal.exits.leaving import NEVER, confidence, early
from shoal.net import Net


@dataclass(frozen=True)
class Exiting:
    """When rows leave, and what that comes to on the rows that it was chosen on.

    thresholds     one an exit
    temperatures   one an exit
    shares         of the rows: one an exit, and last those that go to the end
    costs          multiply-adds of a row that leaves there, all exits on its way too, as shares of the net without any
    """

    thresholds: tuple[float, ...]
    temperatures: tuple[float, ...]
    shares: tuple[float, ...]
    costs: tuple[float, ...]

    @property
    def cost(self) -> float:
        """Multiply-adds a row on average, as a share of the net without exits."""
        return math.fsum(share * each for share, each in zip(self.shares, self.costs, strict=True))


def exit_costs(net: Net, example: Tensor) -> tuple[float, ...]:
    """Multiply-adds of rows that leave at each exit and at the end, as shares of ``net(example)``, counted."""
    count = len(net.spec.exits)
    whole = cost(net, example, training=False).macs
    runs = [early(net, [NEVER] * number + [0.0] * (count - number)) for number in range(count + 1)]
    return tuple(cost(run, example, training=False).macs / whole for run in runs)


def calibrate(net: Net, split: Split, budget: float, *, batch: int = 512) -> Exiting:
    """Temperatures and thresholds for a mean cost of at most ``budget``, a share of the net's multiply-adds a row.

    ``split``: rows with classes that did not train the net. Raises OutOfReach where even the first exit costs more.
    """
    if not net.spec.exits:
        raise BadModel("calibrate: the net has no exits; write them in its spec, as in residual(mlp) 4x32 | 0.2: pool")
    if split.y.is_floating_point() or split.y.dim() != 1:
        raise BadData("calibrate: the targets are no classes, and only of classes an exit says how sure it is")
    if not len(split):
        raise BadData("calibrate: the split has no rows; give some")
    given, target = _answers(net, split, batch)
    if any(each.dim() != 2 for each in given):
        raise BadModel("calibrate: an exit does not give one answer a row; use a head such as pool")
    costs = exit_costs(net, split.batch(slice(0, 1))[0].to(next(net.parameters()).device))
    if budget < costs[0]:
        raise OutOfReach(f"calibrate: budget {budget} is below the first exit's cost {costs[0]:.3g}; give more")
    temperatures = tuple(_temperature(each, target) for each in given[:-1])
    sure = [confidence(each, by) for each, by in zip(given[:-1], temperatures, strict=True)]
    if any(bool(each.isnan().any()) for each in sure):
        raise Diverged("calibrate: an exit answers NaN, so nothing says how sure it is; train the net anew")
    right = torch.stack([each.argmax(dim=-1) == target for each in given])
    return max(
        (_plan(sure, costs, temperatures, first, budget) for first in range(len(costs)) if costs[first] <= budget),
        key=lambda plan: (int(right.gather(0, _leaving(sure, plan.thresholds)[None]).sum()), -plan.cost),
    )


def _answers(net: Net, split: Split, batch: int) -> tuple[list[Tensor], Tensor]:
    """What every exit gives on all rows, and the targets; on the CPU."""
    device = next(net.parameters()).device
    given: list[tuple[Tensor, ...]] = []
    with evaluating(net), torch.inference_mode():
        for x, _ in split.batches(batch):
            given.append(tuple(each.cpu() for each in net.answers(x.to(device))))
    return [torch.cat(each) for each in zip(*given, strict=True)], split.y.cpu()


def _temperature(given: Tensor, target: Tensor) -> float:
    """The temperature under which the right classes are likeliest, between 1/50 and 50."""
    given = given.double()

    def loss(log: float) -> float:
        return float(F.cross_entropy(given / math.exp(log), target))

    edge = math.log(50)
    return math.exp(float(minimize_scalar(loss, bounds=(-edge, edge), method="bounded").x))


def _shares(costs: Sequence[float], budget: float) -> list[float]:
    """Shares of the rows for the exits and the end, each a constant factor of the one before, that cost the budget."""
    if budget >= costs[-1]:
        return [0.0] * (len(costs) - 1) + [1.0]
    low, high = -30.0, 30.0  # of the factor's logarithm; the cost rises with it
    for _ in range(60):
        middle = (low + high) / 2
        over = math.fsum(share * each for share, each in zip(_powers(middle, len(costs)), costs, strict=True)) > budget
        low, high = (low, middle) if over else (middle, high)
    return _powers(low, len(costs))


def _powers(log: float, count: int) -> list[float]:
    """exp(log * k) for k below count, as shares of their sum."""
    weights: list[float] = F.softmax(log * torch.arange(count, dtype=torch.float64), dim=0).tolist()
    return weights


def _plan(
    sure: Sequence[Tensor], costs: tuple[float, ...], temperatures: tuple[float, ...], first: int, budget: float
) -> Exiting:
    """Thresholds for a budget, at which none leaves before that exit."""
    shares = [0.0] * first + _shares(costs[first:], budget)
    thresholds = _thresholds(sure, shares)
    exits = _leaving(sure, thresholds)
    left = [int((exits == number).sum()) / len(exits) for number in range(len(costs))]
    return Exiting(thresholds, temperatures, tuple(left), costs)


def _thresholds(sure: Sequence[Tensor], shares: Sequence[float]) -> tuple[float, ...]:
    """Thresholds at which at least such shares leave, the surest rows first."""
    inside = torch.ones(len(sure[0]), dtype=torch.bool)
    found: list[float] = []
    for how, share in zip(sure, shares, strict=False):  # the last share goes to the end
        wanted = min(math.ceil(share * len(inside) - 1e-9), int(inside.sum()))
        sorted_ = how[inside].sort(descending=True).values
        found.append(float(sorted_[wanted - 1]) if wanted else NEVER)
        inside &= how < found[-1]
    return tuple(found)


def _leaving(sure: Sequence[Tensor], thresholds: Sequence[float]) -> Tensor:
    """The exit that each row leaves by; the end is the last number."""
    flags = [each >= threshold for each, threshold in zip(sure, thresholds, strict=True)]
    return torch.stack([*flags, torch.ones_like(flags[0])]).int().argmax(dim=0)
