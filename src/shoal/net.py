"""Net: a Spec and its weights, a plain nn.Module.

net = Net(Spec.parse("convolution[channels=1] | residual(conv) 24x16 | pool[outputs=10]"))
y = net(x)                                    x as the stem takes it, channels last
y = net(x, see=callback)                      every place shown once; a tensor given back stands in its stead
y = net(x, context={"mask": mask})            reaches the blocks that ask for a mask, and no wiring knows of it
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from shoal.core.base import Branch, Linear, MakeLinear, MakeNorm, Norm
from shoal.core.errors import BadModel, BadSetting, BadSpec, suggest
from shoal.core.part import Part
from shoal.core.spec import LayerSpec, Spec, Stage
from shoal.kinds import BLOCKS, HEADS, JOINS, LINEARS, NORMS, STEMS, WIRINGS


class Place(NamedTuple):
    """A point in the forward pass: before ("in") or behind ("out") a layer, at its n-th visit."""

    stage: int
    layer: int
    end: str
    visit: int


See = Callable[[Place, Tensor], "Tensor | None"]
Context = Mapping[str, Tensor]


def linear_maker(part: Part) -> MakeLinear:
    """A MakeLinear of that kind."""

    def make(inputs: int, outputs: int, *, bias: bool = True, kernel: tuple[int, ...] = (), groups: int = 1) -> Linear:
        made: Linear = LINEARS.make(part, inputs, outputs, bias, kernel, groups)
        return made

    return make


def norm_maker(part: Part) -> MakeNorm:
    """A MakeNorm of that kind."""

    def make(dim: int) -> Norm:
        made: Norm = NORMS.make(part, dim, dim=dim)
        return made

    return make


DENSE = linear_maker(Part("dense"))


class Layer(nn.Module):
    """Norm -> Block: the branch of one layer. It never adds its own input."""

    def __init__(self, spec: LayerSpec, inputs: int, outputs: int) -> None:
        super().__init__()
        cls = BLOCKS.get(spec.block.name)
        linear, norm = linear_maker(spec.linear), norm_maker(spec.norm_part)
        offered = {"linear": linear, "norm": norm, "out": outputs}
        takes = [p.name for p in inspect.signature(cls).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD][1:]
        self.norm = None if "norm" in takes or spec.norm_part.name == "none" else norm(inputs)
        block = BLOCKS.complete(spec.block, outputs)
        self.block = cls(inputs, *(offered[name] for name in takes), **block.settings)
        for name, part in spec.linears.items():
            self._replace(name, part)
        self.tail = None if "out" in takes or inputs == outputs else linear(inputs, outputs)
        forward = inspect.signature(cls.forward).parameters.values()
        self.reads = tuple(p.name for p in forward if p.kind is p.KEYWORD_ONLY)

    def _replace(self, name: str, part: Part) -> None:
        known = {path: module for path, module in self.block.named_modules() if isinstance(module, Linear)}
        if name not in known:
            raise BadSetting(f"linear.{name}: the block has no matrix of that name; {suggest(name, known)}")
        old = known[name]
        new = LINEARS.make(part, old.inputs, old.outputs, old.bias is not None, old.kernel, old.groups)
        self.block.set_submodule(name, new)

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        if self.norm is not None:
            x = self.norm(x)
        if context and self.reads:
            x = self.block(x, **{name: context[name] for name in self.reads if name in context})
        else:
            x = self.block(x)
        return x if self.tail is None else self.tail(x)


class StageNet(nn.Module):
    """The layers of one stage and the wiring that calls them."""

    def __init__(self, spec: Stage, inputs: int | None) -> None:
        super().__init__()
        self.join = None if spec.join is None else JOINS.make(spec.join, inputs, spec.dim, DENSE, dim=spec.dim)
        ends = dict(zip(spec.visits, spec.ends(), strict=True))
        self.layers = nn.ModuleList(Layer(layer, *ends[index]) for index, layer in enumerate(spec.layers))
        self.wiring = WIRINGS.make(spec.wiring, spec.dim, spec.depth, dim=spec.dim)
        self.visits = spec.visits

    def forward(self, x: Tensor, context: Context | None, stage: int, see: See | None) -> Tensor:
        if self.join is not None:
            x = self.join(x)
        owned: list[Any] = list(self.layers)  # ModuleList looks each index up by name: 0.8 us a layer
        layers = [owned[index] for index in self.visits]
        branches: list[Branch] = layers
        if context:
            branches = [partial(layer, context=context) for layer in layers]
        if see is not None:
            seen: dict[int, int] = {}
            branches = [_watched(branch, stage, i, seen, see) for branch, i in zip(branches, self.visits, strict=True)]
        out: Tensor = self.wiring(x, branches)
        return out


def _watched(branch: Branch, stage: int, layer: int, seen: dict[int, int], see: See) -> Branch:
    def shown(place: Place, x: Tensor) -> Tensor:
        instead = see(place, x)
        return x if instead is None else instead

    def watched(x: Tensor) -> Tensor:
        visit = seen.get(layer, 0)
        seen[layer] = visit + 1
        y = branch(shown(Place(stage, layer, "in", visit), x))
        return shown(Place(stage, layer, "out", visit), y)

    return watched


class Net(nn.Module):
    """A network built from a complete Spec; ``net.spec`` is all that its weights do not say.

    Input as the stem takes it: (batch, *places, channels), or (batch, length) token ids. Output as the head gives it.
    Raises BadSpec where the Spec is open or its parts do not fit together.
    """

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        if spec.stem is None or spec.head is None:
            raise BadSpec(f"spec {spec}: no stem or head; build(spec, like=data) chooses them, or write them")
        self.spec = spec
        first = spec.stages[0]
        self.stem = STEMS.make(spec.stem, first.dim, DENSE, dim=first.dim)
        outs = [None, *(stage.out for stage in spec.stages)]
        self.stages = nn.ModuleList(StageNet(stage, before) for stage, before in zip(spec.stages, outs, strict=False))
        last = spec.stages[-1].out
        self.head = HEADS.make(spec.head, last, DENSE, dim=last)

    def forward(self, x: Tensor, *, context: Context | None = None, see: See | None = None) -> Tensor:
        if context:
            self._check(context)
        x = self.stem(x)
        for index, stage in enumerate(self.stages):
            x = stage(x, context, index, see)
        out: Tensor = self.head(x)
        return out

    def _check(self, context: Context) -> None:
        read = {name for layer in self.modules() if isinstance(layer, Layer) for name in layer.reads}
        for name in context:
            if name not in read:
                raise BadModel(f"context {name!r}: no block of this net reads it; {suggest(name, read)}")

    def extra_repr(self) -> str:
        return str(self.spec)


def complete(
    spec: Spec, places: tuple[int, ...], channels: int, vocabulary: int | None, outputs: int, head: str = "pool"
) -> Spec:
    """An open Spec with the stem and head that such data asks for; what it has already, it keeps.

    Raises BadSpec where a stem that was named cannot read such data.
    """
    if spec.stem is None or not spec.stem.settings:
        default = "tokens" if vocabulary is not None else "vector" if not places else "convolution"
        name = spec.stem.name if spec.stem else default
        settings = STEMS.get(name).reads(places, channels, vocabulary)
        if settings is None:
            what = f"{vocabulary} tokens" if vocabulary is not None else f"places {places} of {channels} channels"
            raise BadSpec(f"stem {name!r} cannot read data of {what}; the stem for it is {default!r}")
        stem = Part(name, settings)
    else:
        stem = spec.stem
    return Spec(spec.stages, stem, spec.head or Part(head, {"outputs": outputs}))


def empty(spec: Spec) -> Net:
    """The net on the meta device: shapes and no memory."""
    with torch.device("meta"):
        return Net(spec)


def load_net(spec: Spec, weights: Mapping[str, Tensor]) -> Net:
    """A net with exactly these weights. Raises BadModel where one is missing, left over or of another shape."""
    net = Net(spec)
    own = net.state_dict()
    missing, extra = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    wrong = [name for name in own.keys() & weights.keys() if own[name].shape != weights[name].shape]
    if missing or extra or wrong:
        raise BadModel(f"weights do not fit {spec}: missing {missing[:3]}, extra {extra[:3]}, other shape {wrong[:3]}")
    for name, value in weights.items():
        if own[name].dtype != value.dtype:
            net.to(value.dtype)
            break
    net.load_state_dict(dict(weights), strict=True)
    return net.eval()
