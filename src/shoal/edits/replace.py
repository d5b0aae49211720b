"""Replace: a whole net, a stage, a layer or a span becomes another one, its weights drawn anew.

    f    becomes    g, a student of another form

In a Net: the path "" for all of it, `stages.1` for a stage (by one or several, as in `residual(mlp) 2x32`), and
`stages.1.layers.0` for a layer (by the only layer of `plain(mlp) 1x32`). In any other module: a span, or all of it,
by a complete Net, which must take what the span takes and give what it gives; nothing but the first argument reaches
it. The weights come from `seed` alone: they are for whoever trains it by the original's answers.

Papers   distilling-task-specific-knowledge-from-bert, quantifying-the-knowledge-in-gnns-for
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from shoal.core.base import Edit
from shoal.core.errors import Refused
from shoal.core.named import read_spec
from shoal.core.part import Value
from shoal.core.spec import Spec
from shoal.edits._spans import put
from shoal.edits._students import fresh_net, replaced_all, replaced_layer, replaced_stage
from shoal.edits._surgery import submodule
from shoal.net import Net


@dataclass(frozen=True, kw_only=True)
class Replace(Edit):
    """Settings: `path`, "" for all; `spec`, what comes there, as text; `seed` of its weights; `channels_first`, whether
    what a stranger's span takes and gives has its channels behind the batch."""

    tiny: ClassVar[Mapping[str, Value]] = {"path": "stages.0", "spec": "residual(mlp[hidden=6] norm=batch) 1x8"}
    path: str
    spec: str
    seed: int = 0
    channels_first: bool = False

    def __post_init__(self) -> None:
        read_spec(self.spec)

    def rewrite(self, spec: Spec, weights: Mapping[str, Tensor]) -> tuple[Spec, dict[str, Tensor]]:
        new, words = read_spec(self.spec), self.path.split(".")
        if self.path == "":
            return replaced_all(spec, new, weights, self.seed)
        if len(words) == 2 and words[0] == "stages" and words[1].isdigit():
            return replaced_stage(spec, new, weights, int(words[1]), self.seed)
        return replaced_layer(spec, new, weights, self.path, self.seed)

    def apply(self, module: nn.Module) -> nn.Module:
        old, new = submodule(module, self.path), read_spec(self.spec)
        if new.open:
            raise Refused(
                f"{self.path or 'all'}: {self.spec} has no stem or no head; a stranger is replaced by a whole Net"
            )
        like = next((p for p in old.parameters() if p.is_floating_point()), None)
        net = fresh_net(new, self.seed).train(old.training)
        student = _Student(net if like is None else net.to(like), self.channels_first)
        return put(module, self.path, student)


class _Student(nn.Module):
    """A Net that stands where a stranger was."""

    def __init__(self, net: Net, channels_first: bool) -> None:
        super().__init__()
        self.net, self.channels_first = net, channels_first

    def forward(self, x: Tensor, *_: Any, **__: Any) -> Tensor:
        y: Tensor = self.net(x.movedim(1, -1) if self.channels_first else x)
        return y.movedim(-1, 1) if self.channels_first and y.dim() > 2 else y
