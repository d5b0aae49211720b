"""Drop: take one span out.

    stream span   x -> f(x)        becomes   x -> x
    branch span   x -> x + f(x)    becomes   x -> x

Of the layers stacked within one LSTM, GRU or RNN of torch some can go: what each took, the next one takes.

Exact when the span adds nothing
Papers   deep-residual-learning-for-image-recognition
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from shoal.core.base import Edit
from shoal.core.errors import Refused
from shoal.core.part import Part, Value
from shoal.core.spec import Spec, Stage, wiring_of
from shoal.edits._recurrent import unstacked
from shoal.edits._spans import put
from shoal.edits._surgery import PassThrough, Zero, layer_at, submodule, with_layers


@dataclass(frozen=True, kw_only=True)
class Drop(Edit):
    """Settings: `path` of the span; `branch`, whether somebody else adds it to the stream; `layers`, the numbers of
    those that go of a recurrent module's; `written`, whether others write to what the span takes or gives: then a copy
    passes by."""

    tiny: ClassVar[Mapping[str, Value]] = {"path": "stages.0.layers.1", "branch": True}
    path: str
    branch: bool = False
    layers: tuple[int, ...] = ()
    written: bool = False

    def rewrite(self, spec: Spec, weights: Mapping[str, Tensor]) -> tuple[Spec, dict[str, Tensor]]:
        if self.layers:
            raise Refused(f"{self.path}: the layers of a Net have places of their own; leave layers out")
        index, layer = layer_at(spec, self.path)
        stage = spec.stages[index]
        if len(stage.layers) == 1:
            raise Refused(f"{self.path}: it is the only layer of its stage")
        settings = wiring_of(stage.wiring, stage.dim, stage.depth).without(layer)
        rest = [i for i in range(len(stage.layers)) if i != layer]
        wiring = Part(stage.wiring.name, settings)
        return with_layers(spec, weights, index, rest, wiring, _moved(stage, wiring, layer))

    def apply(self, module: nn.Module) -> nn.Module:
        gone = submodule(module, self.path)
        if self.layers:
            return put(module, self.path, unstacked(gone, self.layers, self.path))
        none = Zero(self.written) if self.branch else PassThrough(like=gone, written=self.written)
        module.set_submodule(self.path, none)
        stack = module.get_submodule(".".join(self.path.split(".")[:-2]))
        if isinstance(stack, nn.TransformerEncoder):
            stack.use_nested_tensor = False  # that way reads the weights of the first layer
        return module


def _moved(stage: Stage, wiring: Part, gone: int) -> list[int]:
    """For each layer one that reads what it read, once ``gone`` has gone; the new depth where there is none."""
    before = wiring_of(stage.wiring, stage.dim, stage.depth).reads()
    after = wiring_of(wiring, stage.dim, stage.depth - 1).reads()[: stage.depth - 1]
    moved = []
    for row in before[: stage.depth]:
        left = row - {gone + 1} | (before[gone] if gone + 1 in row else set())  # its input passes on
        numbered = {node - (node > gone) for node in left}
        moved.append(after.index(numbered) if numbered in after else len(after))
    return moved
