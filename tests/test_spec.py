"""Specs: text and JSON both ways over random ones, versions, and what is said of bad ones."""

from __future__ import annotations

import copy
import json
import math
import pickle
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shoal.building import build, complete_spec
from shoal.core import kind as registry
from shoal.core.errors import BadSetting, BadSpec, ShoalError, UnknownName
from shoal.core.kind import Kind, Setting
from shoal.core.migrate import VERSION, migrate
from shoal.core.named import is_spec, named_part, read_spec
from shoal.core.part import Part, Value
from shoal.core.spec import Exit, LayerSpec, Spec, Stage
from shoal.data import Signature
from shoal.kinds import BLOCKS, HEADS, JOINS, LINEARS, NETS, NORMS, STEMS, WIRINGS
from shoal.net import Net
from shoal.testing._samples import OFFERS

NUMBERS = {
    int: st.integers(1, 8) | st.integers(1, 10**6),
    float: st.floats(allow_nan=False),
    bool: st.booleans(),
    str: st.text(max_size=6),
}


def values(wanted: Any) -> st.SearchStrategy[Value]:
    """Values of a setting's type."""
    if wanted in NUMBERS:
        return NUMBERS[wanted]
    if wanted in (None, type(None)):
        return st.none()
    arguments = typing.get_args(wanted)
    if typing.get_origin(wanted) is tuple:
        return st.lists(values(arguments[0]), max_size=3).map(tuple)
    if typing.get_origin(wanted) is typing.Literal:
        return st.sampled_from(arguments)
    return st.one_of([values(option) for option in arguments])


def fill(kind: Kind, name: str, dim: int | None = None) -> st.SearchStrategy[Part]:
    """A part of that name with any of its settings given: the spec does not ask whether they can be built."""
    known = kind.settings(name)
    needed = {key: values(setting.type) for key, setting in known.items() if setting.default is Setting.REQUIRED}
    free = {key: values(setting.type) for key, setting in known.items() if key not in needed}
    return st.fixed_dictionaries(needed, optional=free).map(lambda given: Part(name, given)).filter(_fits(kind, dim))


def _fits(kind: Kind, dim: int | None) -> Any:
    def fits(part: Part) -> bool:
        try:
            kind.complete(part, dim)
        except BadSetting:  # one setting follows from another, as head_dim from heads, and there is none that fits
            return False
        return True

    return fits


def part(kind: Kind, dim: int | None = None) -> st.SearchStrategy[Part]:
    return st.sampled_from(kind.names()).flatmap(lambda name: fill(kind, name, dim))


def wiring(depth: int) -> st.SearchStrategy[Part]:
    """A wiring at its tiny settings, its defaults, or with sizes that add up to the depth."""
    tiny = st.sampled_from(WIRINGS.names()).map(lambda name: Part(name, WIRINGS.get(name).tiny))
    cut = st.integers(1, depth).map(lambda n: Part("grouped", {"size": tuple(x for x in (n, depth - n) if x)}))
    return st.one_of(tiny, st.sampled_from(WIRINGS.names()).map(Part), cut)


@st.composite
def layer_specs(draw: st.DrawFn, width: int) -> LayerSpec:
    names = draw(st.lists(st.sampled_from(["up", "down", "query", "first.inner"]), max_size=2, unique=True))
    norm = draw(st.none() | part(NORMS))
    return LayerSpec(
        draw(part(BLOCKS, width)), norm, draw(part(LINEARS)), {name: draw(part(LINEARS)) for name in names}
    )


@st.composite
def stages(draw: st.DrawFn, first: bool) -> Stage:
    count, dim = draw(st.integers(1, 4)), draw(st.integers(1, 64))
    order = None
    if draw(st.booleans()):
        order = tuple(draw(st.permutations([*range(count), *draw(st.lists(st.integers(0, count - 1), max_size=3))])))
    depth = len(order) if order else count
    chosen = draw(wiring(depth).filter(lambda w: _one_width(w, dim, order, depth)))
    width = WIRINGS.make(chosen, dim, depth, dim=dim, offers=OFFERS).ends()[0][1]
    pool = draw(st.lists(layer_specs(width), min_size=1, max_size=2))
    layers = tuple(draw(st.sampled_from(pool)) for _ in range(count))
    return Stage(chosen, layers, dim, order, None if first else draw(st.none() | part(JOINS)), draw(st.booleans()))


def _one_width(chosen: Part, dim: int, order: tuple[int, ...] | None, depth: int) -> bool:
    """Whether layers that are visited again find the same widths there."""
    ends = WIRINGS.make(chosen, dim, depth, dim=dim, offers=OFFERS).ends()
    return len({e[1] for e in ends}) == 1 and (order is None or len(set(order)) == depth or len(set(ends)) == 1)


@st.composite
def specs(draw: st.DrawFn) -> Spec:
    count = draw(st.integers(1, 3))
    chain = tuple(draw(stages(first=i == 0)) for i in range(count))
    places = st.sampled_from([(i, step) for i, stage in enumerate(chain) for step in range(stage.depth)])
    taken = draw(st.lists(places, max_size=3, unique=True))
    exits = tuple(Exit(*place, draw(part(HEADS) | st.just(Part("every")))) for place in taken)
    return Spec(chain, draw(st.none() | part(STEMS)), draw(st.none() | part(HEADS)), exits)


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        ("grouped(attention, mlp) 6x8", ["attention", "mlp"] * 3),
        ("residual(mlp*2, conv) 6x8", ["mlp", "mlp", "conv"] * 2),
        ("residual(mlp, conv, mlp) 3x8", ["mlp", "conv", "mlp"]),
    ],
)
def test_what_is_listed_is_repeated(text: str, blocks: list[str]) -> None:
    spec = Spec.parse(text)
    assert [layer.block.name for layer in spec.stages[0].layers] == blocks
    assert str(spec) == text


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(specs())
def test_every_spec_comes_back(spec: Spec) -> None:
    text = str(spec)
    assert "\n" not in text
    for again in (Spec.parse(text), Spec.from_json(json.dumps(spec.to_json())), Spec.from_json(spec.to_json())):
        assert again == spec
        assert hash(again) == hash(spec)
        assert str(again) == text
    assert pickle.loads(pickle.dumps(spec)) == spec
    assert copy.deepcopy(spec) == spec
    assert spec.to_json()["version"] == VERSION


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        st.from_regex(r"[a-z][a-z0-9_]*", fullmatch=True),
        st.recursive(
            st.one_of(st.none(), *NUMBERS.values()), lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=5
        ),
        max_size=4,
    )
)
def test_every_part_comes_back(given_settings: dict[str, Value]) -> None:
    part = Part("thing", given_settings)
    assert Part.parse(str(part)) == part
    assert Part.from_json(json.loads(json.dumps(part.to_json()))) == part
    assert hash(Part.parse(str(part))) == hash(part)
    types = [type(value) for value in Part.parse(str(part)).settings.values()]
    assert types == [type(value) for value in part.settings.values()]


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet='residualmp conv()[]x-|@*,=0123456789."\\', max_size=40))
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    spec, message = _read(text)
    if spec is not None:
        assert Spec.parse(str(spec)) == spec
    assert "\n" not in message


def _read(text: str) -> tuple[Spec | None, str]:
    try:
        return Spec.parse(text), ""
    except ShoalError as error:
        return None, str(error)


BAD = [
    ("", BadSpec, "empty"),
    ("   ", BadSpec, "empty"),
    ("residua(mlp) 4x32", UnknownName, "did you mean 'residual'"),
    ("residual(mpl) 4x32", UnknownName, "did you mean 'mlp'"),
    ("residual(mlp[hiden=4]) 4x32", BadSetting, "did you mean 'hidden'"),
    ("residual(mlp[hidden=many]) 4x32", BadSetting, "hidden='many'"),
    ("residual(mlp[hidden=4,hidden=5]) 4x32", BadSpec, "'hidden' is given twice"),
    ("residual(mlp norm=bach) 4x32", UnknownName, "did you mean 'batch'"),
    ("residual(mlp norm=rms norm=layer) 4x32", BadSpec, "twice"),
    ("residual(mlp linear=dens) 4x32", UnknownName, "did you mean 'dense'"),
    ("residual(mlp act=relu) 4x32", BadSpec, "norm=, linear="),
    ("residual(mlp) 0x32", BadSpec, "depth 0"),
    ("residual(mlp) 4x0", BadSpec, "width 0"),
    ("residual(mlp) 4", BadSpec, "expected 'x'"),
    ("residual(mlp) x32", BadSpec, "a depth, as in 4x32"),
    ("residual(mlp) 4x", BadSpec, "a width, as in 4x32"),
    ("residual(mlp 4x32", BadSpec, "expected"),
    ("residual mlp) 4x32", BadSpec, "'(' and a block"),
    ("residual", BadSpec, "'(' and a block"),
    ("residual() 4x32", BadSpec, "a name such as mlp"),
    ("residual(mlp[hidden=4) 4x32", BadSpec, "expected"),
    ("residual(mlp[hidden=]) 4x32", BadSpec, "a value"),
    ('residual(mlp[act="relu]) 4x32', BadSpec, "a closed JSON string"),
    ("residual(mlp*2, conv) 4x32", BadSpec, "3 layers listed for depth 4"),
    ("residual(mlp*5) 4x32", BadSpec, "5 layers listed for depth 4"),
    ("residual(mlp*0, conv) 1x32", BadSpec, ""),
    ("residual(mlp) 3x32@0,1,1", BadSpec, "every layer from 0 to 2"),
    ("residual(mlp) 2x32@0,1,2", BadSpec, "every layer from 0 to 1"),
    ("residual(mlp) 2x32@", BadSpec, "a layer's number"),
    ("dense(mlp) 2x32@0,1,0", BadSpec, "visited at widths"),
    ("downsample- residual(mlp) 2x32", BadSpec, "expected"),
    ("residual(mlp) 2x32 -padd- plain(mlp) 2x32", UnknownName, "did you mean 'pad'"),
    ("residual(mlp) 2x32-", BadSpec, "expected"),
    ("residual(mlp) 2x32 and more", BadSpec, "expected the end"),
    ("residual(mlp) 2x32 | pool[outputs=2] | pool[outputs=2]", BadSpec, "an exit's stage, as in 0.3: pool"),
    ("residual(mlp) 2x32 | pool[outputs=2] | 0.1: pool | 0.0: pool", BadSpec, "expected the end"),
    ("residual(mlp) 2x32 | 0.2: pool[outputs=2]", BadSpec, "exit 0.2 stands before no layer; the stages have 2 steps"),
    ("residual(mlp) 2x32-3x64 | 2.0: pool[outputs=2]", BadSpec, "exit 2.0 stands before no layer"),
    ("residual(mlp) 2x32 | 0.1 pool[outputs=2]", BadSpec, "expected ':'"),
    ("residual(mlp) 2x32 | 1: pool[outputs=2]", BadSpec, "expected '.'"),
    ("residual(mlp) 2x32 | 0.1: pol", UnknownName, "did you mean 'pool'"),
    ("residual(mlp) 2x32 | pool[outputs=2] | 0.1: pool[outpts=2]", BadSetting, "did you mean 'outputs'"),
    ("residual(mlp) 2x32 | pool[outputs=2] | 0.1: pool, 0.1: every", BadSpec, "two exits stand at 0.1"),
    ("residual(mlp) 2x32*", BadSpec, "expected the end"),
    ("residual(mlp) 2x32 | pool", BadSetting, "pool[outputs=...]"),
    ("vector | residual(mlp) 2x32", BadSetting, "vector[features=...]"),
    ("vectr[features=2] | residual(mlp) 2x32", UnknownName, "did you mean 'vector'"),
    ("vector[features=2]", BadSpec, "'(' and a block"),
    ("vector[features=2] residual(mlp) 2x32", BadSpec, "expected"),
    ("grouped[size=[2,3]](mlp) 4x32", BadSetting, "add up to depth 4"),
    ("looped[times=0](mlp) 4x32", BadSetting, "at least 1"),
    ("Residual(mlp) 4x32", BadSpec, "a name such as mlp"),
    ("résidual(mlp) 4x32", BadSpec, "expected"),
]


@pytest.mark.parametrize(("text", "error", "says"), BAD, ids=[text or "nothing" for text, _, _ in BAD])
def test_bad_text_is_refused_with_its_place_or_fix(text: str, error: type[ShoalError], says: str) -> None:
    with pytest.raises(error) as caught:
        Spec.parse(text)
    message = str(caught.value)
    assert says in message
    assert "\n" not in message
    assert len(message.partition("known: ")[0]) < 400  # behind it are the names of all there are


def test_a_join_before_the_first_stage_is_refused() -> None:
    stage = Stage(Part("residual"), (LayerSpec(Part("mlp")),), 8, join=Part("widen"))
    with pytest.raises(BadSpec, match="before the first stage"):
        Spec((stage,))


def test_a_spec_without_stages_is_refused() -> None:
    with pytest.raises(BadSpec, match="no stages"):
        Spec(())


def test_the_text_forms_of_the_documentation() -> None:
    same = {
        "residual(conv) 9x16-9x32-9x64": 27,
        "grouped[size=0](attention[causal=true]) 1x256": 1,
        "residual(mlp[hidden=64] norm=rms linear=low_rank[rank=4] linear.down=dense) 4x32": 4,
        "residual(conv*3, bottleneck) 4x16": 4,
        "residual(mlp) 2x16@0,1,0,1": 2,
        "residual(conv) 2x16 -pad- plain(conv) 2x32": 4,
        "convolution[channels=1] | residual(conv) 9x16-9x32-9x64 | pool[outputs=10]": 27,
        "residual(mlp) 2x16@0,1,0,1*": 2,
        "residual(mlp) 2x16-4x32 | pool[outputs=10] | 1.0: pool, 1.2: pool": 6,
        "residual(mlp) 3x16 | 0.2: pool": 3,
    }
    for text, depth in same.items():
        spec = Spec.parse(text)
        assert str(spec) == text
        assert sum(len(stage.layers) for stage in spec.stages) == depth


def test_all_settings_are_in_the_json_and_few_in_the_text() -> None:
    spec = Spec.parse("residual(mlp) 1x16")
    block = spec.to_json()["stages"][0]["layers"][0]["block"]
    assert block["settings"] == {"hidden": 64, "act": "relu"}
    assert str(spec) == "residual(mlp) 1x16"
    assert Spec.parse("residual(mlp[hidden=64,act=relu]) 1x16") == spec
    assert str(Spec.parse("residual( mlp )1 x 16")) == "residual(mlp) 1x16"


def test_settings_that_follow_from_others_come_back() -> None:
    for text in ("attention[head_dim=4,heads=2]", "attention[heads=2]", "attention[heads=4]", "attention[head_dim=3]"):
        spec = Spec.parse(f"residual({text}) 1x4")
        assert Spec.parse(str(spec)) == spec


def test_specs_are_keys_and_frozen() -> None:
    spec = Spec.parse("residual(mlp) 2x16-2x32")
    assert {spec: 1}[Spec.parse("residual(mlp) 2x16 - residual(mlp) 2x32")] == 1
    with pytest.raises(AttributeError):
        spec.stem = Part("vector")  # type: ignore[misc]
    with pytest.raises(TypeError):
        spec.stages[0].layers[0].block.settings["hidden"] = 3  # type: ignore[index]


GOOD = Spec.parse("vector[features=3] | residual(mlp) 2x16 | pool[outputs=2]").to_json()


def test_versions_newer_missing_and_strange_are_refused() -> None:
    for version, says in ((VERSION + 1, "newer"), (None, "no version"), ("1", "no version"), (True, "no version")):
        with pytest.raises(BadSpec, match=says):
            Spec.from_json({**GOOD, "version": version})
    with pytest.raises(BadSpec, match="no version"):
        Spec.from_json({key: value for key, value in GOOD.items() if key != "version"})
    with pytest.raises(BadSpec, match="can no longer be read"):
        Spec.from_json({**GOOD, "version": 0})


def test_damaged_json_is_refused() -> None:
    text = json.dumps(GOOD)
    for damaged in (text[: len(text) // 2], "", "[]", "null", "3", '"residual(mlp) 2x16"'):
        with pytest.raises(BadSpec):
            Spec.from_json(damaged)
    for key in ("stages", "stem", "head"):
        for value in (3, [3], "()", {"name": 3}, {"nome": "mlp"}):
            with pytest.raises(ShoalError):
                Spec.from_json({**GOOD, key: value})
    for wrong in (3, [3], [{"stage": 0, "layer": 1}], [{"stage": 0, "layer": 2.0, "head": "pool"}], ["0.1: pool"]):
        with pytest.raises(ShoalError):
            Spec.from_json({**GOOD, "exits": wrong})
    stage = GOOD["stages"][0]
    with pytest.raises(BadSpec, match="own_norms 1 must be true or false"):
        Spec.from_json({**GOOD, "stages": [{**stage, "own_norms": 1}]})
    for key in ("wiring", "layers", "dim"):
        for value in (None, "x(", [None], math.nan, 2.5, True, -1, {"name": "nothing_such"}):
            with pytest.raises(ShoalError):
                Spec.from_json({**GOOD, "stages": [{**stage, key: value}]})
        with pytest.raises(BadSpec):
            Spec.from_json({**GOOD, "stages": [{k: v for k, v in stage.items() if k != key}]})


def test_migration_goes_step_by_step_and_leaves_its_input() -> None:
    def first(old: dict[str, Any]) -> dict[str, Any]:
        return {**old, "dim": old["width"]}

    def second(old: dict[str, Any]) -> dict[str, Any]:
        return {**old, "dims": [old["dim"]]}

    old = {"version": 1, "width": 8}
    new = migrate(old, version=3, steps={1: first, 2: second})
    assert new == {"version": 3, "width": 8, "dim": 8, "dims": [8]}
    assert old == {"version": 1, "width": 8}
    assert migrate({"version": 2, "dim": 4}, version=3, steps={1: first, 2: second})["dims"] == [4]
    assert migrate(new, version=3, steps={}) == new
    with pytest.raises(BadSpec, match="version 1 can no longer be read"):
        migrate(old, version=3, steps={2: second})


# ---- exits and own norms


def test_an_exit_answers_as_the_head_unless_it_says_otherwise() -> None:
    spec = Spec.parse("residual(mlp) 3x16 | pool[outputs=7] | 0.2: pool, 0.1: every[outputs=3]")
    assert [(one.place, one.head.settings["outputs"]) for one in spec.exits] == [((0, 1), 3), ((0, 2), 7)]
    assert str(spec) == "residual(mlp) 3x16 | pool[outputs=7] | 0.1: every[outputs=3], 0.2: pool"
    waiting = Spec.parse("residual(mlp) 3x16 | 0.2: pool")
    assert waiting.exits[0].head == Part("pool")
    assert Spec(waiting.stages, None, spec.head, waiting.exits).exits == spec.exits[1:]


def test_an_exit_counts_visits_where_layers_are_shared() -> None:
    spec = Spec.parse("residual(mlp) 2x16@0,1,0 | pool[outputs=2] | 0.2: pool")
    assert spec.exits[0].layer == 2
    with pytest.raises(BadSpec, match=r"exit 0\.3 stands before no layer"):
        Spec.parse("residual(mlp) 2x16@0,1,0 | pool[outputs=2] | 0.3: pool")


def test_an_exit_is_as_wide_as_the_layer_before_which_it_stands() -> None:
    spec = Spec.parse("dense[growth=3](mlp) 3x8 | pool[outputs=2] | 0.2: pool")
    assert spec.width_at(spec.exits[0]) == 14


def test_own_norms_mean_something_only_where_a_layer_comes_again() -> None:
    for text, kept in (("2x8@0,1,0*", "2x8@0,1,0*"), ("2x8@1,0*", "2x8@1,0"), ("2x8@0,1*", "2x8"), ("1x8@0*", "1x8")):
        assert str(Spec.parse(f"residual(mlp) {text}")) == f"residual(mlp) {kept}"


def test_json_of_version_1_still_loads() -> None:
    spec = Spec.parse("vector[features=3] | residual(mlp) 2x16@0,1,0 | pool[outputs=2]")
    old = spec.to_json()
    del old["exits"]
    for stage in old["stages"]:
        del stage["own_norms"]
    old["version"] = 1
    assert Spec.from_json(json.dumps(old)) == spec
    assert "exits" not in old
    with pytest.raises(BadSpec, match="damaged"):
        Spec.from_json({**old, "version": VERSION})


# ---- named nets and what methods ask for

TOYS = {
    "nets": """
from shoal.core.base import Architecture
from shoal.core.spec import Spec


class Toy(Architecture):
    variants = {"toy3": {"depth": 3}, "toy_for_two": {"outputs": 2}, "other": {"depth": 5}}

    def __init__(self, *, depth: int = 2, outputs: int = 10, channels: int = 1) -> None:
        self.depth, self.outputs, self.channels = depth, outputs, channels

    def spec(self) -> Spec:
        ends = f"vector[features={self.channels}]", f"pool[outputs={self.outputs}]"
        return Spec.parse(f"{ends[0]} | residual(mlp) {self.depth}x8 | {ends[1]}")
""",
    "wirings": """
from shoal.core.base import MakeLinear, MakeNorm, Wiring


class Toy(Wiring):
    def __init__(self, dim: int, depth: int, norm: MakeNorm, linear: MakeLinear, *, bias: bool = False) -> None:
        super().__init__(dim, depth)
        self.norm, self.map = norm(dim), linear(dim, dim, bias=bias)

    def reads(self) -> list[set[int]]:
        return [{0}] * self.depth + [set(range(self.depth + 1))]

    def forward(self, x, layers):
        return self.map(self.norm(x + sum(layer(x) for layer in layers)))
""",
}


@pytest.fixture
def toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A net and a wiring from a plug-in, both named `toy`."""
    lines = []
    for folder, code in TOYS.items():
        (tmp_path / f"toy_{folder}.py").write_text(code, encoding="utf-8")
        lines.append(f"[shoal.{folder}]\ntoy = toy_{folder}:Toy\n")
    info = tmp_path / "toys-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toys\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    registry._plugins.cache_clear()
    yield
    registry._plugins.cache_clear()


def test_a_net_is_read_from_its_name_its_variant_and_its_settings(toys: None) -> None:
    depths = {"toy": 2, "toy3": 3, "toy[depth=4]": 4, "toy3[outputs=5]": 3, "toy3[depth=6]": 6, " toy ": 2}
    for text, depth in depths.items():
        assert read_spec(text).stages[0].depth == depth
        assert is_spec(text)
    assert read_spec("toy3[outputs=5]").head == read_spec("toy[depth=3,outputs=5]").head
    assert named_part(Part("toy3", {"outputs": 5})) == Part("toy", {"depth": 3, "outputs": 5})
    assert read_spec("residual(mlp) 2x8") == Spec.parse("residual(mlp) 2x8")


def test_a_net_takes_from_data_what_is_not_said(toys: None) -> None:
    data = {"outputs": 7, "channels": 5, "size": (28, 28)}
    full = "vector[features=5] | residual(mlp) {}x8 | pool[outputs={}]"
    assert str(read_spec("toy", data)) == full.format(2, 7)
    assert str(read_spec("toy3[outputs=4]", data)) == full.format(3, 4)
    assert str(read_spec("toy_for_two", data)) == full.format(2, 2)
    assert read_spec("residual(mlp) 2x8", data).open
    net = build("toy3", like=Signature((), 5, None, Part("classification", {"classes": 4})))
    assert str(net.spec) == full.format(3, 4)


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("toys", UnknownName, "did you mean 'toy'"),
        ("other", UnknownName, "'other' is unknown"),  # a variant that does not begin with its net's name
        ("toy4", UnknownName, "a spec is written residual(mlp) 4x32"),
        ("toy[dept=3]", BadSetting, "did you mean 'depth'"),
        ("toy[depth=deep]", BadSetting, "depth='deep'"),
        ("toy[depth=0]", BadSpec, "depth 0"),
        ("toy | pool", BadSpec, "expected the end"),
        ("", BadSpec, "empty"),
    ],
)
def test_a_wrong_name_is_refused_in_one_line(toys: None, text: str, error: type[ShoalError], says: str) -> None:
    with pytest.raises(error) as caught:
        read_spec(text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert is_spec(text) == (error is not UnknownName and text.startswith("toy["))


def test_every_variant_of_the_house_is_found_by_its_name() -> None:
    for name in NETS.names():
        for variant, said in NETS.get(name).variants.items():
            assert named_part(Part(variant)).name in (name, variant)
            NETS.complete(Part(name, said))


def test_a_wiring_gets_the_makers_that_it_names(toys: None) -> None:
    assert WIRINGS.asks("toy", "linear")
    assert WIRINGS.asks("toy", "norm")
    assert not WIRINGS.asks("toy", "bias")  # a setting, and no offer
    assert not WIRINGS.asks("plain", "linear")
    net = Net(Spec.parse("vector[features=3] | toy(mlp norm=rms)  2x8-2x8 | pool[outputs=2]"))
    for stage in net.stages:
        assert type(stage.wiring.norm) is NORMS.get("rms")  # the norms that the layers have
        assert type(stage.wiring.map) is LINEARS.get("dense")
        assert stage.wiring.map.bias is None
    biased = WIRINGS.make(Part("toy", {"bias": True}), 8, 3, dim=8, offers=OFFERS)
    assert biased.map.bias is not None
    assert biased.depth == 3


def test_no_offer_goes_to_who_does_not_ask_or_has_it_by_position() -> None:
    plain = WIRINGS.make(Part("plain"), 8, 3, offers={**OFFERS, "depth": 99})
    assert plain.depth == 3


def test_a_stem_takes_from_the_data_what_it_needs_and_nobody_said() -> None:
    images = Signature((8, 8), 1, None, Part("classification", {"classes": 10}))
    spec = complete_spec("patches[patch=2] | residual(transformer) 3x32", images)
    assert spec.stem == STEMS.complete(Part("patches", {"channels": 1, "size": (8, 8), "patch": 2}))
    table = Signature((), 7, None, Part("regression", {"outputs": 2}))
    spec = complete_spec("vector | residual(mlp) 2x8 | pool", table)
    assert spec == Spec.parse("vector[features=7] | residual(mlp) 2x8 | pool[outputs=2]")
    with pytest.raises(BadSetting, match="needs the setting 'channels'"):
        Spec.parse("patches | residual(transformer) 3x32")
