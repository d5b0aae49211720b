"""Share: several spans have the weights of one of them.

    f_1, f_2, f_3, f_4    becomes    f_1, f_1, f_1, f_4

Depth and multiply-adds stay, weights go. Whoever heals it trains one set of weights for all. In a Net it is the order
in which the stage visits its layers, 2x16@0,0,0,1; in any other module the spans have the same parameters, and each
keeps what is not trained: its statistics, its place in a cache.

Exact when their weights were the same
Papers   go-wider-instead-of-deeper
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from shoal.core.base import Edit
from shoal.core.errors import BadSetting, Refused
from shoal.core.part import Value
from shoal.core.spec import Spec
from shoal.edits._matrices import layer_in
from shoal.edits._surgery import submodule
from shoal.edits._visits import revisited, turns_of


@dataclass(frozen=True, kw_only=True)
class Share(Edit):
    """Settings: `paths` of the spans, first the one whose weights all will have; `own_norms`, whether in a Net each
    visit keeps its own norms."""

    tiny: ClassVar[Mapping[str, Value]] = {"paths": ("stages.0.layers.2", "stages.0.layers.0"), "own_norms": True}
    paths: tuple[str, ...]
    own_norms: bool = False

    def __post_init__(self) -> None:
        if len(set(self.paths)) < 2 or len(set(self.paths)) != len(self.paths):
            raise BadSetting(f"edit share: paths={list(self.paths)}; give two spans or more, each once")

    def rewrite(self, spec: Spec, weights: Mapping[str, Tensor]) -> tuple[Spec, dict[str, Tensor]]:
        places = [layer_in(spec, path) for path in self.paths]
        index, source, _ = places[0]
        if any(stage != index or name for stage, _, name in places):
            raise Refused(f"{', '.join(self.paths)}: in a Net, layers of one stage share weights")
        stage, layers = spec.stages[index], {layer for _, layer, _ in places}
        if len({stage.layers[layer] for layer in layers}) > 1:
            texts = (str(stage.layers[layer].text(stage.dim)) for layer in sorted(layers))
            raise Refused(f"{', '.join(self.paths)}: unlike layers ({'; '.join(texts)}) cannot have the same weights")
        steps = [source if layer in layers else layer for layer in stage.visits]
        own_norms = self.own_norms or stage.own_norms
        return revisited(spec, weights, index, steps, turns_of(stage.visits), stage.wiring, own_norms)

    def apply(self, module: nn.Module) -> nn.Module:
        self.check(module)
        first, *others = (submodule(module, path) for path in self.paths)
        for span in others:
            for name, parameter in first.named_parameters(remove_duplicate=False):
                owner, _, leaf = name.rpartition(".")
                setattr(span.get_submodule(owner), leaf, parameter)
        return module

    def check(self, module: nn.Module) -> None:
        """Refused where the spans of a stranger cannot have the same weights; nothing is changed."""
        source = submodule(module, self.paths[0])
        for path in self.paths[1:]:
            why = _unlike(source, submodule(module, path))
            if why:
                raise Refused(f"{path}: cannot have the weights of {self.paths[0]}: {why}")
            if path.startswith(f"{self.paths[0]}.") or self.paths[0].startswith(f"{path}."):
                raise Refused(f"{path}: it stands within {self.paths[0]}, or around it")


def _unlike(one: nn.Module, other: nn.Module) -> str:
    """Why one module cannot have the parameters of another; empty where it can."""
    for first, second in zip(
        *(list(each.named_modules(remove_duplicate=False)) for each in (one, other)), strict=False
    ):
        if first[0] != second[0] or type(first[1]) is not type(second[1]):
            return (
                f"{first[0] or 'it'} is a {type(first[1]).__name__}, and there {second[0]} a {type(second[1]).__name__}"
            )
    shapes = [{name: p.shape for name, p in each.named_parameters(remove_duplicate=False)} for each in (one, other)]
    wrong = [name for name in sorted({*shapes[0], *shapes[1]}) if shapes[0].get(name) != shapes[1].get(name)]
    return f"{wrong[0]} is of another shape" if wrong else "" if shapes[0] else "there are no weights"
