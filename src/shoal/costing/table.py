"""Table: what a module costs, in all and call by call."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

Shape = tuple[int, ...]


@dataclass(frozen=True)
class LayerCost:
    """One call of one layer: a module without children, or one that multiplies by itself beside its children.

    `call` is 0 at the first visit, 1 at the second. Shapes are those of the first tensor that went in and came out;
    None when there was none. `params` are the weights that the layer holds, with those of children that are never
    called as modules (an attention's output projection); a layer visited twice shows them twice. `macs` are those of
    this visit, without the children's.
    """

    path: str
    call: int
    type: str
    input_shape: Shape | None
    output_shape: Shape | None
    params: int
    macs: int


@dataclass(frozen=True)
class Cost:
    """What one run of a module on one example costs.

    `params`, `trainable` and `buffers` count numbers (shared ones once); `bytes` is what the weights and buffers of
    the state dict take, packed and quantised ones as they are. `macs` are multiply-adds executed for the whole
    example, its batch included; the layers' macs add up to it. `depth` is the number of multiplications by weights on
    the longest way from input to output. `uncounted` names operations that multiply but have no formula, with their
    place; when there are any, `lower_bound` is true and `macs` is too small.
    """

    params: int
    trainable: int
    buffers: int
    macs: int
    bytes: int
    depth: int
    layers: tuple[LayerCost, ...]
    uncounted: tuple[str, ...] = ()

    @property
    def lower_bound(self) -> bool:
        """Whether something was left uncounted."""
        return bool(self.uncounted)

    def __str__(self) -> str:
        at_least = "at least " if self.lower_bound else ""
        text = (
            f"{short(self.params)} params, {at_least}{short(self.macs)} macs, {short(self.bytes)}B, depth {self.depth}"
        )
        return f"{text} (uncounted: {', '.join(self.uncounted)})" if self.uncounted else text

    def to_frame(self) -> pd.DataFrame:
        """One row a layer call, in order of the calls; columns as in :class:`LayerCost`."""
        return pd.DataFrame([asdict(layer) for layer in self.layers], columns=list(LayerCost.__dataclass_fields__))

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, lists and words."""
        return {**asdict(self), "layers": [asdict(x) for x in self.layers], "uncounted": list(self.uncounted)}


def short(number: float) -> str:
    """Three digits and a unit: ``short(41_030_000) == "41.0M"``."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.{2 if number < 10 * size else 1 if number < 100 * size else 0}f}{unit}"
    return f"{number:g}"
