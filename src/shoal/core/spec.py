"""Spec: all there is to say about a net but its weights. Frozen; JSON and one line of text both ways.

    convolution[channels=1] | residual(conv) 9x16-9x32-9x64 | pool[outputs=10]
    stem                    | wiring(layer) depth x dim ... | head | exits

    residual(mlp[hidden=64] norm=rms linear=low_rank[rank=4] linear.down=dense) 4x32     norm and linears of a layer
    residual(conv*3, bottleneck) 4x16                                                    layers that differ
    grouped(attention, mlp) 8x64                                                         what is listed is repeated
    residual(mlp) 2x16@0,1,0,1                                                           two layers, four visits
    residual(mlp) 2x16@0,1,0,1*                                                          each visit with its own norms
    residual(conv) 2x16 -pad- plain(conv) 2x32                                           a join that is not the default
    residual(mlp) 2x16-4x32 | pool[outputs=10] | 1.0: pool, 1.2: pool                    heads before layers 1.0 and 1.2

Longer than the house's 250 lines: the words, their text and their JSON are inverses, and are read together.

What is left out is filled in when the Spec is made, so that a Spec holds all settings with their values. A Spec without
stem and head is *open*: ``build`` completes it from the data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import groupby, pairwise
from types import MappingProxyType
from typing import Any

import torch

from shoal.core.base import Wiring
from shoal.core.errors import BadSpec
from shoal.core.kind import Kind, Setting
from shoal.core.makers import offers
from shoal.core.migrate import VERSION, migrate
from shoal.core.part import Part, Reader, Value
from shoal.kinds import BLOCKS, HEADS, JOINS, LINEARS, NORMS, STEMS, WIRINGS

DENSE = Part("dense")
JOIN = Part("downsample")


@cache
def wiring_of(part: Part, dim: int, depth: int) -> Wiring:
    """The wiring of that part, to be asked for its ends, reads and groups; it has no memory behind its weights."""
    with torch.device("meta"):
        made: Wiring = WIRINGS.make(part, dim, depth, dim=dim, offers=offers(Part("layer")))
    return made


@dataclass(frozen=True)
class LayerSpec:
    """One layer: its block, its norm kind, the linear kind of its matrices and the exceptions by name."""

    block: Part
    norm: Part | None = None
    linear: Part = DENSE
    linears: Mapping[str, Part] = field(default_factory=dict)

    def __post_init__(self) -> None:
        norm = self.norm or Part(BLOCKS.get(self.block.name).norm)
        object.__setattr__(self, "norm", NORMS.complete(norm))
        object.__setattr__(self, "linear", LINEARS.complete(self.linear))
        linears = {name: LINEARS.complete(self.linears[name]) for name in sorted(self.linears)}
        object.__setattr__(self, "linears", MappingProxyType(linears))

    def __hash__(self) -> int:
        return hash((self.block, self.norm, self.linear, tuple(self.linears.items())))

    def __reduce__(self) -> tuple[Any, ...]:
        return (LayerSpec, (self.block, self.norm, self.linear, dict(self.linears)))

    @property
    def norm_part(self) -> Part:
        """The norm, which is never None once the layer is made."""
        assert self.norm is not None
        return self.norm

    def sized(self, dim: int) -> LayerSpec:
        """The layer with the settings of its block filled in for an output of that width."""
        return replace(self, block=BLOCKS.complete(self.block, dim))

    def text(self, dim: int) -> str:
        """``conv[hidden=8] norm=rms linear=...`` without what ``sized(dim)`` would fill in."""
        words = [str(BLOCKS.sparse(self.block, dim))]
        if self.norm_part != NORMS.complete(Part(BLOCKS.get(self.block.name).norm)):
            words.append(f"norm={NORMS.sparse(self.norm_part)}")
        if self.linear != LINEARS.complete(DENSE):
            words.append(f"linear={LINEARS.sparse(self.linear)}")
        words += [f"linear.{name}={LINEARS.sparse(part)}" for name, part in self.linears.items()]
        return " ".join(words)

    def to_json(self) -> dict[str, Any]:
        """Parts as JSON, all settings in them."""
        linears = {name: part.to_json() for name, part in self.linears.items()}
        parts = {"block": self.block.to_json(), "norm": self.norm_part.to_json(), "linear": self.linear.to_json()}
        return {**parts, "linears": linears}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LayerSpec:
        """The inverse of :meth:`to_json`."""
        linears = {name: Part.from_json(part) for name, part in data.get("linears", {}).items()}
        part = {key: Part.from_json(data[key]) for key in ("block", "norm", "linear")}
        return cls(part["block"], part["norm"], part["linear"], linears)


@dataclass(frozen=True)
class Stage:
    """A wiring over layers at one dim. ``order``: the layer visited at each step, where layers are shared (ties).

    ``own_norms``: a layer that is visited again has norms of its own there (``*`` behind the order); it is False where
    none is visited again.
    """

    wiring: Part
    layers: tuple[LayerSpec, ...]
    dim: int
    order: tuple[int, ...] | None = None
    join: Part | None = None  # how the stage before comes in; None for the first
    own_norms: bool = False

    def __post_init__(self) -> None:
        if not self.layers:
            raise BadSpec("spec: a stage of depth 0 computes nothing; give it a layer, as in residual(mlp) 1x16")
        if type(self.dim) is not int or self.dim < 1:
            raise BadSpec(f"spec: a stage of width {self.dim} holds nothing; give it a width of at least 1")
        if self.order is not None and any(isinstance(index, bool) for index in self.order):
            raise BadSpec(f"spec: order {list(self.order)} must hold the numbers of layers")
        if self.order is not None and set(self.order) != set(range(len(self.layers))):
            want = f"every layer from 0 to {len(self.layers) - 1} at least once"
            raise BadSpec(f"spec: order {','.join(map(str, self.order))} must visit {want}")
        if self.order == tuple(range(len(self.layers))):
            object.__setattr__(self, "order", None)
        if type(self.own_norms) is not bool:
            raise BadSpec(f"spec: own_norms {self.own_norms!r} must be true or false")
        object.__setattr__(self, "own_norms", self.own_norms and self.depth > len(self.layers))
        object.__setattr__(self, "wiring", WIRINGS.complete(self.wiring, self.dim))
        ends = self.ends()
        given: dict[int, set[tuple[int, int]]] = {}
        for visit, index in enumerate(self.visits):
            given.setdefault(index, set()).add(ends[visit])
        for index, pairs in given.items():
            if len(pairs) > 1:
                raise BadSpec(f"spec: layer {index} is visited at widths {sorted(pairs)}; shared layers need one")
        layers = tuple(layer.sized(next(iter(given[i]))[1]) for i, layer in enumerate(self.layers))
        object.__setattr__(self, "layers", layers)
        if self.join is not None:
            object.__setattr__(self, "join", JOINS.complete(self.join, self.dim))

    @property
    def visits(self) -> tuple[int, ...]:
        """The layer visited at each step."""
        return self.order if self.order is not None else tuple(range(len(self.layers)))

    @property
    def depth(self) -> int:
        """How many steps the wiring is given: visits, not weights."""
        return len(self.visits)

    def ends(self) -> list[tuple[int, int]]:
        """What each visited layer takes and gives."""
        return wiring_of(self.wiring, self.dim, self.depth).ends()

    @property
    def out(self) -> int:
        """The width that leaves the stage."""
        return wiring_of(self.wiring, self.dim, self.depth).out()

    def parts_text(self) -> str:
        """``wiring(layers)`` as text."""
        ends = self.ends()
        widths = {index: ends[visit][1] for visit, index in enumerate(self.visits)}
        texts = [layer.text(widths[i]) for i, layer in enumerate(self.layers)]
        depth = len(texts)
        listed = next(n for n in range(1, depth + 1) if texts == texts[:n] * (depth // n))  # what is listed is repeated
        runs = [(text, len(list(run))) for text, run in groupby(texts[:listed])]
        inside = ", ".join(text if n == 1 else f"{text}*{n}" for text, n in runs)
        return f"{WIRINGS.sparse(self.wiring, self.dim)}({inside})"

    def shape_text(self) -> str:
        """``depth x dim`` as text, with the order where layers are shared."""
        order = "@" + ",".join(map(str, self.order)) if self.order is not None else ""
        return f"{len(self.layers)}x{self.dim}{order}{'*' * self.own_norms}"

    def to_json(self) -> dict[str, Any]:
        """Everything, with ``order`` and ``join`` null where there is none."""
        return {
            "wiring": self.wiring.to_json(),
            "layers": [layer.to_json() for layer in self.layers],
            "dim": self.dim,
            "order": list(self.order) if self.order is not None else None,
            "join": self.join.to_json() if self.join else None,
            "own_norms": self.own_norms,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Stage:
        """The inverse of :meth:`to_json`."""
        layers = tuple(LayerSpec.from_json(layer) for layer in data["layers"])
        order = tuple(data["order"]) if data.get("order") is not None else None
        join = Part.from_json(data["join"]) if data.get("join") else None
        return cls(Part.from_json(data["wiring"]), layers, data["dim"], order, join, data["own_norms"])


@dataclass(frozen=True)
class Exit:
    """A head within: it reads what step ``layer`` of stage ``stage`` is given, before that layer's norm.

    Steps are layers; where layers are shared they are visits, and of a wiring that goes round its first round.
    """

    stage: int
    layer: int
    head: Part

    def __post_init__(self) -> None:
        if any(type(number) is not int or number < 0 for number in self.place):
            raise BadSpec(f"spec: exit {self.stage}.{self.layer} must be the numbers of a stage and a layer")

    @property
    def place(self) -> tuple[int, int]:
        """(stage, layer)."""
        return self.stage, self.layer

    def to_json(self) -> dict[str, Any]:
        """The fields by name."""
        return {"stage": self.stage, "layer": self.layer, "head": self.head.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Exit:
        """The inverse of :meth:`to_json`."""
        return cls(data["stage"], data["layer"], Part.from_json(data["head"]))


@dataclass(frozen=True)
class Spec:
    """stem -> stages -> head. ``str(spec)`` and ``Spec.parse`` are inverses, ``to_json`` and ``from_json`` too.

    ``exits``: heads within the stages, in the order they are met. One that does not say its ``outputs`` has those of
    the head.
    """

    stages: tuple[Stage, ...]
    stem: Part | None = None
    head: Part | None = None
    exits: tuple[Exit, ...] = ()

    def __post_init__(self) -> None:
        if not self.stages:
            raise BadSpec("spec: no stages; write at least one, as in residual(mlp) 4x32")
        first, *rest = self.stages
        if first.join is not None:
            raise BadSpec(f"spec: join {first.join} stands before the first stage, where nothing comes in; drop it")
        rest = [stage if stage.join else replace(stage, join=JOIN) for stage in rest]
        object.__setattr__(self, "stages", (first, *rest))
        if self.stem is not None:
            object.__setattr__(self, "stem", STEMS.complete(self.stem, first.dim))
        if self.head is not None:
            object.__setattr__(self, "head", HEADS.complete(self.head, self.stages[-1].out))
        exits = sorted(self.exits, key=lambda one: one.place)
        for one, after in pairwise(exits):
            if one.place == after.place:
                raise BadSpec(f"spec: two exits stand at {one.stage}.{one.layer}; keep one")
        object.__setattr__(self, "exits", tuple(replace(one, head=self._head_of(one)) for one in exits))

    def width_at(self, one: Exit) -> int:
        """The channels that an exit reads. Raises BadSpec where there is no such place."""
        if one.stage >= len(self.stages) or one.layer >= self.stages[one.stage].depth:
            depths = ", ".join(str(stage.depth) for stage in self.stages)
            raise BadSpec(f"spec: exit {one.stage}.{one.layer} stands before no layer; the stages have {depths} steps")
        return self.stages[one.stage].ends()[one.layer][0]

    def _head_of(self, one: Exit) -> Part:
        """An exit's head with all settings, or as it is as long as nobody says how many outputs there are."""
        width, asked = self.width_at(one), one.head
        if "outputs" in HEADS.settings(asked.name) and "outputs" not in asked.settings:
            if self.head is None:
                return asked
            if "outputs" in self.head.settings:
                asked = asked.with_settings(outputs=self.head.settings["outputs"])
        return HEADS.complete(asked, width)

    def _exit_text(self, one: Exit) -> str:
        """``stage.layer: head`` without what :meth:`_head_of` would fill in."""
        part = HEADS.sparse(one.head, self.width_at(one))
        if self.head is not None and "outputs" in self.head.settings:
            same = ("outputs", self.head.settings["outputs"])
            part = Part(part.name, dict(item for item in part.settings.items() if item != same))
        return f"{one.stage}.{one.layer}: {part}"

    @property
    def open(self) -> bool:
        """Whether stem or head are still to be chosen from the data."""
        return self.stem is None or self.head is None

    def __str__(self) -> str:
        words: list[str] = []
        before = ""
        for index, stage in enumerate(self.stages):
            parts, shape = stage.parts_text(), stage.shape_text()
            same = parts == before
            if index:
                join = stage.join if stage.join != JOINS.complete(JOIN, stage.dim) else None
                glue = f" -{JOINS.sparse(join, stage.dim)}- " if join else ("-" if same else " - ")
                words.append(glue)
            words.append(shape if same else f"{parts} {shape}")
            before = parts
        ends = [str(kind.sparse(part)) if part else "" for kind, part in ((STEMS, self.stem), (HEADS, self.head))]
        exits = ", ".join(self._exit_text(one) for one in self.exits)
        return " | ".join(text for text in (ends[0], "".join(words), ends[1], exits) if text)

    @classmethod
    def parse(cls, text: str, data: Mapping[str, Value] | None = None) -> Spec:
        """Read the text form. Raises BadSpec or UnknownName naming the place and what is known.

        ``data``: settings that stem and head take from it where they need them and the text does not say them.
        """
        if not text.strip():
            raise BadSpec("spec: the text is empty; write wiring(block) depth x width, as in residual(mlp) 4x32")
        return _SpecReader(text, data or {}).spec()

    def to_json(self) -> dict[str, Any]:
        """JSON with the version in it."""
        ends = {"stem": self.stem.to_json() if self.stem else None, "head": self.head.to_json() if self.head else None}
        exits = [one.to_json() for one in self.exits]
        return {"version": VERSION, **ends, "stages": [stage.to_json() for stage in self.stages], "exits": exits}

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | str) -> Spec:
        """The inverse of :meth:`to_json`; takes the object or its text. Raises BadSpec."""
        try:
            full = migrate(json.loads(data) if isinstance(data, str) else data)
            stem, head = full.get("stem"), full.get("head")
            return cls(
                tuple(Stage.from_json(stage) for stage in full["stages"]),
                Part.from_json(stem) if stem else None,
                Part.from_json(head) if head else None,
                tuple(Exit.from_json(one) for one in full["exits"]),
            )
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise BadSpec(f"spec: damaged JSON ({type(error).__name__}: {error}); save it again") from error


class _SpecReader(Reader):
    def __init__(self, text: str, data: Mapping[str, Value]) -> None:
        super().__init__(text)
        self.data = data

    def spec(self) -> Spec:
        stem = head = None
        if not self._stages_come():
            stem = self._filled(STEMS, self.part())
            self.expect("|")
        stages = self._stages()
        exits: list[Exit] = []
        if self.take("|"):
            if not self.peek_digit():
                head = self._filled(HEADS, self.part())
            if head is None or self.take("|"):
                exits = self._exits()
        self.end()
        return Spec(tuple(stages), stem, head, tuple(exits))

    def _filled(self, kind: Kind, part: Part) -> Part:
        """The part with what it needs and does not say, where the data says it."""
        needed = [name for name, setting in kind.settings(part.name).items() if setting.default is Setting.REQUIRED]
        missing = {name: self.data[name] for name in needed if name in self.data and name not in part.settings}
        return part.with_settings(**missing)

    def _exits(self) -> list[Exit]:
        exits = [self._exit()]
        while self.take(","):
            exits.append(self._exit())
        return exits

    def _exit(self) -> Exit:
        stage = self.integer("an exit's stage, as in 0.3: pool")
        self.expect(".")
        layer = self.integer("an exit's layer, as in 0.3: pool")
        self.expect(":")
        return Exit(stage, layer, self.part())

    def _stages_come(self) -> bool:
        """Whether a wiring stands here: a part with a bracket of layers behind it."""
        at = self.at
        self.part()
        found = self.peek("(")
        self.at = at
        if not found and "|" not in self.text:
            self.part()
            raise self.fail("'(' and a block, as in residual(mlp) 4x32")
        return found

    def _stages(self) -> list[Stage]:
        stages = [self._stage(None, None)]
        while self.take("-"):
            join = None
            at = self.at
            if not self.peek_digit():
                join = self.part()
                if not self.take("-"):
                    join, self.at = None, at
            stages.append(self._stage(stages[-1], join))
        return stages

    def peek_digit(self) -> bool:
        self.space()
        return self.text[self.at : self.at + 1].isdigit()

    def _stage(self, before: Stage | None, join: Part | None) -> Stage:
        if before is None or not self.peek_digit():
            self._parts = self._wiring()
        wiring, runs = self._parts
        layers_here = self.integer("a depth, as in 4x32")
        self.expect("x")
        dim = self.integer("a width, as in 4x32")
        order, own_norms = None, False
        if self.take("@"):
            order = [self.integer("a layer's number")]
            while self.take(","):
                order.append(self.integer("a layer's number"))
            own_norms = self.take("*")
        counted = sum(n or 1 for _, n in runs)
        times, left = divmod(layers_here, counted)
        if left:
            raise BadSpec(f"spec {self.text!r}: {counted} layers listed for depth {layers_here}; make them agree")
        layers = [layer for layer, n in runs for _ in range(n or 1)] * times
        return Stage(wiring, tuple(layers), dim, tuple(order) if order else None, join, own_norms)

    def _wiring(self) -> tuple[Part, list[tuple[LayerSpec, int | None]]]:
        wiring = self.part()
        self.expect("(")
        runs = [self._layer()]
        while self.take(","):
            runs.append(self._layer())
        self.expect(")")
        return wiring, runs

    def _layer(self) -> tuple[LayerSpec, int | None]:
        block, norm, linear = self.part(), None, DENSE
        linears: dict[str, Part] = {}
        said: set[str] = set()
        while not any(self.peek(token) for token in (")", ",", "*")):
            word = self.match(re.compile(r"norm|linear(\.[a-z0-9_.]+)?"), "norm=, linear= or linear.name= of a layer")
            if word in said:
                raise BadSpec(f"spec {self.text!r}: {word}= is given twice in a layer; keep one")
            said.add(word)
            self.expect("=")
            part = self.part()
            if word == "norm":
                norm = part
            elif word == "linear":
                linear = part
            else:
                linears[word.removeprefix("linear.")] = part
        times = self.integer("how many") if self.take("*") else None
        return LayerSpec(block, norm, linear, linears), times
