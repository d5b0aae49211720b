"""Mixing: the width of a layer and the depth of a stage as distributions over candidates, for a gradient to choose.

drawn      two candidates are drawn, weighted by a Gumbel softmax over the two; all others are 0
width      the reader of a hidden row h gets P h in its stead, P = sum_j p_j P_j
           mask: P_j leaves the first c_j units as they are, the others are 0, as they are once narrowed
           stretch: P_j spreads the first c_j units over as many as the widest drawn has, by adaptive average pooling
depth      a stage gives sum_l q_l O_l, O_l: the stream behind its l-th layer
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from shoal.net import StageNet

Align: TypeAlias = Literal["mask", "stretch"]
DRAWN = 2


def candidates(count: int, shares: Sequence[float]) -> tuple[int, ...]:
    """The sizes to choose from, smallest first: at least 1 each, none twice, the whole always among them."""
    return tuple(sorted({max(1, round(share * count)) for share in shares} | {count}))


def drawn(logits: Tensor, temperature: float) -> Tensor:
    """(candidates,) the weights of this draw: they sum to 1, and at most two of them are not 0."""
    logs = logits.log_softmax(dim=0)
    picked = torch.multinomial(logs.detach().exp(), min(DRAWN, len(logits)))
    noise = -torch.empty_like(logs).exponential_().log()
    weights = ((logs + noise)[picked] / temperature).softmax(dim=0)
    return torch.zeros_like(logs).index_put((picked,), weights)


def stretched(units: int, to: int) -> Tensor:
    """(to, units) the matrix of adaptive average pooling: the identity where the two are the same."""
    matrix = torch.zeros(to, units)
    for row in range(to):
        first, last = row * units // to, math.ceil((row + 1) * units / to)
        matrix[row, first:last] = 1 / (last - first)
    return matrix


def mixed(weights: Tensor, sizes: Sequence[int], order: Sequence[int], align: Align) -> Tensor:
    """P, (units, units): ``order`` says which unit is the first, the second and so on."""
    units = len(order)
    places = torch.as_tensor(order)
    widest = max(size for size, weight in zip(sizes, weights.detach(), strict=True) if weight > 0)
    total = weights.new_zeros(units, units)
    for size, weight in zip(sizes, weights, strict=True):
        piece = torch.eye(size) if align == "mask" else stretched(min(size, widest), widest)
        full = torch.zeros(units, units)
        full[: piece.shape[0], : piece.shape[1]] = piece
        total = total + weight * full.to(total)
    back = places.argsort()
    return total[back][:, back]


def read_mixed(weight: Tensor, mix: Tensor, each: int) -> Tensor:
    """The matrix (outputs, inputs, *kernel) that reads P h in the stead of h; ``each``: channels of a unit."""
    whole = torch.kron(mix, torch.eye(each).to(mix)).to(weight)
    return torch.einsum("oi...,ij->oj...", weight, whole)


def priced(expected: Tensor, target: float, slack: float) -> Tensor:
    """log E above (1 + slack) target, minus log E below (1 - slack) target, 0 between."""
    now = float(expected.detach())
    if now > (1 + slack) * target:
        return expected.log()
    return -expected.log() if now < (1 - slack) * target else expected.new_zeros(())


@contextmanager
def left_early(stages: dict[StageNet, Tensor]) -> Iterator[None]:
    """Inside, each stage gives the mixture of the streams behind its layers; its layers add to one stream in turn."""
    with ExitStack() as stack:
        for stage, weights in stages.items():
            _mix_depth(stack, stage, weights)
        yield


def _mix_depth(stack: ExitStack, stage: StageNet, weights: Tensor) -> None:
    streams: list[Tensor] = []

    def before(_: nn.Module, args: tuple[Any, ...]) -> None:
        streams.append(args[0])

    def after(_: nn.Module, args: tuple[Any, ...], out: Tensor) -> Tensor:
        behind = [*streams[1:], out]
        streams.clear()
        return torch.stack([weight * one for weight, one in zip(weights.to(out), behind, strict=True)]).sum(dim=0)

    for layer in stage.layers:
        stack.callback(layer.register_forward_pre_hook(before).remove)
    stack.callback(stage.register_forward_hook(after).remove)
