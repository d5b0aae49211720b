"""Net: a Spec and its weights, a plain nn.Module.

net = Net(Spec.parse("convolution[channels=1] | residual(conv) 24x16 | pool[outputs=10]"))
y = net(x)                                    x as the stem takes it, channels last
y = net(x, see=callback)                      every place shown once; a tensor given back stands in its stead
y = net(x, context={"mask": mask})            reaches the blocks that ask for a mask, and no wiring knows of it
early, y = net.answers(x)                     what every exit of the spec gives, and last what the head gives
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from shoal.core.base import Branch, Linear
from shoal.core.errors import BadModel, BadSetting, BadSpec, suggest
from shoal.core.makers import linear_maker, norm_maker, offers
from shoal.core.own_norms import OwnNorms, for_visits
from shoal.core.part import Part
from shoal.core.spec import Exit, LayerSpec, Spec, Stage
from shoal.kinds import BLOCKS, HEADS, JOINS, LINEARS, STEMS, WIRINGS


class Place(NamedTuple):
    """A point in the forward pass: before ("in") or behind ("out") a layer, at its n-th visit."""

    stage: int
    layer: int
    end: str
    visit: int


See = Callable[[Place, Tensor], "Tensor | None"]
Context = Mapping[str, Tensor]


class Layer(nn.Module):
    """Norm -> Block: the branch of one layer. It never adds its own input.

    ``visits``: how many visits have norms of their own; 1 where all share them.
    """

    def __init__(self, spec: LayerSpec, inputs: int, outputs: int, visits: int = 1) -> None:
        super().__init__()
        cls = BLOCKS.get(spec.block.name)
        linear, norm = linear_maker(spec.linear), for_visits(norm_maker(spec.norm_part), visits)
        places_norms, takes_out = (BLOCKS.asks(spec.block.name, offer) for offer in ("norm", "out"))
        self.norm = None if places_norms or spec.norm_part.name == "none" else norm(inputs)
        offered = {"linear": linear, "norm": norm, "out": outputs}
        self.block = BLOCKS.make(spec.block, inputs, dim=outputs, offers=offered)
        for name, part in spec.linears.items():
            self._replace(name, part)
        self.tail = None if takes_out or inputs == outputs else linear(inputs, outputs)
        forward = inspect.signature(cls.forward).parameters.values()
        self.reads = tuple(p.name for p in forward if p.kind is p.KEYWORD_ONLY)
        self.own = tuple(part for part in self.modules() if isinstance(part, OwnNorms))

    def _replace(self, name: str, part: Part) -> None:
        known = {path: module for path, module in self.block.named_modules() if isinstance(module, Linear)}
        if name not in known:
            raise BadSetting(f"linear.{name}: the block has no matrix of that name; {suggest(name, known)}")
        old = known[name]
        new = LINEARS.make(part, old.inputs, old.outputs, old.bias is not None, old.kernel, old.groups)
        self.block.set_submodule(name, new)

    def forward(self, x: Tensor, context: Context | None = None, visit: int = 0) -> Tensor:
        for norm in self.own:
            norm.visit = visit
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
        offered, dim = offers(spec.layers[0].norm_part), spec.dim
        self.join = None if spec.join is None else JOINS.make(spec.join, inputs, dim, dim=dim, offers=offered)
        ends = dict(zip(spec.visits, spec.ends(), strict=True))
        norms = Counter(spec.visits if spec.own_norms else range(len(spec.layers)))
        self.layers = nn.ModuleList(Layer(layer, *ends[i], visits=norms[i]) for i, layer in enumerate(spec.layers))
        self.wiring = WIRINGS.make(spec.wiring, dim, spec.depth, dim=dim, offers=offered)
        self.visits = spec.visits
        turns = tuple(spec.visits[:step].count(index) for step, index in enumerate(spec.visits))
        self.turns = turns if spec.own_norms else None

    def branches(self, context: Context | None = None) -> list[Branch]:
        """What the wiring is given: the layer of each step, with its context and the norms of its turn."""
        owned: list[Any] = list(self.layers)  # ModuleList looks each index up by name: 0.8 us a layer
        layers = [owned[index] for index in self.visits]
        if self.turns is not None:
            turned = zip(layers, self.turns, strict=True)
            return [partial(layer, context=context, visit=turn) for layer, turn in turned]
        return [partial(layer, context=context) for layer in layers] if context else layers

    def forward(self, x: Tensor, context: Context | None, stage: int, see: See | None) -> Tensor:
        if self.join is not None:
            x = self.join(x)
        branches = self.branches(context)
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
        first, end = spec.stages[0], spec.stages[-1]
        begins, ends = (offers(stage.layers[side].norm_part) for stage, side in ((first, 0), (end, -1)))
        self.stem = STEMS.make(spec.stem, first.dim, dim=first.dim, offers=begins)
        outs = [None, *(stage.out for stage in spec.stages)]
        self.stages = nn.ModuleList(StageNet(stage, before) for stage, before in zip(spec.stages, outs, strict=False))
        self.head = HEADS.make(spec.head, end.out, dim=end.out, offers=ends)
        self.exits = nn.ModuleList(_exit(spec, one) for one in spec.exits)

    def forward(self, x: Tensor, *, context: Context | None = None, see: See | None = None) -> Tensor:
        if context:
            self._check(context)
        x = self.stem(x)
        for index, stage in enumerate(self.stages):
            x = stage(x, context, index, see)
        out: Tensor = self.head(x)
        return out

    def answers(self, x: Tensor, *, context: Context | None = None) -> tuple[Tensor, ...]:
        """What every exit gives, in the order of ``spec.exits``, and last what the head gives.

        Raises BadModel where a wiring left the layer behind an exit out, as a random depth does in training.
        """
        places = [_place(self.spec, one) for one in self.spec.exits]
        read: dict[Place, Tensor] = {}

        def see(place: Place, stream: Tensor) -> None:
            if place in places:
                read[place] = stream

        last: Tensor = self(x, context=context, see=see)
        given: list[Tensor] = []
        for one, place, head in zip(self.spec.exits, places, self.exits, strict=True):
            if place not in read:
                raise BadModel(
                    f"exit {one.stage}.{one.layer}: its layer was not run, so it has nothing to read; "
                    "place it before a layer that always runs"
                )
            given.append(head(read[place]))
        return (*given, last)

    def _check(self, context: Context) -> None:
        read = {name for layer in self.modules() if isinstance(layer, Layer) for name in layer.reads}
        for name in context:
            if name not in read:
                raise BadModel(f"context {name!r}: no block of this net reads it; {suggest(name, read)}")

    def extra_repr(self) -> str:
        return str(self.spec)


def _exit(spec: Spec, one: Exit) -> nn.Module:
    """The head of an exit; the norms that it may ask for are of the kind that the layer behind it has."""
    stage, width = spec.stages[one.stage], spec.width_at(one)
    offered = offers(stage.layers[stage.visits[one.layer]].norm_part)
    made: nn.Module = HEADS.make(one.head, width, dim=width, offers=offered)
    return made


def _place(spec: Spec, one: Exit) -> Place:
    """Where the stream passes that an exit reads."""
    visits = spec.stages[one.stage].visits
    layer = visits[one.layer]
    return Place(one.stage, layer, "in", visits[: one.layer].count(layer))


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
    return Spec(spec.stages, stem, spec.head or Part(head, {"outputs": outputs}), spec.exits)


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
