"""Units: the inner widths of a module: what makes their channels, and the matrices that read them.

A unit is one channel, or those that go together: of a head, of a channel whose places were flattened. In a Net the
blocks declare their widths; of any other module `shoal.coupling` finds them by a run. Of a Net's only those are here
whose units do not see each other: dense matrices without groups make and read them, the norms between work on each
channel alone, and no matrix goes from the width to itself. Of others only those that one matrix reads.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from shoal.compressors._seen import coupling_of
from shoal.core.base import Linear, Norm, Proposal
from shoal.core.scene import Scene
from shoal.core.spec import LayerSpec
from shoal.coupling import Width
from shoal.edits.narrow import Narrow
from shoal.kinds import BLOCKS
from shoal.net import Net

log = logging.getLogger("shoal")
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True, eq=False)
class Units:
    """One width. ``columns``: (units, channels of each), as the reader counts its inputs; ``makers``, ``norms`` and
    ``readers``: paths of modules; ``others``: whether other weights hold it too,
    or in another order."""

    path: str  # of the layer, the span about it, or what makes it
    width: str
    columns: Tensor
    makers: tuple[str, ...]
    norms: tuple[str, ...]
    readers: tuple[str, ...]
    narrow: Callable[[Sequence[int]], Narrow]  # the edit that leaves some units
    others: bool = False
    across: tuple[str, ...] = ()  # all it touches, where that is not within one span

    @property
    def count(self) -> int:
        """How many units there are."""
        return len(self.columns)

    def proposal(self, keep: Sequence[int], weights: Mapping[str, Tensor]) -> Proposal:
        """To leave some units, with these weights."""
        if self.across:
            return Proposal((self.narrow(keep),), self.across, None, weights, stay=True)
        return Proposal((self.narrow(keep),), (self.path,), self.path, weights)

    @property
    def each(self) -> int:
        """Channels of a unit."""
        return self.columns.shape[1]


def units_in(scene: Scene) -> list[Units]:
    """Every such width, in the order of the spans."""
    if isinstance(scene.module, Net):
        return list(units_of(scene.module))
    found = [_of_stranger(scene, width) for width in coupling_of(scene).widths]
    return [units for units in found if units is not None]


def units_of(net: Net) -> Iterator[Units]:
    """Those of every layer of a Net that is visited once."""
    for stage, found in enumerate(net.spec.stages):
        if found.order is not None or found.own_norms:
            continue
        for index, spec in enumerate(found.layers):
            path = f"stages.{stage}.layers.{index}"
            for width, axes in BLOCKS.get(spec.block.name).widths.items():
                made = _of_layer(net, path, spec, width, axes)
                if made is not None:
                    yield made


def _of_layer(net: Net, path: str, spec: LayerSpec, width: str, axes: Sequence[str]) -> Units | None:
    sides: dict[str, list[str]] = {"out": [], "dim": [], "in": []}
    for axis in axes:
        name, _, side = axis.rpartition(":")
        sides[side].append(name)
    count = spec.block.settings[width]
    each = spec.block.settings.get("head_dim", 1) if width == "heads" else 1
    assert isinstance(count, int)
    assert isinstance(each, int)
    if not sides["out"] or not sides["in"] or set(sides["out"]) & set(sides["in"]):
        return None
    if spec.linear.name != "dense" or set(spec.linears) & {*sides["out"], *sides["in"]}:
        return None
    block = net.get_submodule(path + ".block")
    sizes = [_size(block.get_submodule(name), side) for side, names in sides.items() for name in names]
    if any(size != count * each for size in sizes):
        return None
    full = {side: tuple(f"{path}.block.{name}" for name in names) for side, names in sides.items()}
    columns = torch.arange(count * each).view(count, each)
    return Units(path, width, columns, full["out"], full["dim"], full["in"], partial(_narrow_layer, path, width))


def _size(part: nn.Module, side: str) -> int | None:
    """How many channels a matrix or norm has on that side; None where they are not each for themselves."""
    if side == "dim":
        assert isinstance(part, Norm)
        return part.affine()[0].numel() if part.channelwise else None
    assert isinstance(part, Linear)
    if part.groups > 1:
        return None
    return part.outputs if side == "out" else part.inputs


def _of_stranger(scene: Scene, width: Width) -> Units | None:
    """The width, where one plain matrix alone reads it."""
    readers = [one for one in width.held if one.axis == 1]
    reader = readers[0].weight.rpartition(".")[0] if len(readers) == 1 else ""
    if not reader or not _plain(scene.module.get_submodule(reader)) or (readers[0].units < 0).any():
        log.info("%s: not proposed: it is not read by one plain matrix or convolution alone", width.weight)
        return None
    around = [
        span.path for span in scene.anatomy.spans if all(f"{path}.".startswith(f"{span.path}.") for path in width.paths)
    ]
    path = max(around, key=len, default=width.path)
    makers = tuple(at for at in width.paths if at != reader and _plain(scene.module.get_submodule(at)))
    in_order = all(np.array_equal(one.units, np.arange(width.units)) for one in width.held)
    return Units(
        path,
        width.weight,
        torch.tensor([(readers[0].units == unit).nonzero()[0].tolist() for unit in range(width.units)]),
        makers,
        (),
        (reader,),
        partial(_narrow_stranger, width),
        others=not in_order or {*makers, reader} != set(width.paths),
        across=() if around else width.paths,
    )


def _plain(part: nn.Module) -> bool:
    """Whether a module is no more than a matrix, or a convolution without groups or gaps."""
    if isinstance(part, nn.Conv1d | nn.Conv2d | nn.Conv3d) and type(part) in CONVOLUTIONS:
        return part.groups == 1 and not isinstance(part.padding, str) and set(part.dilation) == {1}
    return type(part) is nn.Linear


def _narrow_layer(path: str, width: str, keep: Sequence[int]) -> Narrow:
    return Narrow(path=path, width=width, keep=tuple(keep))


def _narrow_stranger(width: Width, keep: Sequence[int]) -> Narrow:
    slices, settings = width.cut(keep)
    return Narrow(path=width.path, keep=tuple(keep), slices=slices, settings=settings)


def weight_of(module: nn.Module, path: str) -> Tensor:
    """The weights of a matrix, (outputs, inputs, *kernel)."""
    weight = module.get_submodule(path).weight
    assert isinstance(weight, Tensor)
    return weight.detach().cpu()


def bias_of(module: nn.Module, path: str) -> Tensor | None:
    """Its bias, if it has one."""
    bias = module.get_submodule(path).bias
    assert bias is None or isinstance(bias, Tensor)
    return None if bias is None else bias.detach().cpu()
