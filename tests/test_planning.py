"""Planning: programs find the best sets, plans are measured, harms of runs from the middle are those of whole ones."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from shoal.anatomy import anatomy
from shoal.core.base import Proposal
from shoal.core.errors import BadModel, BadSetting
from shoal.core.part import Part
from shoal.core.spec import Spec
from shoal.data import Dataset, open_data
from shoal.edits.drop import Drop
from shoal.goals import parse_goals
from shoal.kinds import COMPRESSORS, TASKS
from shoal.net import Net
from shoal.recipe import done
from shoal.shrinking.healing import frozen, lessons_of, objective_for, pairs_of, refrozen, settling
from shoal.shrinking.planning import Candidate, Plan, Planner, Taken, shortlist
from shoal.shrinking.program import Way, choose
from shoal.shrinking.ranking import agreement
from shoal.shrinking.saving import Saving, _Alone
from shoal.shrinking.scale import Scale
from shoal.shrinking.tracks import Track
from shoal.shrinking.weighing import Weighed, Weigher
from shoal.training.objectives.blockwise import Blockwise
from shoal.training.objectives.distil import Distil
from strangers import TinyResNet


def option(path: str, harm: float, saves: dict[str, float], into: str | None = None, *more: str) -> Weighed:
    proposal = Proposal((Drop(path=path),), (path, *more), into)
    return Weighed(proposal, "skip", harm, 1.0, saves)


def options_of(rows: list[tuple[float, int]]) -> list[Weighed]:
    return [option(f"layer{i % 2}.{i}", harm, {"depth": float(saved)}) for i, (harm, saved) in enumerate(rows)]


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.floats(0, 10).map(lambda x: round(x, 2)), st.integers(1, 4)), min_size=1, max_size=7),
    st.integers(1, 12),
    st.sampled_from([0.5, 1.0, 2.0]),
)
def test_the_program_finds_what_trying_all_sets_finds(rows: list[tuple[float, int]], wanted: int, power: float) -> None:
    options = options_of(rows)
    sets = [s for n in range(len(options) + 1) for s in itertools.combinations(options, n)]
    able = [s for s in sets if sum(one.saves["depth"] for one in s) >= wanted]
    found = choose(options, {"depth": float(wanted)}, Way("test", power=power))
    assert found.enough is bool(able)
    if able:
        unit = max(one.harm for one in options) ** power or 1.0
        cost = min(sum(one.harm**power / unit + 1e-4 for one in s) for s in able)
        assert sum(one.harm**power / unit + 1e-4 for one in found.options) == pytest.approx(cost, abs=1e-3)
    else:
        assert sum(one.saves["depth"] for one in found.options) == sum(one.saves["depth"] for one in options)


def test_in_onnxruntime_like_spans_are_timed_once_and_share_a_run() -> None:
    net = TinyResNet().eval()
    example = torch.randn(1, 1, 16, 16)
    scale = Scale(parse_goals("latency<=50%"), net, example, "onnxruntime")
    paths = [span.path for span in anatomy(net, example).spans]
    like: dict[tuple[object, ...], float] = {}
    saving = Saving(scale, net, paths, scale.before, {"latency": 1.0}, like)
    assert saving.shares.keys() == set(paths)
    assert all(share >= 0 for share in saving.shares.values())
    forms = {repr(net.get_submodule(path)) for path in paths}
    assert sum(key[0] == "alone" for key in like) == len(forms) < len(paths)
    timed = dict(like)
    Saving(scale, net, paths, scale.before, {"latency": 1.0}, like)
    assert like == timed


def test_a_span_that_cannot_be_exported_by_itself_is_not_timed_so_and_stops_no_other() -> None:
    """Its proposals are refused; those of the others are weighed."""

    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(16, 16)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.linear(x) if x.sum() > 1e9 else x - self.linear(x)

    waits = _Alone(1.0, {})
    net = nn.Sequential(nn.Sequential(nn.Linear(16, 16), nn.ReLU()), Branches()).eval()
    shares = waits.ask(net, torch.randn(2, 16), ["0", "1"])
    waits.time()
    assert shares["0"]() >= 0
    with pytest.raises(BadModel, match="cannot be exported by itself"):
        shares["1"]()


def test_at_every_place_at_most_one_is_taken_and_none_inside_another() -> None:
    options = [
        option("a", 1.0, {"depth": 2.0}),
        option("a.b", 0.1, {"depth": 1.0}),
        option("a.c", 0.1, {"depth": 1.0}, "a.c"),
        option("d", 0.5, {"depth": 1.0}, "d", "e"),
        option("e", 0.1, {"depth": 1.0}),
        Weighed(Proposal((), ()), "whole", 0.0, 1.0, {"depth": 9.0}),
    ]
    one = choose(options[:5], {"depth": 3.0}, Way("test")).options
    assert {each.proposal.paths[0] for each in one} == {"a.b", "a.c", "e"}
    alone = choose(options, {"depth": 12.0}, Way("test"))
    assert not alone.enough
    assert [each.compressor for each in alone.options] == ["whole"]


def test_goals_that_are_several_are_all_met() -> None:
    options = [
        option("a", 0.1, {"depth": 2.0, "params": 0.0}),
        option("b", 0.1, {"depth": 0.0, "params": 5.0}),
        option("c", 0.3, {"depth": 2.0, "params": 5.0}),
    ]
    both = choose(options, {"depth": 2.0, "params": 5.0}, Way("test")).options
    assert {one.proposal.paths[0] for one in both} == {"a", "b"}


def test_ways_differ_and_a_cut_forbids_their_answer() -> None:
    options = [option("a.0", 1.0, {"depth": 4.0}), *(option(f"b.{i}", 0.3, {"depth": 1.0}) for i in range(4))]
    missing = {"depth": 4.0}
    assert len(choose(options, missing, Way("few", power=0.5)).options) == 1
    assert len(choose(options, missing, Way("many", power=2.0)).options) == 4
    first = choose(options, missing, Way("sum")).options
    second = choose(options, missing, Way("sum"), [first]).options
    assert {id(one) for one in first} != {id(one) for one in second}
    spread = [*(option(f"a.{i}", 0.10, {"depth": 1.0}) for i in range(4)), option("b.0", 0.12, {"depth": 1.0})]
    assert all(one.proposal.paths[0][0] == "a" for one in choose(spread, {"depth": 2.0}, Way("sum")).options)
    wide = choose(spread, {"depth": 2.0}, Way("spread", spread=0.1)).options
    assert sum(one.proposal.paths[0][0] == "a" for one in wide) == 2


def test_kinds_are_told_apart_by_what_is_left() -> None:
    options = [option("a", 1.0, {"depth": 1.0}), option("b", 0.1, {"depth": 1.0}, "b")]
    assert [one.proposal.paths for one in choose(options, {"depth": 1.0}, Way("l", kind="depth")).options] == [("a",)]
    assert [one.proposal.paths for one in choose(options, {"depth": 1.0}, Way("w", kind="width")).options] == [("b",)]


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return open_data("digits")


def images(digits: Dataset) -> tuple[Tensor, Tensor]:
    x, y = digits.valid.take(64, 0).batch(slice(None))
    return x.movedim(-1, 1).contiguous(), y


def shaken(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    for name, value in module.state_dict().items():
        if value.is_floating_point():
            drawn = torch.randn(value.shape, generator=generator) / 4
            value.copy_(drawn.abs() + 0.5 if name.endswith("running_var") else drawn)
    return module.eval()


def weigher_for(module: nn.Module, rows: tuple[Tensor, Tensor], goals: str) -> Weigher:
    task = TASKS.make(Part("classification", {"classes": 10}))
    return Weigher(rows, task, Scale(parse_goals(goals), module, rows[0][:1], "eager"))


@pytest.mark.parametrize("goals", ["params<=50%", "depth<=50%"])
def test_harms_of_runs_that_begin_in_the_middle_are_those_of_edited_copies(digits: Dataset, goals: str) -> None:
    """In-place sums and activations write on what was kept: it must not matter."""
    net = shaken(TinyResNet())
    weigher = weigher_for(net, images(digits), goals)
    metric = goals.split("<")[0]
    proposals = weigher.proposals(net, {name: COMPRESSORS.get(name)() for name in ("skip", "low_rank")})
    weighed = weigher.weigh(net, proposals, weigher.scale.before, {metric: 4.0})
    assert {one.compressor for one in weighed} >= {"skip"}
    for one in weighed:
        assert one.harm == pytest.approx(weigher.far(done(net, one.proposal), net), abs=1e-5)
        counted = weigher.scale.counts(done(net, one.proposal))
        assert one.saves[metric] == weigher.scale.before[metric] - counted[metric]


@pytest.mark.parametrize("wiring", ["residual", "grouped[size=[2,1,1]]", "dense"])
def test_harms_in_a_net_are_those_of_edited_copies(digits: Dataset, wiring: str) -> None:
    net = shaken(Net(Spec.parse(f"convolution[channels=1] | {wiring}(conv) 4x6 | pool[outputs=10]")))
    weigher = weigher_for(net, digits.valid.take(64, 0).batch(slice(None)), "params<=50%")
    proposals = weigher.proposals(net, {name: COMPRESSORS.get(name)() for name in ("skip", "flatten")})
    for one in weigher.weigh(net, proposals, weigher.scale.before, {"params": 40.0}):
        assert one.harm == pytest.approx(weigher.far(done(net, one.proposal), net), abs=1e-5)


def test_plans_meet_their_goal_and_are_what_they_say(digits: Dataset) -> None:
    net = shaken(TinyResNet())
    weigher = weigher_for(net, images(digits), "params<=70%")
    planner = Planner(
        net, weigher, {"skip": COMPRESSORS.get("skip")()}, lambda module: None, math.inf, lambda text: None
    )
    planner.search()
    assert len(planner.candidates) >= 2
    sets = [{step.weighed.proposal.edits for step in one.plan.steps} for one in planner.candidates]
    assert all(one not in sets[:i] for i, one in enumerate(sets))
    for one in planner.candidates:
        again: nn.Module = net
        for step in one.plan.steps:
            again = done(again, step.weighed.proposal)
        assert weigher.loss(again) - weigher.loss(net) == pytest.approx(one.harm, abs=1e-6)
        if not one.over:
            assert one.values["params"] <= 0.7 * weigher.scale.before["params"]
    harms = {one.way: one.harm for one in planner.candidates}
    assert {"sum of harms", "least together"} <= harms.keys(), "what was carried out already is not drawn again"
    best = shortlist(planner.candidates, 3)
    assert best[0].harm == min(one.harm for one in planner.candidates if not one.over)


def test_what_keeps_the_most_weights_is_healed_for_a_while() -> None:
    """Its harm is the largest: alone by harm it would never be seen."""

    def one(way: str, harm: float, params: float, over: float = 0.0) -> Candidate:
        return Candidate(
            way, Plan(nn.Identity(), [], []), harm, harm, {"params": params}, {"params": over} if over else {}
        )

    many = [one("a", 1.0, 30), one("b", 2.0, 20), one("c", 3.0, 25), one("most", 9.0, 50), one("above", 0.1, 99, 40)]
    assert [each.way for each in shortlist(many, 4)] == ["a", "most", "c", "b"]
    assert [each.way for each in shortlist(many, 1)] == ["a"]
    assert [each.way for each in shortlist(many[-1:], 3)] == ["above"]


def test_answers_to_shaken_harms_are_others_of_the_same_options(digits: Dataset) -> None:
    net = shaken(TinyResNet())
    weigher = weigher_for(net, images(digits), "params<=70%")
    planner = Planner(net, weigher, {"skip": COMPRESSORS.get("skip")()}, lambda _: None, math.inf, lambda _: None)
    planner.weigh()
    answers = planner._shaken(Way("test", draws=20), planner.over)
    assert len({frozenset(map(id, one)) for one in answers}) > 1
    assert all(any(one is option for option in planner.options) for answer in answers for one in answer)
    losses = {id(answer): weigher.loss(planner.settled(planner.start.taking(answer, 1)).module) for answer in answers}
    assert weigher.loss(planner._least(answers).module) == pytest.approx(min(losses.values()), abs=1e-7)


def test_statistics_are_those_of_what_is_read(digits: Dataset) -> None:
    """Once they are taken anew, each norm's input has the mean and the variance that it holds."""
    net = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Linear(7, 5), nn.BatchNorm1d(5)
    )
    shaken(net)
    settling(digits, 0)(net)
    x, _ = digits.train.take(512, 0).batch(slice(None))
    assert not net.training
    for end, norm in ((2, net[2]), (5, net[5])):
        read = net[:end](x)
        assert isinstance(norm, nn.BatchNorm1d)
        assert norm.momentum == 0.1
        torch.testing.assert_close(norm.running_mean, read.mean(0), atol=2e-3, rtol=1e-2)
        torch.testing.assert_close(norm.running_var, read.var(0), atol=2e-3, rtol=1e-2)


def test_what_was_frozen_stays_frozen_where_it_went() -> None:
    net = Net(Spec.parse("vector[features=5] | residual(mlp) 4x8 | pool[outputs=3]"))
    for name, value in net.named_parameters():
        value.requires_grad_("layers.2" not in name and "stem" not in name)
    drop = Proposal((Drop(path="stages.0.layers.1", branch=True),), ("stages.0.layers.1",))
    tracks = [Track(f"stages.0.layers.{i}", (f"stages.0.layers.{j}",)) for i, j in enumerate((0, 2, 3))]
    plan = refrozen(Plan(done(net, drop), [], tracks), net)
    held = frozen(plan.module)
    assert held
    assert all("layers.1" in name or "stem" in name for name in held)
    assert {name.replace("layers.1", "layers.2") for name in held} == set(frozen(net))


def test_hidden_states_are_compared_where_spans_begin_that_stayed() -> None:
    tracks = [Track(f"b.{i}", (f"a.{3 * i}", f"a.{3 * i + 1}")) for i in range(20)]
    pairs = pairs_of(tracks)
    assert len(pairs) == 6
    assert pairs[-1] == ("b.19", "a.57")
    assert pairs_of(tracks[:3]) == (("b.1", "a.3"), ("b.2", "a.6"))
    assert pairs_of(tracks[:1]) == ()


def test_agreement_needs_three() -> None:
    assert agreement([1, 2], [1, 2]) is None
    assert agreement([1, 1, 1], [1, 2, 3]) is None
    assert agreement([1, 2, 3], [2, 4, 9]) == 1.0
    assert agreement([1, 2, 3], [9, 4, 2]) == -1.0


def test_what_cannot_be_done_is_left_out_with_its_reason(digits: Dataset) -> None:
    net = shaken(TinyResNet())
    weigher = weigher_for(net, images(digits), "params<=50%")
    wrong = Proposal((), ("layer1.0",), "layer1.0", {"layer1.0.conv1.weight": torch.zeros(1)})
    assert weigher.weigh(net, [("made_up", wrong)], weigher.scale.before, {"params": 10.0}) == []
    assert list(weigher.refused) == ["made_up at layer1.0"]
    with pytest.raises(BadModel):
        done(net, wrong)


def test_blocks_learn_alone_what_the_original_did(digits: Dataset) -> None:
    """A net that is the original has nothing to learn; one without a layer has, in the span before it alone."""
    net = shaken(TinyResNet())
    x, y = images(digits)
    task = TASKS.make(Part("classification", {"classes": 10}))
    spans = anatomy(net, x[:2]).spans
    tracks = [Track(span.path, (span.path,)) for span in spans]
    lessons = lessons_of(net, tracks, spans, x)
    assert lessons
    assert all(first == path for path, first, _, _ in lessons)
    assert float(Blockwise(task, net, lessons=lessons)(net, x, y).detach()) == pytest.approx(0, abs=1e-10)
    gone = next(one for one in lessons if one[2] in {other[0] for other in lessons})
    left = [track for track in tracks if track.path != gone[2]]
    short = lessons_of(net, left, spans, x)
    assert next(one for one in short if one not in lessons)[:2] == gone[:2]
    loss = Blockwise(task, net, lessons=short)(net, x, y)
    loss.backward()
    assert float(loss.detach()) > 1e-3
    taught = {
        name for name, value in net.named_parameters() if value.grad is not None and value.grad.abs().max() > 1e-8
    }
    assert taught
    assert all(name.startswith(gone[0] + ".") for name in taught)
    with pytest.raises(BadSetting, match="lessons is empty"):
        Blockwise(task, net, lessons=())


def test_a_compressor_may_bring_its_own_objective(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    net = shaken(TinyResNet())
    task = TASKS.make(Part("classification", {"classes": 10}))
    taken = [Taken(option("layer1.0", 0.1, {}), 1)]
    tracks = [Track("layer1.1", ("layer1.1",)), Track("layer1.2", ("layer1.2",))]
    assert type(objective_for(task, net, Plan(net, taken, tracks))).__name__ == "Hints"
    assert type(objective_for(task, net, Plan(net, taken, tracks[:1]))).__name__ == "Distil"
    known = Distil(task, net)
    assert objective_for(task, net, Plan(net, taken, tracks), answers=known) is known
    monkeypatch.setattr(COMPRESSORS.get("skip"), "objective", "logit_mse")
    assert type(objective_for(task, net, Plan(net, taken, tracks))).__name__ == "LogitMSE"
    monkeypatch.setattr(COMPRESSORS.get("skip"), "objective", "none_such")
    with pytest.raises(BadSetting, match="no such file in training/objectives"):
        objective_for(task, net, Plan(net, taken, tracks))
