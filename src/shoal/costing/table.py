"""Table: what a module costs, in all, call by call and operation by operation."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

Shape = tuple[int, ...]


@dataclass(frozen=True)
class LayerCost:
    """One call of one module that has no children, or that computes something by itself beside its children.

    `call` is 0 at the first visit, 1 at the second. Shapes are those of the first tensor that went in and came out;
    None when there was none. `params` are the weights that the layer holds, with those of children that are never
    called as modules (an attention's output projection); a layer visited twice shows them twice. `macs` and `flops`
    are those of this visit, without the children's.
    """

    path: str
    call: int
    type: str
    input_shape: Shape | None
    output_shape: Shape | None
    params: int
    macs: int
    flops: int


@dataclass(frozen=True)
class Operation:
    """One executed operation, in the call of the module that did it; views are none.

    `name` is torch's (``aten.addmm``), whatever the overload. `inputs` are the shapes of its tensor arguments in their
    order, `output` that of the first tensor that came out (None: a number or nothing). `settings` are the other
    arguments in their order, defaults included, as plain values: for a convolution stride, padding, dilation,
    transposed, output padding, groups. `moved` are the bytes of what went in and what came out, each tensor once; of a
    table that is looked up only what is taken. `dtype` is the output's, else the first input's.
    """

    name: str
    path: str
    call: int
    inputs: tuple[Shape, ...]
    output: Shape | None
    settings: tuple[object, ...]
    macs: int
    flops: int
    moved: int
    dtype: str


@dataclass(frozen=True)
class Peak:
    """Bytes of activations alive at once, at most: in inference, and in a forward pass that keeps what backward needs.

    `training` is None where the module does not run in training mode with gradients on (a quantised one, a batch norm
    on a single row) or was not asked to; `reason` is then what it said.
    """

    inference: int
    training: int | None
    reason: str = ""


@dataclass(frozen=True)
class Cost:
    """What one run of a module on one example costs.

    `params`, `trainable` and `buffers` count numbers (shared ones once); `bytes` is what the weights and buffers of
    the state dict take, packed and quantised ones as they are. `macs` are multiply-adds executed for the whole
    example, its batch included, and `flops` twice as many plus the work done element by element; those of the `calls`
    add up to them, and those of the `operations`. `depth` is the number of multiplications by weights on the longest
    way from input to output. `module_calls` is how often a module was called, containers included. `uncounted` names
    operations without a formula, with their place; when there are any, `lower_bound` is true and `macs` and `flops`
    are too small.
    """

    params: int
    trainable: int
    buffers: int
    macs: int
    flops: int
    bytes: int
    activation_bytes: Peak
    depth: int
    module_calls: int
    calls: tuple[LayerCost, ...]
    operations: tuple[Operation, ...]
    uncounted: tuple[str, ...] = ()

    @property
    def lower_bound(self) -> bool:
        """Whether something was left uncounted."""
        return bool(self.uncounted)

    @property
    def layers(self) -> pd.DataFrame:
        """One row a call, in order; columns as in :class:`LayerCost`, and `share` of all multiply-adds."""
        columns = list(LayerCost.__dataclass_fields__)
        frame = pd.DataFrame([asdict(call) for call in self.calls], columns=columns)
        return frame.assign(share=frame["macs"] / max(self.macs, 1))

    def __str__(self) -> str:
        at_least = "at least " if self.lower_bound else ""
        text = (
            f"{short(self.params)} params, {at_least}{short(self.macs)} macs, {short(self.bytes)}B, depth {self.depth}"
        )
        return f"{text} (uncounted: {', '.join(self.uncounted)})" if self.uncounted else text

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, lists and words; the calls as `layers`, without the single operations."""
        left_out = {"calls", "operations", "activation_bytes", "uncounted"}
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in left_out}
        layers = [asdict(call) for call in self.calls]
        peak = asdict(self.activation_bytes)
        return {**plain, "activation_bytes": peak, "layers": layers, "uncounted": list(self.uncounted)}


def short(number: float) -> str:
    """Three digits and a unit: ``short(41_030_000) == "41.0M"``."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.{2 if number < 10 * size else 1 if number < 100 * size else 0}f}{unit}"
    return f"{number:g}"
