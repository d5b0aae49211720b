"""Exit: the net ends behind a layer; what stood behind it goes, and the head reads there.

    x -> f_1 -> .. -> f_n -> head    becomes    x -> f_1 -> .. -> f_k -> head

Where the spec has an exit there already, its head is taken, trained as it is. Else the head that the net had is kept,
or one of another kind is made; of weights that read another width, those that have a place there are kept.

Papers   dynamic-perceiver-for-efficient-visual-recognition
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from shoal.core.base import Edit
from shoal.core.errors import Refused
from shoal.core.makers import offers
from shoal.core.part import Part, Value
from shoal.core.spec import Spec, wiring_of
from shoal.edits._surgery import layer_at
from shoal.edits._visits import without_run
from shoal.kinds import HEADS


@dataclass(frozen=True, kw_only=True)
class Exit(Edit):
    """Settings: `path` of the last layer that stays; `head`, another head's kind and settings."""

    tiny: ClassVar[Mapping[str, Value]] = {"path": "stages.0.layers.1"}
    path: str
    head: str = ""

    def __post_init__(self) -> None:
        if self.head:
            HEADS.get(Part.parse(self.head).name)

    def rewrite(self, spec: Spec, weights: Mapping[str, Tensor]) -> tuple[Spec, dict[str, Tensor]]:
        index, layer = layer_at(spec, self.path)
        stage = spec.stages[index]
        if (index, layer) == (len(spec.stages) - 1, stage.depth - 1):
            raise Refused(f"{self.path}: nothing stands behind it but the head")
        assert spec.head is not None
        wiring = without_run(stage, layer + 1, stage.depth)
        last = replace(stage, layers=stage.layers[: layer + 1], wiring=wiring)
        exits = tuple(one for one in spec.exits if one.place < (index, layer + 1))
        ready = self._ready(spec, index, layer, wiring) if not self.head else None
        if ready is not None:
            part, given = spec.exits[ready].head, _within(weights, f"exits.{ready}.")
        else:
            part = Part.parse(self.head) if self.head else spec.head
            if "outputs" in HEADS.settings(part.name) and "outputs" not in part.settings:
                part = part.with_settings(outputs=spec.head.settings["outputs"])
            old = _within(weights, "head.") if part.name == spec.head.name else {}
            part, given = _headed(part, last.out, old, last.layers[-1].norm_part, weights)
        cut = Spec((*spec.stages[:index], last), spec.stem, part, exits)
        gone = tuple(f"stages.{index}.layers.{number}." for number in range(layer + 1, stage.depth))
        gone += tuple(f"stages.{number}." for number in range(index + 1, len(spec.stages)))
        gone += ("head.", *(f"exits.{number}." for number in range(len(exits), len(spec.exits))))
        kept = {key: value for key, value in weights.items() if not key.startswith(gone)}
        return cut, kept | {f"head.{key}": value for key, value in given.items()}

    def apply(self, module: nn.Module) -> nn.Module:
        raise Refused(
            f"{self.path}: only a Net says what is its head; drop the spans behind it instead, which keeps it"
        )

    def _ready(self, spec: Spec, index: int, layer: int, wiring: Part) -> int | None:
        """The number of the exit that reads what will then be the stage's output."""
        stage = spec.stages[index]
        for number, one in enumerate(spec.exits):
            if one.place == (index, layer + 1):
                read = wiring_of(stage.wiring, stage.dim, stage.depth).reads()[layer + 1]
                given = wiring_of(wiring, stage.dim, layer + 1).reads()[-1]
                norms = stage.layers[layer].norm, stage.layers[layer + 1].norm  # as a head, and where it stands
                fits = norms[0] == norms[1] or not HEADS.asks(one.head.name, "norm")
                return number if read == given and fits else None
        return None


def _within(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): weights[key] for key in weights if key.startswith(prefix)}


def _headed(
    part: Part, width: int, old: Mapping[str, Tensor], norm: Part, weights: Mapping[str, Tensor]
) -> tuple[Part, dict[str, Tensor]]:
    """The head at that width, complete, and its weights: the old ones as far as they reach."""
    part = HEADS.complete(part, width)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        made: nn.Module = HEADS.make(part, width, dim=width, offers=offers(norm))
    made.to(next(value.dtype for value in weights.values() if value.is_floating_point()))
    own = {key: value.detach().clone() for key, value in made.state_dict().items()}
    for key, value in own.items():
        before = old.get(key)
        if before is not None and before.dim() == value.dim():
            corner = tuple(slice(min(a, b)) for a, b in zip(before.shape, value.shape, strict=True))
            value[corner] = before[corner]
    return part, own
