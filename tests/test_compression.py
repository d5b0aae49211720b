"""Compression: goals are read, planted structure is found, the goal is met and measured, nothing given is changed."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import shoal
from shoal.anatomy import anatomy
from shoal.core.base import Proposal
from shoal.core.errors import BadSetting, OutOfReach
from shoal.core.part import Part
from shoal.core.scene import Scene
from shoal.core.spec import Spec
from shoal.data import Dataset, open_data
from shoal.edits.drop import Drop
from shoal.goals import Goal, parse_goals
from shoal.kinds import COMPRESSORS, TASKS
from shoal.net import Net
from shoal.recipe import Recipe, edited
from shoal.shrinking.planning import Plan, together
from shoal.shrinking.program import Way, choose
from shoal.shrinking.scale import Scale
from shoal.shrinking.tracks import Track, order_of, tracked
from shoal.shrinking.weighing import Weighed, Weigher
from shoal.training import TrainingRecipe, train
from strangers import TinyResNet

QUICK = TrainingRecipe(lr=2e-3, batch=64, epochs=1)
BOTH = ("skip", "flatten")


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return open_data("digits")


@pytest.fixture(scope="module")
def trained(digits: Dataset) -> Net:
    net = train("residual(conv) 5x8", digits, TrainingRecipe(lr=5e-3, batch=64, epochs=3)).net
    assert isinstance(net, Net)
    return net


@pytest.mark.parametrize(
    ("text", "goals"),
    [
        ("latency<=50%", (Goal("latency", 0.5, True),)),
        ("params<=1e6", (Goal("params", 1e6, False),)),
        (" macs<=30% , bytes<=1.5MB ", (Goal("macs", 0.3, True), Goal("bytes", 1.5e6, False))),
        ("depth<=4,latency<=2ms", (Goal("depth", 4, False), Goal("latency", 2, False))),
        ("memory<=50%", (Goal("memory", 0.5, True),)),
    ],
)
def test_goals_are_read(text: str, goals: tuple[Goal, ...]) -> None:
    assert parse_goals(text) == goals


@pytest.mark.parametrize(
    "text", ["", "latency", "latency<50%", "speed<=50%", "latency<=0%", "latency<=120%", "depth<=4,depth<=3"]
)
def test_goals_that_cannot_be_read(text: str) -> None:
    with pytest.raises(BadSetting, match=r"^goal '.*': ") as caught:
        parse_goals(text)
    assert "\n" not in str(caught.value)


@given(st.sampled_from(["latency", "params", "macs", "bytes", "depth"]), st.floats(0.01, 0.99), st.floats(1, 1e9))
def test_a_share_is_of_the_original(metric: str, share: float, original: float) -> None:
    (goal,) = parse_goals(f"{metric}<={100 * share:.6f}%")
    assert goal.limit(original) == pytest.approx(share * original, rel=1e-4)


def test_a_dead_layer_is_the_first_to_go(digits: Dataset, trained: Net) -> None:
    """Layer 3 adds nothing: dropping it must be found to harm nothing, and every other to harm something."""
    dead = edited_weights(trained, "stages.0.layers.3.block.second")
    weigher = Weigher(digits.valid.batch(slice(None)), TASKS.make(digits.signature.task), scale(dead, digits))
    weighed = weigher.weigh(
        dead, weigher.proposals(dead, {"skip": COMPRESSORS.get("skip")()}), weigher.scale.before, {"depth": 4.0}
    )
    assert weighed[0].proposal.paths == ("stages.0.layers.3",)
    assert weighed[0].harm == pytest.approx(0, abs=1e-6)
    assert len(weighed) == 5


def edited_weights(net: Net, path: str) -> Net:
    weights = {name: torch.zeros_like(v) if name.startswith(path) else v for name, v in net.state_dict().items()}
    from shoal.net import load_net

    return load_net(net.spec, weights)


def scale(net: nn.Module, digits: Dataset, goals: str = "depth<=50%") -> Scale:
    return Scale(parse_goals(goals), net, digits.example(1), "eager")


def test_what_a_proposal_gains_is_counted(digits: Dataset, trained: Net) -> None:
    weigher = Weigher(digits.valid.batch(slice(None)), TASKS.make(digits.signature.task), scale(trained, digits))
    whole = [name for name, _ in weigher.proposals(trained, {"flatten": COMPRESSORS.make(Part.parse("flatten"))})]
    assert len(whole) == 4 * 2 + 2 * 3  # pairs: all units and those of one; fours: all, those of one and of two
    pairs = Part.parse("flatten[together=[2],wide=[]]")
    makers = {"skip": COMPRESSORS.get("skip")(), "flatten": COMPRESSORS.make(pairs)}
    proposals = weigher.proposals(trained, makers)
    assert [name for name, _ in proposals].count("skip") == 5
    assert [name for name, _ in proposals].count("flatten") == 4
    by_depth = weigher.weigh(trained, proposals, weigher.scale.before, {"depth": 4.0})
    assert {one.saves["depth"] for one in by_depth} == {2.0}
    assert {one.gain for one in by_depth} == {0.5}
    by_params = weigher.weigh(trained, proposals, weigher.scale.before, {"params": 1000.0})
    assert {one.compressor for one in by_params if one.saves["params"] > 1000} == {"skip"}


def test_tracks_follow_spans_through_edits() -> None:
    net = Net(Spec.parse("vector[features=5] | residual(mlp) 4x8 | pool[outputs=3]"))
    x = torch.randn(2, 5)
    tracks = [Track(span.path, (span.path,)) for span in anatomy(net, x).spans]
    names = [f"stages.0.layers.{i}" for i in range(4)]
    flatten = next(
        p for p in COMPRESSORS.get("flatten")().propose(Scene(net, anatomy(net, x), ())) if p.paths[0] == names[1]
    )
    merged: Any = net
    for edit in flatten.edits:
        merged = edited(merged, edit)
    tracks = tracked(tracks, flatten, merged)
    assert [(t.path, t.origins) for t in tracks] == [
        (names[0], (names[0],)), (names[1], (names[1], names[2])), (names[2], (names[3],)),
    ]  # fmt: skip
    skip = next(
        p for p in COMPRESSORS.get("skip")().propose(Scene(merged, anatomy(merged, x), ())) if p.paths[0] == names[0]
    )
    tracks = tracked(tracks, skip, edited(merged, skip.edits[0]))
    assert [t.origins for t in tracks] == [(names[1], names[2]), (names[3],)]
    assert [t.path for t in tracks] == names[:2]


def test_paths_are_counted_as_people_count() -> None:
    assert sorted(["a.10.b", "a.2.b", "a.2"], key=order_of) == ["a.2", "a.2.b", "a.10.b"]


@pytest.fixture(scope="module")
def compressed(digits: Dataset, trained: Net) -> Any:
    return shoal.compress(trained, digits, to="depth<=60%,params<=95%", keep="-40pt", recipe=QUICK, compressors=BOTH)


def test_the_goal_is_met_and_measured_on_the_module_that_is_returned(
    compressed: Any, digits: Dataset, trained: Net
) -> None:
    assert compressed.goals_met
    assert isinstance(compressed.module, Net)
    found = shoal.cost(compressed.module, digits.example(1))
    assert found.depth <= 0.6 * shoal.cost(trained, digits.example(1)).depth
    assert found.depth == compressed.after.cost.depth
    again = shoal.evaluate(compressed.module, digits.test, digits.signature.task)
    assert np.array_equal(again.scores, compressed.after.result.scores)
    assert compressed.floor.word in {"pass", "inconclusive"}
    assert compressed.recipe == Recipe(compressed.module.spec)


def test_both_controls_ran(compressed: Any) -> None:
    assert [control.name for control in compressed.controls] == ["same shape from scratch", "random edits"]
    assert all(len(control.result.scores) == len(compressed.after.result.scores) for control in compressed.controls)


def test_the_report_is_json_and_whole(compressed: Any, trained: Net) -> None:
    report = json.loads(json.dumps(compressed.report, allow_nan=False))
    assert [row["path"] for row in report["layers"]] == [f"stages.0.layers.{i}" for i in range(5)]
    assert report["before"]["params"] == sum(p.numel() for p in trained.parameters())
    gone = [row for row in report["layers"] if row["fate"] == "dropped"]
    left = {origin for track in compressed.tracks for origin in track.origins}
    assert [row["path"] for row in gone] == [path for path in compressed.spans if path not in left]
    assert sum(row["params"] for row in report["layers"]) < report["before"]["params"]
    assert report["goals"][0]["met"] is True


def test_the_given_is_untouched(compressed: Any, digits: Dataset, trained: Net) -> None:
    again = train("residual(conv) 5x8", digits, TrainingRecipe(lr=5e-3, batch=64, epochs=3)).net
    assert all(torch.equal(value, trained.state_dict()[name]) for name, value in again.state_dict().items())


def test_the_same_seed_gives_the_same_module(compressed: Any, digits: Dataset, trained: Net) -> None:
    again = shoal.compress(
        trained, digits, to="depth<=60%,params<=95%", keep="-40pt", recipe=QUICK, compressors=BOTH, controls=False
    )
    assert str(again.module.spec) == str(compressed.module.spec)
    assert all(torch.equal(v, again.module.state_dict()[k]) for k, v in compressed.module.state_dict().items())


def test_a_stranger_is_compressed_and_its_recipe_replays(digits: Dataset) -> None:
    x, y = (t for t in digits.train.batch(slice(None)))
    images = x.movedim(-1, 1).contiguous()
    torch.manual_seed(0)
    net = TinyResNet()
    found = shoal.compress(
        net, (images, y), to="macs<=75%", keep="-60pt", recipe=QUICK, compressors=BOTH, controls=False, base="f.py:net"
    )
    assert found.goals_met
    assert not isinstance(found.module, Net)
    fresh = found.recipe.replay(TinyResNet())
    fresh.load_state_dict(found.module.state_dict(), strict=True)
    assert torch.equal(fresh.eval()(images[:9]), found.module(images[:9]))
    assert not any(isinstance(part, nn.BatchNorm2d) for part in found.module.modules())


def test_nothing_to_take_is_an_error_that_names_places(digits: Dataset) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    images, y = digits.train.batch(slice(None))
    with pytest.raises(OutOfReach, match=r"Sequential: nothing was found.*changes the shape") as caught:
        shoal.compress(net, (images, y), to="depth<=50%", recipe=QUICK, compressors=BOTH)
    assert "\n" not in str(caught.value)


def test_a_goal_out_of_reach_gives_the_best_so_far(digits: Dataset, trained: Net) -> None:
    found = shoal.compress(
        trained, digits, to="params<=1%", keep="-90pt", recipe=QUICK, compressors=BOTH, controls=False
    )
    assert not found.goals_met
    assert isinstance(found.module, Net)
    assert found.module.spec.stages[0].depth == 1


@pytest.mark.parametrize(
    ("to", "keep", "why"),
    [
        ("latency<=50%", "+1%", "right answers"),
        ("depth<=2", "1pt", "keep '1pt'"),
        ("params<=1e9", "-1pt", "meets it already"),
    ],
)
def test_wrong_goals_are_said_before_any_work(digits: Dataset, trained: Net, to: str, keep: str, why: str) -> None:
    with pytest.raises(BadSetting, match=why):
        shoal.compress(trained, digits, to=to, keep=keep)


def test_proposals_that_touch_are_not_taken_together(digits: Dataset, trained: Net) -> None:
    weigher = Weigher(digits.valid.batch(slice(None)), TASKS.make(digits.signature.task), scale(trained, digits))
    makers = {name: COMPRESSORS.get(name)() for name in ("skip", "flatten")}
    weighed = weigher.weigh(trained, weigher.proposals(trained, makers), weigher.scale.before, {"depth": 4.0})
    for one in weighed:
        for other in weighed:
            if one is not other:
                shares = bool(set(one.proposal.paths) & set(other.proposal.paths))
                both = choose([one, other], {"depth": one.saves["depth"] + other.saves["depth"]}, Way("both"))
                assert both.enough is not shares


def test_ctrl_c_goes_on_with_what_was_taken(digits: Dataset, trained: Net) -> None:
    def interrupt(line: str) -> None:
        if line.startswith("round 1"):
            raise KeyboardInterrupt

    found = shoal.compress(
        trained, digits, to="depth<=20%", keep="-90pt", recipe=QUICK, compressors=BOTH, progress=interrupt
    )
    assert {step.round for step in found.steps} == {1}
    assert not found.goals_met
    assert found.controls == ()


class Spares:
    """Weighs by the number of layers: three of them are enough, with fewer all is lost."""

    def far(self, module, than):
        return 0.0 if len(module.spec.stages[0].layers) >= 3 else 5.0


def test_what_is_spared_singly_and_not_at_once_is_not_taken_at_once():
    net = shoal.build("vector[features=4] | residual(mlp) 6x8 | pool[outputs=2]")
    paths = [f"stages.0.layers.{index}" for index in range(5)]
    chosen = [
        Weighed(Proposal((Drop(path=path, branch=True),), (path,)), "skip", harm=0.0, gain=0.1, saves={})
        for path in paths
    ]
    tracks = [Track(f"stages.0.layers.{index}", (f"stages.0.layers.{index}",)) for index in range(6)]
    plan = together(Plan(net, [], tracks), chosen, 1, Spares())
    assert [step.weighed.proposal.paths[0] for step in plan.steps] == ["stages.0.layers.1", "stages.0.layers.0"]
    assert len(plan.module.spec.stages[0].layers) == 4
    assert [track.origins[0][-1] for track in plan.tracks] == ["2", "3", "4", "5"]


def test_proposals_that_harm_alike_together_are_all_taken():
    net = shoal.build("vector[features=4] | residual(mlp) 6x8 | pool[outputs=2]")
    paths = [f"stages.0.layers.{index}" for index in (1, 4)]
    chosen = [
        Weighed(Proposal((Drop(path=path, branch=True),), (path,)), "skip", harm=0.0, gain=0.1, saves={})
        for path in paths
    ]
    assert len(together(Plan(net, [], []), chosen, 1, Spares()).steps) == 2
