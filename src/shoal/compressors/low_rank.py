"""Low rank: the matrices of a span become products of thinner ones, at so many weights as a share says.

    plain      W = U V        r (rows + columns) = share * rows * columns
    kernel     W = U C D      both ranks the same share of their widths, so that the weights are the share

Nearest in the plain sense, whatever flows through them: the singular vectors of the weights alone. A matrix that is so
small that this saves nothing stays.

Papers   compactifai-extreme-compression-of-large-language
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from shoal.core.base import Compressor, Linear, Proposal
from shoal.core.errors import BadSetting, Refused
from shoal.core.scene import Scene
from shoal.edits._matrices import layer_in, matrices_in
from shoal.edits.factor import Factor
from shoal.kinds import LINEARS
from shoal.net import Net

log = logging.getLogger("shoal")
TORCH = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class LowRank(Compressor):
    """Settings: `shares`, of the weights of a span's matrices; each is proposed for each span."""

    tiny = {"shares": (0.5,)}

    def __init__(self, *, shares: tuple[float, ...] = (0.5, 0.25)) -> None:
        if not shares or not all(0 < share < 1 for share in shares):
            raise BadSetting(f"compressor low_rank: shares={list(shares)}; give one or more between 0 and 1")
        self.shares = shares

    def propose(self, scene: Scene) -> Iterator[Proposal]:
        for span in scene.anatomy.spans:
            matrices = _matrices(scene.module, span.path)
            for share in self.shares:
                edits = tuple(edit for path, weight in matrices for edit in _factor(path, weight, share))
                if edits:
                    yield Proposal(edits, (span.path,), into=span.path)


def _matrices(module: nn.Module, path: str) -> list[tuple[str, Tensor]]:
    """The weights, (outputs, inputs, *places), of what can be factored in a span; why the others cannot is logged."""
    found: list[tuple[str, Tensor]] = []
    dense: type[Linear] = LINEARS.get("dense")
    net = module if isinstance(module, Net) else None
    for name, part in module.get_submodule(path).named_modules():
        at = f"{path}.{name}".rstrip(".")
        try:
            if net is not None and isinstance(part, dense) and part.groups == 1:
                layer_in(net.spec, at)
                found.append((at, part.matrix().detach().view(part.outputs, -1, *part.kernel)))
            elif isinstance(part, TORCH) and getattr(part, "groups", 1) == 1:
                found += [(at, each.weight.detach()) for at, each in matrices_in(module, at)]
        except Refused as why:
            log.info("%s: not proposed: %s", path, why)
    return found


def _factor(path: str, weight: Tensor, share: float) -> Iterator[Factor]:
    """The factoring of a matrix to a share of its weights; none where it would have as many."""
    outputs, inputs = weight.shape[:2]
    places = int(torch.Size(weight.shape[2:]).numel())
    if places == 1:
        rank = int(share * outputs * inputs / (outputs + inputs))
        if rank:
            yield Factor(path=path, rank=rank)
        return
    square, line = outputs * inputs * places, outputs**2 + inputs**2  # square a^2 + line a = share square
    part = ((line**2 + 4 * share * square**2) ** 0.5 - line) / (2 * square)
    ranks = (int(part * outputs), int(part * inputs))
    if min(ranks):
        yield Factor(path=path, kind="tucker", ranks=ranks)
