"""Specs: text and JSON both ways over random ones, versions, and what is said of bad ones."""

from __future__ import annotations

import copy
import json
import math
import pickle
import typing
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shoal.core.errors import BadSetting, BadSpec, ShoalError, UnknownName
from shoal.core.kind import Kind, Setting
from shoal.core.migrate import VERSION, migrate
from shoal.core.part import Part, Value
from shoal.core.spec import LayerSpec, Spec, Stage
from shoal.kinds import BLOCKS, HEADS, JOINS, LINEARS, NORMS, STEMS, WIRINGS

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
    width = WIRINGS.make(chosen, dim, depth, dim=dim).ends()[0][1]
    pool = draw(st.lists(layer_specs(width), min_size=1, max_size=2))
    layers = tuple(draw(st.sampled_from(pool)) for _ in range(count))
    return Stage(chosen, layers, dim, order, None if first else draw(st.none() | part(JOINS)))


def _one_width(chosen: Part, dim: int, order: tuple[int, ...] | None, depth: int) -> bool:
    """Whether layers that are visited again find the same widths there."""
    ends = WIRINGS.make(chosen, dim, depth, dim=dim).ends()
    return len({e[1] for e in ends}) == 1 and (order is None or len(set(order)) == depth or len(set(ends)) == 1)


@st.composite
def specs(draw: st.DrawFn) -> Spec:
    count = draw(st.integers(1, 3))
    chain = tuple(draw(stages(first=i == 0)) for i in range(count))
    return Spec(chain, draw(st.none() | part(STEMS)), draw(st.none() | part(HEADS)))


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
    ("residual(mlp) 2x32 -pat- plain(mlp) 2x32", UnknownName, "did you mean 'pad'"),
    ("residual(mlp) 2x32-", BadSpec, "expected"),
    ("residual(mlp) 2x32 and more", BadSpec, "expected the end"),
    ("residual(mlp) 2x32 | pool[outputs=2] | pool[outputs=2]", BadSpec, "expected the end"),
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
    assert len(message) < 400


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
        Spec.from_json({**GOOD, "version": VERSION - 1})


def test_damaged_json_is_refused() -> None:
    text = json.dumps(GOOD)
    for damaged in (text[: len(text) // 2], "", "[]", "null", "3", '"residual(mlp) 2x16"'):
        with pytest.raises(BadSpec):
            Spec.from_json(damaged)
    for key in ("stages", "stem", "head"):
        for value in (3, [3], "()", {"name": 3}, {"nome": "mlp"}):
            with pytest.raises(ShoalError):
                Spec.from_json({**GOOD, key: value})
    stage = GOOD["stages"][0]
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
