"""LoRAP: in a transformer, attention's matrices get thin and the MLP gets narrow.

    attention    W ~ (U_k S_k^1/2) (S_k^1/2 V_k^T D^-1),    U S V^T = W D,    D = diag( root of the mean of x_j^2 )
    MLP          unit i is worth  |up_i D| + |gate_i D| + |down_i| * (root of the mean of h_i^2)

The thin matrices are the nearest of their rank in what they give, not in their weights. Values and outputs get three
times the weights of queries and keys; outside of a Net these are known by their names, where heads are found at all. Of
the MLP the units worth least go, all but the least hundredth, which stays.

Exact when the ranks reach those of the matrices and the units that go are silent
Papers   lorap-transformer-sub-layers-deserve-differentiated
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from shoal.compressors._neurons import is_sum, neurons_of
from shoal.compressors._products import Product, products
from shoal.compressors._proposing import possible
from shoal.compressors._units import Units, units_in, weight_of
from shoal.core.base import Compressor, Proposal
from shoal.core.errors import BadSetting
from shoal.core.scene import Scene
from shoal.edits.factor import Factor
from shoal.edits.narrow import Narrow

RATIO = 3  # of the weights of a value or output matrix to those of a query or key matrix
LEAST = 0.01  # of the units of an MLP: that many of those worth least stay
MAKERS = (  # how queries, keys and values are called
    ("query", "q_proj", "q_lin", "to_q", "wq", "q"),
    ("key", "k_proj", "k_lin", "to_k", "wk", "k"),
    ("value", "v_proj", "v_lin", "to_v", "wv", "v"),
)
SILENT = 1e-4  # a channel is taken to move by that much at least


class LoRAP(Compressor):
    """Settings: `share` of the weights that goes; `rows` of what a matrix reads, to see how far its inputs move."""

    def __init__(self, *, share: float = 0.5, rows: int = 2000) -> None:
        if not 0 < share < 1:
            raise BadSetting(f"compressor lorap: share={share} takes nothing or all; give between 0 and 1")
        if rows < 1:
            raise BadSetting(f"compressor lorap: rows={rows} show nothing; give at least 1")
        self.share, self.rows = share, rows

    def propose(self, scene: Scene) -> Iterator[Proposal]:
        net = scene.module
        layers: dict[str, list[Units]] = {}
        for units in units_in(scene):
            if is_attention(units) or is_mlp(net, units):
                layers.setdefault(units.path, []).append(units)
        read = [path for every in layers.values() for units in every for path in (*units.makers, *units.readers)]
        seen = products(scene, net, read, self.rows)
        for path, every in layers.items():
            if not all(name in seen for units in every for name in (*units.makers, *units.readers)):
                continue
            parts = [(_thin if is_attention(units) else _narrow)(net, units, seen, self.share) for units in every]
            edits = tuple(edit for part, _ in parts for edit in part)
            weights = {name: value for _, own in parts for name, value in own.items()}
            across = tuple(dict.fromkeys(name for units in every for name in units.across))
            one = Proposal(edits, across or (path,), None if across else path, weights, stay=bool(across))
            if edits and possible(net, one):
                yield one


def is_attention(units: Units) -> bool:
    """Whether the units are heads that queries, keys and values make, in this order, each a matrix of its own."""
    makers = [path.rpartition(".")[2] for path in units.makers]
    return len(makers) == len(MAKERS) and all(own in names for own, names in zip(makers, MAKERS, strict=True))


def is_mlp(net: nn.Module, units: Units) -> bool:
    """Whether the units are those of matrices at each place alone, with no norm between."""
    return is_sum(net, units) and not units.norms and weight_of(net, units.readers[0]).dim() == 2


def _thin(
    net: nn.Module, units: Units, seen: Mapping[str, Product], share: float
) -> tuple[list[Factor | Narrow], dict[str, Tensor]]:
    """Attention's matrices of low rank, as far as that saves weights."""
    paths = (*units.makers, *units.readers)
    edits: list[Factor | Narrow] = []
    found: dict[str, Tensor] = {}
    for path, rank in zip(paths, ranks([weight_of(net, path).shape for path in paths], 1 - share), strict=True):
        weight = weight_of(net, path)
        if rank * sum(weight.shape) < weight.numel():
            edits.append(Factor(path=path, rank=rank))
            up, down = weighted_svd(weight.double(), moves(seen[path]), rank)
            found |= {f"{path}.up": up.to(weight), f"{path}.down": down.to(weight)}
    return edits, found


def _narrow(
    net: nn.Module, units: Units, seen: Mapping[str, Product], share: float
) -> tuple[list[Factor | Narrow], dict[str, Tensor]]:
    """The MLP without the units that are worth little."""
    neurons = neurons_of(net, units)
    worth = neurons.columns.norm(dim=1) * moves(seen[units.readers[0]])
    for path, rows in zip(units.makers, neurons.rows, strict=True):
        worth = worth + (rows * moves(seen[path])).norm(dim=1)
    keep = worthy(worth, max(units.count - round(share * units.count), 1))
    return ([units.narrow(keep)] if len(keep) < units.count else []), {}


def ranks(shapes: Sequence[Sequence[int]], kept: float) -> list[int]:
    """Ranks of query, key, value and output that keep such a share of all their weights, the latter two ``RATIO`` times
    as many as the former; none gets more than it has, and what it cannot use goes to the others."""
    sizes = [rows * columns for rows, columns in shapes]
    left, wants = kept * sum(sizes), dict(enumerate((1, 1, RATIO, RATIO)))
    gets: dict[int, float] = {}
    while wants:
        each = left / sum(wants.values())
        full = [at for at, want in wants.items() if each * want >= sizes[at]]
        for at in full or list(wants):
            gets[at] = min(each * wants.pop(at), sizes[at])
            left -= gets[at]
    return [max(int(gets[at] // (rows + columns)), 1) for at, (rows, columns) in enumerate(shapes)]


def moves(product: Product) -> Tensor:
    """How far each input of a matrix moves: the root of its mean square."""
    return product.x.double().flatten(1).square().mean(dim=0).sqrt().clamp(min=SILENT)


def weighted_svd(weight: Tensor, moved: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """(outputs, rank) and (rank, inputs): their product is nearest to the weights where inputs move so far."""
    left, values, right = torch.linalg.svd(weight * moved, full_matrices=False)
    root = values[:rank].sqrt()
    return left[:, :rank] * root, root[:, None] * right[:rank] / moved


def worthy(worth: Tensor, wanted: int) -> tuple[int, ...]:
    """So many units: those worth most, and in the place of the last of them the least hundredth of all."""
    order = worth.argsort(descending=True, stable=True).tolist()
    least = min(round(LEAST * len(order)), wanted - 1)
    return tuple(sorted(order[: wanted - least] + order[len(order) - least :]))
