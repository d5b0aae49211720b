"""Exits: rows leave where an exit is sure, with the answer it gave; edits keep what exits read; training."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from shoal.core.base import Branch, Edit
from shoal.core.errors import BadData, BadModel, BadSetting, Diverged, OutOfReach, Refused
from shoal.core.part import Part
from shoal.core.spec import Spec
from shoal.costing import cost
from shoal.data import Dataset, Split, open_data
from shoal.edits.drop import Drop
from shoal.edits.fold import Fold
from shoal.edits.merge import Merge
from shoal.edits.parallel import Parallel
from shoal.exits import NEVER, calibrate, early, exit_costs
from shoal.kinds import EDITS, TASKS
from shoal.net import Net
from shoal.recipe import edited
from shoal.testing.edits import PROBE
from shoal.training import TrainingRecipe, train
from shoal.training.objectives.exits import Exits
from strangers import randomised

EXACT = 1e-10
ROWS = 24
TAIL = "pool[outputs=3] | 0.1: pool, 0.3: pool[norm=rms], 1.1: pool"
NETS = [
    "vector[features=5] | residual(mlp) 4x8-2x6",
    "vector[features=5] | plain(mlp) 4x8-2x6",
    "vector[features=5] | grouped[size=2](mlp norm=batch) 4x8-2x6",
    "vector[features=5] | dense[growth=3](mlp) 4x8-2x6",
    "vector[features=5] | looped[times=2](mlp) 4x8-2x6",
    "vector[features=5] | residual(mlp) 2x8@0,1,0,1* - residual(mlp) 2x6",
]


def net_of(text: str, seed: int = 0) -> Net:
    net = randomised(Net(Spec.parse(text)), seed)
    assert isinstance(net, Net)
    return net


def rows(count: int = ROWS, seed: int = 0) -> Tensor:
    return torch.randn(count, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def rule(net: Net, x: Tensor, thresholds: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """What early exits should give, from all answers."""
    answers = torch.stack(net.answers(x))
    sure = answers[:-1].softmax(dim=-1).amax(dim=-1) >= torch.tensor(thresholds)[:, None]
    exits = torch.cat((sure, torch.ones(1, len(x), dtype=torch.bool))).int().argmax(dim=0)
    return answers[exits, torch.arange(len(x))], exits


def halfway(net: Net, x: Tensor, share: float = 0.7) -> tuple[float, ...]:
    """Thresholds that such a share of all rows does not pass, and at each later exit a fifth less."""
    sure = [answer.softmax(dim=-1).amax(dim=-1) for answer in net.answers(x)[:-1]]
    return tuple(float(each.detach().quantile(share - 0.2 * at)) for at, each in enumerate(sure))


# ---- leaving


@pytest.mark.parametrize("text", NETS)
def test_rows_leave_at_the_first_exit_that_is_sure(text: str) -> None:
    net, x = net_of(f"{text} | {TAIL}"), rows()
    found: set[int] = set()
    sure = halfway(net, x)
    for thresholds in (sure, (NEVER, *sure[1:]), (sure[0], NEVER, NEVER)):
        given, exits = early(net, thresholds).leave(x)
        wanted, numbers = rule(net, x, thresholds)
        assert torch.equal(exits, numbers)
        assert float((given - wanted).abs().max().detach()) < EXACT
        found |= set(exits.tolist())
    assert len(found) == 4  # each exit and the end was met


@settings(max_examples=25, deadline=None)
@given(st.tuples(*[st.floats(0.3, 1.01)] * 3), st.integers(1, 9), st.integers(0, 1000))
def test_any_thresholds_are_kept(thresholds: tuple[float, float, float], count: int, seed: int) -> None:
    net, x = net_of(f"{NETS[0]} | {TAIL}"), rows(count, seed)
    given, exits = early(net, thresholds).leave(x)
    wanted, numbers = rule(net, x, thresholds)
    assert torch.equal(exits, numbers)
    assert float((given - wanted).abs().max().detach()) < EXACT


@pytest.mark.parametrize("text", NETS)
def test_a_threshold_of_0_uses_the_first_exit_and_above_1_none(text: str) -> None:
    net, x = net_of(f"{text} | {TAIL}"), rows()
    answers = net.answers(x)
    for thresholds, number in (((0.0, 0.0, 0.0), 0), ((NEVER, 0.0, 0.0), 1), ((1.01, 1.01, 1.01), 3)):
        given, exits = early(net, thresholds).leave(x)
        assert exits.tolist() == [number] * ROWS
        assert torch.equal(given, answers[number])


def test_layers_run_on_the_rows_that_are_left_and_not_without_any() -> None:
    net, x = net_of(f"{NETS[0]} | {TAIL}"), rows()
    fast = early(net, halfway(net, x))
    seen: dict[tuple[int, int], int] = {}
    for s, stage in enumerate(fast.net.stages):
        for i, layer in enumerate(stage.layers):  # type: ignore[union-attr,arg-type]
            layer.register_forward_pre_hook(lambda _, args, at=(s, i): seen.update({at: len(args[0])}))
    exits = fast.leave(x)[1]
    left = [int((exits >= number).sum()) for number in range(4)]
    assert left[0] == ROWS > left[1] > left[2] > left[3] > 0
    assert seen == {(0, 0): ROWS, (0, 1): left[1], (0, 2): left[1], (0, 3): left[2], (1, 0): left[2], (1, 1): left[3]}
    seen.clear()
    assert early(net, (0.0, 0.0, 0.0)).leave(x[:1])[1].tolist() == [0]
    fast.thresholds = (0.0, 0.0, 0.0)
    fast(x)
    assert set(seen) == {(0, 0)}


def test_images_leave_too() -> None:
    net = net_of("convolution[channels=2] | residual(conv) 2x6-2x8 | pool[outputs=3] | 0.1: pool, 1.0: pool")
    x = torch.randn(12, 7, 5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    given, exits = early(net, halfway(net, x)).leave(x)
    wanted, numbers = rule(net, x, halfway(net, x))
    assert torch.equal(exits, numbers)
    assert len(set(exits.tolist())) == 3
    assert float((given - wanted).abs().max().detach()) < EXACT


def test_temperatures_change_who_leaves_and_no_answer() -> None:
    net, x = net_of(f"{NETS[0]} | {TAIL}"), rows()
    sharp, soft = (early(net, (0.6, 0.6, 0.6), (by,) * 3).leave(x) for by in (0.1, 10.0))
    assert set(soft[1].tolist()) == {3}
    assert int(sharp[1].sum()) < int(soft[1].sum())
    answers = torch.stack(net.answers(x))
    assert float((sharp[0] - answers[sharp[1], torch.arange(ROWS)]).abs().max().detach()) < EXACT


def test_the_net_given_is_left_alone_and_training_is_refused() -> None:
    net = net_of(f"{NETS[2]} | {TAIL}").train()
    fast = early(net, (0.5, 0.5, 0.5))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    fast(rows())
    assert net.training
    assert not fast.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    with pytest.raises(BadModel, match="eval mode only"):
        fast.train()(rows())


def test_what_cannot_leave_is_refused() -> None:
    net = net_of(f"{NETS[0]} | {TAIL}")
    for error, says, call in (
        (BadSetting, "2 thresholds for 3 exits", lambda: early(net, (0.5, 0.5))),
        (BadSetting, "1 temperatures for 3 exits", lambda: early(net, (0.5,) * 3, (1.0,))),
        (BadSetting, "must be above 0", lambda: early(net, (0.5,) * 3, (1.0, 0.0, 1.0))),
        (BadModel, "no exits", lambda: early(net_of(f"{NETS[0]} | pool[outputs=3]"), ())),
    ):
        with pytest.raises(error, match=says) as caught:
            call()
        assert "\n" not in str(caught.value)
    places = net_of("convolution[channels=5,kernel=[3]] | residual(mlp) 2x8 | every[outputs=3] | 0.1: every")
    with pytest.raises(BadModel, match="one answer each"):
        early(places, (0.5,))(torch.randn(2, 6, 5, dtype=torch.float64))


def test_a_wiring_that_hides_its_rows_is_refused() -> None:
    class Half(nn.Module):
        def forward(self, x: Tensor, layers: list[Branch]) -> Tensor:
            return torch.cat((layers[0](x[::2]), x[1::2]))

    net = net_of(f"{NETS[0]} | {TAIL}")
    net.stages[0].wiring = Half()  # type: ignore[union-attr]
    with pytest.raises(BadModel, match="gives a layer 12 rows of 24"):
        early(net, (0.5, 0.5, 0.5))(rows())


# ---- calibrating


def labelled(net: Net, count: int = 300) -> Split:
    """Rows whose classes are about what all answers together say."""
    x = rows(count, 7)
    noise = torch.randn(count, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(8))
    said = torch.stack(net.answers(x))
    return Split(x, ((said - said.mean(dim=1, keepdim=True)).sum(dim=0) + 0.3 * noise).argmax(dim=-1).detach())


def test_the_mean_cost_is_the_shares_times_the_costs() -> None:
    net = net_of(f"{NETS[0]} | {TAIL}")
    split = labelled(net)
    whole = cost(net, split.x[:1], training=False).macs
    found = calibrate(net, split, 0.6)
    fast = early(net, found.thresholds, found.temperatures)
    exits = fast.leave(split.x)[1]
    shares = [int((exits == number).sum()) / len(split) for number in range(4)]
    assert shares == list(found.shares)
    assert sum(found.shares) == pytest.approx(1, abs=1e-12)
    assert found.cost == pytest.approx(sum(s * c for s, c in zip(shares, found.costs, strict=True)), abs=1e-12)
    executed = cost(fast, split.x, training=False).macs / len(split) / whole
    assert executed == pytest.approx(found.cost, abs=1e-12)
    assert 0.55 < found.cost <= 0.6


def test_costs_rise_from_exit_to_exit_and_count_the_exits() -> None:
    net = net_of("vector[features=5] | residual(mlp[hidden=16] norm=none) 4x8 | pool[outputs=3] | 0.1: pool, 0.3: pool")
    layer, head, stem = 2 * 8 * 16, 8 * 3, 5 * 8
    whole = stem + 4 * layer + head
    wanted = [stem + layer + head, stem + 3 * layer + 2 * head, whole + 2 * head]
    assert exit_costs(net, rows(1)) == pytest.approx([each / whole for each in wanted], abs=1e-12)


def test_budgets_at_the_edges() -> None:
    net = net_of(f"{NETS[0]} | {TAIL}")
    split = labelled(net)
    costs = exit_costs(net, split.x[:1])
    assert calibrate(net, split, 2.0).thresholds == (NEVER,) * 3
    assert calibrate(net, split, costs[0]).shares[0] == 1.0
    with pytest.raises(OutOfReach, match="below the first exit's cost"):
        calibrate(net, split, costs[0] * 0.99)


def test_an_exit_that_knows_nothing_lets_none_leave() -> None:
    net = net_of(f"{NETS[0]} | {TAIL}")
    split = labelled(net)
    before = calibrate(net, split, 0.8)
    with torch.no_grad():
        net.exits[0].map.weight.mul_(-1)  # type: ignore[union-attr]
    after = calibrate(net, split, 0.8)
    assert after.thresholds[0] == NEVER > before.thresholds[0]
    assert 0.7 < after.cost <= 0.8


def test_temperatures_make_the_right_classes_likeliest() -> None:
    net = net_of(f"{NETS[0]} | {TAIL}")
    split = labelled(net)
    found = calibrate(net, split, 0.7)
    answers = net.answers(split.x)
    for answer, temperature in zip(answers, found.temperatures, strict=False):
        assert 0.03 < temperature < 30
        best = F.cross_entropy(answer / temperature, split.y)
        for factor in (0.9, 1.1):
            assert best <= F.cross_entropy(answer / (temperature * factor), split.y)


def test_an_exit_twice_as_loud_is_cooled_twice_as_much() -> None:
    net = net_of(f"{NETS[0]} | {TAIL}")
    split = labelled(net)
    before = calibrate(net, split, 0.7)
    loud = copy.deepcopy(net)
    with torch.no_grad():
        for parameter in loud.exits[0].map.parameters():  # type: ignore[union-attr]
            parameter.mul_(2)
    after = calibrate(loud, split, 0.7)
    assert after.temperatures[0] == pytest.approx(2 * before.temperatures[0], rel=1e-3)
    assert after.temperatures[1:] == before.temperatures[1:]
    assert after.shares == before.shares


def test_only_classes_can_be_calibrated_for() -> None:
    net = net_of(f"{NETS[0]} | {TAIL}")
    with pytest.raises(BadData, match="no classes"):
        calibrate(net, Split(rows(), torch.zeros(ROWS, 3)), 0.5)
    with pytest.raises(BadModel, match="no exits"):
        calibrate(net_of(f"{NETS[0]} | pool[outputs=3]"), labelled(net), 0.5)
    with pytest.raises(BadData, match="no rows"):
        calibrate(net, Split(rows(0), torch.zeros(0, dtype=torch.int64)), 0.5)
    with torch.no_grad():
        net.exits[1].map.weight.fill_(math.nan)  # type: ignore[union-attr]
    with pytest.raises(Diverged, match="answers NaN"):
        calibrate(net, Split(rows(), torch.zeros(ROWS, dtype=torch.int64)), 0.5)


# ---- edits

STACK = "vector[features=5] | residual(mlp norm=batch) 4x8 | pool[outputs=3] | "


def paths(*numbers: int) -> tuple[str, ...]:
    return tuple(f"stages.0.layers.{number}" for number in numbers)


def answers_of(module: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    assert isinstance(module, Net)
    return module.answers(x)


def places_of(net: nn.Module) -> list[int]:
    assert isinstance(net, Net)
    return [one.layer for one in net.spec.exits]


@pytest.mark.parametrize(
    ("wiring", "gone", "exits", "left"),
    [
        ("residual", 1, (0, 1, 3), [0, 1, 2]),
        ("residual", 0, (0, 2), [0, 1]),
        ("residual", 3, (1, 2), [1, 2]),
        ("plain", 1, (1, 3), [1, 2]),
        ("plain", 1, (2,), [1]),
        ("grouped[size=2]", 1, (1, 2), [0, 1]),  # what layer 1 read, layer 0 reads as well
        ("looped[times=2]", 2, (1, 3), [1, 2]),
    ],
)
def test_exits_read_the_same_once_a_layer_is_dropped(
    wiring: str, gone: int, exits: tuple[int, ...], left: list[int]
) -> None:
    tail = ", ".join(f"0.{layer}: pool" for layer in exits)
    net, x = net_of(STACK.replace("residual", wiring) + tail), rows()
    drop = Drop(path=paths(gone)[0], branch=wiring != "plain")
    shrunk, applied = edited(net, drop), drop.apply(copy.deepcopy(net))
    assert places_of(shrunk) == left
    if wiring == "grouped[size=2]":  # the place that was read is gone with its layer; its twin is read
        wanted = [net.answers(x)[0], *answers_of(applied, x)[1:]]
    else:
        wanted = list(answers_of(applied, x))
    for found, other in zip(answers_of(shrunk, x), wanted, strict=True):
        assert float((found - other).abs().max().detach()) < EXACT


def test_exits_follow_layers_that_are_merged() -> None:
    net, x = net_of(STACK + "0.1: pool, 0.3: pool"), rows()
    side = edited(net, Parallel(paths=paths(1, 2)))
    merged = edited(side, Merge(paths=paths(1, 2)))
    assert places_of(side) == [1, 3]
    assert places_of(merged) == [1, 2]
    for found, wanted in zip(answers_of(merged, x), answers_of(side, x), strict=True):
        assert float((found - wanted).abs().max().detach()) < EXACT


def test_exits_stay_where_norms_are_folded() -> None:
    net, x = net_of(STACK + "0.1: pool, 0.3: pool"), rows()
    folded = edited(net, Fold())
    assert places_of(folded) == [1, 3]
    for found, wanted in zip(answers_of(folded, x), net.answers(x), strict=True):
        assert float((found - wanted).abs().max().detach()) < EXACT


def test_norms_of_several_visits_are_not_folded() -> None:
    net, x = net_of("vector[features=5] | residual(mlp norm=batch) 1x8@0,0* - residual(mlp norm=batch) 1x6"
                    " | pool[outputs=3] | 0.1: pool"), rows()  # fmt: skip
    folded = edited(net, Fold())
    assert "1x8@0,0* - residual(mlp norm=none) 1x6" in str(folded.spec)
    for found, wanted in zip(answers_of(folded, x), net.answers(x), strict=True):
        assert float((found - wanted).abs().max().detach()) < EXACT
    with pytest.raises(Refused, match="no norm"):
        edited(net_of("vector[features=5] | residual(mlp norm=batch) 1x8@0,0* | pool[outputs=3]"), Fold())


REFUSED: list[tuple[str, Edit, str]] = [
    ("0.3: pool", Drop(path=paths(3)[0], branch=True), r"exit 0\.3: no layer would be left that reads what it reads"),
    ("0.2: pool", Parallel(paths=paths(1, 2)), r"exit 0\.2: it would no longer read"),
]


@pytest.mark.parametrize(("tail", "edit", "why"), REFUSED)
def test_an_edit_that_would_misplace_an_exit_is_refused(tail: str, edit: Edit, why: str) -> None:
    net = net_of(STACK + tail)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(Refused, match=why):
        edited(net, edit)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_two_exits_do_not_become_one() -> None:
    side = net_of("vector[features=5] | grouped[size=2](mlp) 4x8 | pool[outputs=3] | 0.2: pool, 0.3: pool")
    for edit in (Merge(paths=paths(2, 3)), Drop(path=paths(3)[0], branch=True)):
        with pytest.raises(Refused, match="another exit would read the same"):
            edited(side, edit)


@pytest.mark.parametrize("name", ["drop", "parallel", "merge", "fold"])
@pytest.mark.parametrize("exits", ["0.0: pool", "0.1: pool", "0.3: pool", "0.0: pool, 0.1: pool, 0.3: pool"])
def test_the_edits_of_the_battery_keep_exits_or_refuse(name: str, exits: str) -> None:
    """An exit of the edited net answers as before where only layers behind it were edited."""
    net, x = net_of(f"{PROBE} | {exits}"), rows()
    edit: Edit = EDITS.make(Part(name, EDITS.get(name).tiny))
    if name == "parallel" and exits != "0.0: pool" and exits != "0.3: pool":  # it takes layers 0 to 2
        with pytest.raises(Refused, match=r"exit 0\.1"):
            edited(net, edit)
        return
    shrunk = edited(net, edit)
    assert Spec.parse(str(shrunk.spec)) == shrunk.spec
    found, before = answers_of(shrunk, x), net.answers(x)
    assert len(found) == len(before)
    for one, each, old in zip(net.spec.exits, found, before, strict=False):
        if type(edit).exact or one.layer <= 1:
            assert float((each - old).abs().max().detach()) < EXACT


# ---- training

THREE = Part("classification", {"classes": 3})


@pytest.fixture(scope="module")
def table() -> Dataset:
    random = np.random.default_rng(0)
    x = random.normal(size=(400, 5)).astype(np.float32)
    return open_data((x, (x[:, 0] * x[:, 1] > 0).astype(np.int64)))


def test_the_objective_is_what_it_says() -> None:
    task = TASKS.make(THREE)
    net, x = net_of(f"{NETS[0]} | {TAIL}"), rows()
    y = torch.arange(ROWS) % 3
    *exits, last = net.answers(x)
    weights, share, temperature = (0.3, 0.0, 2.0), 0.25, 1.5
    wanted = task.loss(last, y)
    for weight, answer in zip(weights, exits, strict=True):
        taught = task.distil(answer, last.detach(), temperature)
        wanted = wanted + weight * ((1 - share) * task.loss(answer, y) + share * taught)
    objective = Exits(task, weights=weights, share=share, temperature=temperature)
    assert float(objective(net, x, y).detach()) == pytest.approx(float(wanted.detach()), abs=EXACT)


def test_the_last_answer_teaches_and_does_not_learn_from_it() -> None:
    task = TASKS.make(THREE)
    net, x = net_of(f"{NETS[0]} | {TAIL}"), rows()
    y = torch.arange(ROWS) % 3
    Exits(task, share=1.0)(net, x, y).backward()
    taught = [parameter.grad.clone() for parameter in net.head.parameters()]
    net.zero_grad()
    task.loss(net(x), y).backward()
    assert all(torch.equal(a, p.grad) for a, p in zip(taught, net.head.parameters(), strict=True))


def test_without_weight_the_exits_change_nothing() -> None:
    task = TASKS.make(THREE)
    net, x = net_of(f"{NETS[0]} | {TAIL}"), rows()
    y = torch.arange(ROWS) % 3
    assert torch.equal(Exits(task, weights=(0.0, 0.0, 0.0))(net, x, y), task.loss(net(x), y))


def test_wrong_settings_of_the_objective_are_refused() -> None:
    task = TASKS.make(THREE)
    for wrong in ({"weights": (-1.0,)}, {"share": 1.5}, {"temperature": 0.0}, {"weights": (math.nan,)}):
        with pytest.raises(BadSetting, match=next(iter(wrong))):
            Exits(task, **wrong)
    net, y = net_of(f"{NETS[0]} | {TAIL}"), torch.zeros(ROWS, dtype=torch.int64)
    with pytest.raises(BadSetting, match="2 weights for 3 exits"):
        Exits(task, weights=(1.0, 1.0))(net, rows(), y)
    with pytest.raises(BadModel, match="has none"):
        Exits(task)(nn.Linear(5, 3), rows(), y)
    odd = net_of(f"{NETS[0]} | pool[outputs=3] | 0.1: pool[outputs=4]")
    with pytest.raises(BadModel, match="make them equal"):
        Exits(task)(odd, rows(), y)


def test_train_teaches_every_exit_by_itself(table: Dataset) -> None:
    spec = "residual(mlp) 4x16 | 0.2: pool, 0.3: pool"
    run = train(spec, table, TrainingRecipe(epochs=30, lr=5e-3, batch=64), seed=0)
    assert isinstance(run.net, Net)
    assert [one.head.settings["outputs"] for one in run.net.spec.exits] == [2, 2]
    answers = run.net.answers(table.test.x)
    right = [float((each.argmax(dim=-1) == table.test.y).double().mean()) for each in answers]
    assert min(right) > 0.8
    found = calibrate(run.net, table.valid, 0.7)
    fast = early(run.net, found.thresholds, found.temperatures)
    kept = float((fast(table.test.x).argmax(dim=-1) == table.test.y).double().mean())
    assert kept > right[-1] - 0.05
    assert found.cost <= 0.7
