"""Running: the layers of a trained net in another order, some left out, some run again.

    short = chain(net, (0, 1, 3))          a Net without layer 2; the weights are the net's own
    Chains(net, x)((0, 1, 1, 3))           what that chain gives on x

Layers are numbered through all stages. Chains that share their beginning run it once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from shoal.core.base import Branch, Wiring
from shoal.core.errors import BadSetting, Refused
from shoal.core.example import evaluating
from shoal.core.makers import offers
from shoal.core.spec import Spec, Stage, wiring_of
from shoal.kinds import WIRINGS
from shoal.net import Net, empty

Chain: TypeAlias = tuple[int, ...]


def base_chain(net: Net) -> Chain:
    """The chain that the net is. Raises Refused where its layers cannot be run one by one."""
    starts = _starts(net.spec)
    for stage in net.spec.stages:
        _check(stage)
    if net.spec.exits:
        raise Refused("chain: the net has exits, and a chain moves what they read; take them out of the spec first")
    return tuple(start + i for start, stage in zip(starts, net.spec.stages, strict=True) for i in stage.visits)


def chain(net: Net, order: Sequence[int]) -> Net:
    """The net that runs these layers in this order. It holds the very modules of the net given, and no copies of them.

    Raises Refused where a stage would be left without layers, or where its wiring is no row of steps.
    """
    base_chain(net)
    numbers = _checked(net, order)
    stages = []
    kept: list[list[int]] = []
    for index, (start, stage) in enumerate(zip(_starts(net.spec), net.spec.stages, strict=True)):
        here = [number - start for number in numbers if start <= number < start + len(stage.layers)]
        if not here:
            raise Refused(f"chain {list(order)}: stage {index} would be left without layers; keep one of it")
        kept.append(sorted(set(here)))
        visits = tuple(kept[-1].index(layer) for layer in here)
        stages.append(replace(stage, layers=tuple(stage.layers[layer] for layer in kept[-1]), order=visits))
    made = empty(replace(net.spec, stages=tuple(stages)))
    fresh: list[nn.Module] = [made, made.stages, made.exits]
    made.stem, made.head = net.stem, net.head
    news: list[Any] = list(made.stages)
    olds: list[Any] = list(net.stages)
    for new, old, layers in zip(news, olds, kept, strict=True):
        new.join, new.layers = old.join, nn.ModuleList([old.layers[layer] for layer in layers])
        fresh += [new, new.layers, *new.wiring.modules()]
    for module in fresh:  # what is shared keeps its mode
        module.training = net.training
    return made


class Chains:
    """Chains of one net on one input; what they have in common at their beginning is computed once.

    ``ran`` counts the layers that were run. A chain may be empty: then the stem's stream goes to the head.
    """

    def __init__(self, net: Net, x: Tensor) -> None:
        self.net, self.x, self.ran = net, x, 0
        self.base = base_chain(net)
        self.places = [(s, i) for s, stage in enumerate(net.spec.stages) for i in range(len(stage.layers))]
        self.steps = [_wiring(stage, 1) for stage in net.spec.stages]
        self.stages: list[Any] = list(net.stages)
        self.streams: dict[tuple[Chain, int], Tensor] = {}

    def __call__(self, order: Sequence[int]) -> Tensor:
        """What the net gives when it runs this chain; in eval mode, without gradients."""
        with evaluating(self.net), torch.no_grad():
            y: Tensor = self.net.head(self._stream(_checked(self.net, order), len(self.steps) - 1))
        return y

    def _stream(self, begun: Chain, stage: int) -> Tensor:
        """The stream in that stage behind these layers."""
        if (begun, stage) not in self.streams:
            self.streams[begun, stage] = self._computed(begun, stage)
        return self.streams[begun, stage]

    def _computed(self, begun: Chain, stage: int) -> Tensor:
        x: Tensor
        if begun and self.places[begun[-1]][0] == stage:
            layer = self.stages[stage].layers[self.places[begun[-1]][1]]
            before = self._stream(begun[:-1], stage)
            self.ran += 1
            x = self.steps[stage](before, [layer])
        elif stage:
            x = self.stages[stage].join(self._stream(begun, stage - 1))
        else:
            x = self.net.stem(self.x)
        return x


def _starts(spec: Spec) -> list[int]:
    """The number of each stage's first layer."""
    return [sum(len(stage.layers) for stage in spec.stages[:index]) for index in range(len(spec.stages))]


def _checked(net: Net, order: Sequence[int]) -> Chain:
    """The chain as a tuple. BadSetting where a layer is unknown or a stage comes before an earlier one."""
    stages = [index for index, stage in enumerate(net.spec.stages) for _ in stage.layers]
    for number in order:
        if number not in range(len(stages)):
            raise BadSetting(
                f"chain {list(order)}: there is no layer {number}; they are numbered 0 to {len(stages) - 1}"
            )
    along = [stages[number] for number in order]
    if along != sorted(along):
        raise BadSetting(f"chain {list(order)}: layers of a later stage come first; keep the stages in their order")
    return tuple(order)


def _check(stage: Stage) -> None:
    """Refused unless the stage is a row of steps, whatever its layers and however many; that is measured."""
    why = f"chain: the layers of {stage.parts_text()} {stage.shape_text()} cannot be run one by one"
    if stage.own_norms:
        raise Refused(f"{why}: their visits have norms of their own")
    held = wiring_of(stage.wiring, stage.dim, stage.depth)
    if held.state_dict() or set(held.ends()) != {(stage.dim, stage.dim)} or not _is_row(stage):
        raise Refused(f"{why}; wirings such as residual and plain can")


def _is_row(stage: Stage) -> bool:
    """Whether the wiring does with several layers what it does with each alone, one after another."""
    x = torch.linspace(-1, 1, stage.dim, dtype=torch.float64).expand(2, stage.dim)
    for depth in (stage.depth, stage.depth + 1):  # another depth tells what depends on it
        layers = [_wave(index) for index in range(depth)]
        try:
            whole, one = _wiring(stage, depth), _wiring(stage, 1)
        except BadSetting:  # its settings are for one depth only
            return False
        y = x
        for layer in layers:
            y = one(y, [layer])
        if not torch.allclose(whole(x, layers), y, rtol=0, atol=1e-12):
            return False
    return True


def _wave(index: int) -> Branch:
    return lambda x: (x * (index + 2)).sin()


def _wiring(stage: Stage, depth: int) -> Wiring:
    """The wiring of a stage over so many layers, in eval mode."""
    offered = offers(stage.layers[0].norm_part)
    made: Wiring = WIRINGS.make(stage.wiring, stage.dim, depth, dim=stage.dim, offers=offered)
    return made.eval()
