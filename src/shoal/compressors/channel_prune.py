"""Channel prune: the channels of a layer from which the next matrix can best be made up again.

    1  lasso: a weight on what each channel gives to the next matrix; the penalty rises until few are left
    2  least squares: the next matrix anew from the channels kept, so that it gives what it gave

One proposal a layer, and a last one of all layers: each is then fitted to what the untouched net gives, from what the
net pruned so far reads. Where layers add to a stream, the last matrix of a branch is asked for what it gave and for
what the stream has lost before it.

Any module has such widths; heads of attention are pruned as channels are. The first matrix of a branch reads the whole
stream: no sampler is put before it.

Papers   channel-pruning-for-accelerating-very-deep, pruning-very-deep-neural-network-channels
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import nn

from shoal.compressors._lasso import chosen, refitted, squares
from shoal.compressors._products import Product, products
from shoal.compressors._proposing import possible
from shoal.compressors._units import Units, bias_of, units_in, weight_of
from shoal.core.base import Compressor, Proposal
from shoal.core.errors import BadSetting
from shoal.core.scene import Scene
from shoal.core.spec import wiring_of
from shoal.net import Net
from shoal.recipe import done

LEAST_RIDGE = 1e-9  # below, channels that say the same could not be told apart


class ChannelPrune(Compressor):
    """Settings: `share` of the channels that goes; `rows` of what a matrix reads, to fit it on; `ridge`, how much the
    new weights are held to the old ones, as a share of the mean square of what is read."""

    def __init__(self, *, share: float = 0.5, rows: int = 4000, ridge: float = 1e-3) -> None:
        if not 0 < share < 1:
            raise BadSetting(f"compressor channel_prune: share={share} takes nothing or all; give between 0 and 1")
        if rows < 1 or ridge < LEAST_RIDGE:
            raise BadSetting(
                f"compressor channel_prune: rows={rows}, ridge={ridge}; give 1 row, a ridge of {LEAST_RIDGE} or more"
            )
        self.share, self.rows, self.ridge = share, rows, ridge

    def propose(self, scene: Scene) -> Iterator[Proposal]:
        module = scene.module
        every = [units for units in units_in(scene) if len(units.readers) == 1 and self._left(units) < units.count]
        if not every:
            return
        seen = products(scene, module, [units.readers[0] for units in every], self.rows, _streams(module, every))
        found = [units for units in every if units.readers[0] in seen]
        single = [self._pruned(module, units, seen[units.readers[0]]) for units in found]
        doable = [(units, one) for units, one in zip(found, single, strict=True) if possible(module, one)]
        yield from (one for _, one in doable)
        if len(doable) > 1:
            yield self._all(scene, [units for units, _ in doable], seen)

    def _left(self, units: Units) -> int:
        return max(units.count - round(self.share * units.count), 1)

    def _pruned(self, module: nn.Module, units: Units, product: Product) -> Proposal:
        """The proposal for one width, from what its reader reads and is to give."""
        reader = units.readers[0]
        weight, bias = weight_of(module, reader), bias_of(module, reader)
        flat, places = weight.flatten(1), weight[0, 0].numel()
        columns = (units.columns[:, :, None] * places + torch.arange(places)).flatten(1)  # of each unit
        found = squares(product.x.flatten(1), product.y, centred=bias is not None)
        keep = chosen(found, flat, columns, self._left(units))
        kept = columns[keep].flatten().sort().values
        new = refitted(found, flat, kept, self.ridge)
        weights = {f"{reader}.weight": new.reshape(len(new), -1, *weight.shape[2:]).to(weight)}
        if bias is not None:
            weights[f"{reader}.bias"] = bias + (found.y - new @ found.x[kept]).to(bias)
        return units.proposal(keep, weights)

    def _all(self, scene: Scene, every: list[Units], before: Mapping[str, Product]) -> Proposal:
        """All of them, one after another: what is fitted to is the module's, what is read the pruned one's."""
        now, taken = scene.module, Proposal((), ())
        for units in every:
            reader, wanted = units.readers[0], before[units.readers[0]]
            product = products(scene, now, [reader], self.rows, _streams(scene.module, [units]))[reader]
            lost = 0 if wanted.stream is None or product.stream is None else wanted.stream - product.stream
            one = self._pruned(now, units, product._replace(y=wanted.y + lost))
            now = done(now, one)
            taken = replace(taken, edits=(*taken.edits, *one.edits), weights={**taken.weights, **one.weights})
        state = now.state_dict()  # what one has set, a later one may have narrowed
        return replace(taken, weights={name: state[name].clone() for name in taken.weights})


def _streams(module: nn.Module, every: list[Units]) -> dict[str, str]:
    """The readers in layers that are added to a stream alone, before the next layer reads it; each with its layer."""
    if not isinstance(module, Net):
        return {}
    found: dict[str, str] = {}
    for units in every:
        spec = module.spec.stages[int(units.path.split(".")[1])]
        groups = wiring_of(spec.wiring, spec.dim, spec.depth).groups()
        if groups is not None and set(groups) == {1}:
            found[units.readers[0]] = units.path
    return found
