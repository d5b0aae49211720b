"""Analysis: what is planted is found, in every family; the depth of nets whose depth is known; nothing is changed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from planted import FAMILIES, Deep, Row, shaken
from shoal.analysis import Analysis, analyze
from shoal.anatomy import anatomy
from shoal.core.errors import BadData, BadModel
from shoal.core.part import Part
from shoal.core.resuming import Resumable, Tape
from shoal.core.scene import Batch, Scene
from shoal.core.spec import Spec
from shoal.data.batches import batches_in, is_batches, rows_meet
from shoal.intervening import Trial
from shoal.interventions.skip import Skip
from shoal.kinds import TASKS
from shoal.net import Net

FEW = ("parallel",)  # what the verdicts need; skip always is


@pytest.mark.parametrize("family", FAMILIES)
def test_every_planted_span_gets_its_word(family: str) -> None:
    net = FAMILIES[family]()
    found = analyze(net.module, net.batches, interventions=FEW)
    assert {said.span.at: said.word for said in found.verdicts} == net.truth


class Hop(nn.Module):
    """Every node becomes what the node before it on its edge is."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.map = nn.Linear(dim, dim, bias=False)
        nn.init.eye_(self.map.weight)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        return self.map(torch.zeros_like(x).index_add(0, edges[1], x[edges[0]]))


class Beside(nn.Module):
    """x + size * f(x): dead or skippable."""

    def __init__(self, dim: int, size: float) -> None:
        super().__init__()
        self.row, self.size = nn.Sequential(nn.Linear(dim, dim), nn.Tanh(), nn.Linear(dim, dim)), size

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        return x + self.size * self.row(x)


@pytest.mark.parametrize("hops", [2, 5])
def test_a_task_of_so_many_hops_needs_so_many_layers(hops: int) -> None:
    """Which colour has the node so many edges back? Between the hops stand layers that do nothing, or next to it."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [Beside(6, 0.0), Beside(6, 1e-3)]
    for _ in range(hops):
        layers += [Hop(6), Beside(6, 1e-3 if len(layers) % 4 else 0.0)]
    first, last = nn.Linear(4, 6, bias=False), nn.Linear(6, 4, bias=False)
    first.weight.data, last.weight.data = torch.eye(6, 4), torch.eye(4, 6)
    nodes, colours = 1024, torch.randint(0, 4, (1024,))
    back = torch.randperm(nodes)
    example = {"x": F.one_hot(colours, 4).float(), "edges": torch.stack((back, torch.arange(nodes)))}
    target = colours
    for _ in range(hops):
        target = target[back]
    found = analyze(Deep(first, layers, last), [(example, target)], interventions=())
    assert found.quality.value == 1.0
    assert found.effective_depth.left == hops
    words = {said.span.path: said.word for said in found.verdicts}
    assert all(words[f"layers.{i}"] in ("needed", "loopable", "duplicate", "linear") for i in range(2, len(layers), 2))
    assert all(words[f"layers.{i}"] in ("dead", "skippable") for i in (0, 1, *range(3, len(layers), 2)))


class Walker(nn.Module):
    """One step, gone through several times: from where one is, look up in a table where to go."""

    def __init__(self, places: int, steps: int) -> None:
        super().__init__()
        self.steps, self.step = steps, Lookup(places)

    def forward(self, start: Tensor, table: Tensor) -> Tensor:
        for _ in range(self.steps):
            start = self.step(start, table)
        return start


class Lookup(nn.Module):
    """y = map( sum_i softmax(x)_i table_i )."""

    def __init__(self, places: int) -> None:
        super().__init__()
        self.map = nn.Linear(places, places)

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        return self.map(torch.einsum("bi,bij->bj", x.softmax(dim=-1), table))


def walks(rows: int, places: int, steps: int) -> tuple[dict[str, Tensor], Tensor]:
    """Tables in which one comes from the start to where all stay in just so many steps; and where that is."""
    order = torch.rand(rows, places).argsort(dim=1)
    goes = torch.empty(rows, places, dtype=torch.int64)
    for number in range(places):  # order[0] stays where it is, order[i] goes to order[i - 1], the rest anywhere before
        to = torch.full((rows,), max(number - 1, 0)) if number <= steps else torch.randint(0, steps, (rows,))
        goes.scatter_(1, order[:, number : number + 1], order.gather(1, to.unsqueeze(1)))
    start = 8 * F.one_hot(order[:, steps], places).float()
    return {"start": start, "table": F.one_hot(goes, places).float()}, order[:, 0]


@pytest.mark.parametrize("steps", [2, 4])
def test_a_looped_net_that_learned_to_walk_needs_as_many_rounds_as_the_way_has_steps(steps: int) -> None:
    """It has six rounds; those after the last step stay where they are, and can be left out."""
    torch.manual_seed(0)
    net = Walker(7, 6)
    optimiser = torch.optim.Adam(net.parameters(), lr=0.1)
    for _ in range(150):
        example, target = walks(128, 7, steps)
        optimiser.zero_grad()
        F.cross_entropy(net(**example), target).backward()
        optimiser.step()
    found = analyze(net.eval(), [walks(1024, 7, steps)], interventions=())
    assert found.quality.value > 0.99
    assert found.effective_depth.left == steps
    assert [said.word for said in found.verdicts[1:]] == ["loopable"] * 5


def answers(module: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = module(x).argmax(dim=-1)
    return found


def test_a_module_that_is_gone_through_again_is_looped() -> None:
    torch.manual_seed(0)
    one, two = (shaken(Row(12, F.relu)) for _ in range(2))
    net = Deep(nn.Linear(6, 12), [one, two, two, one], nn.Linear(12, 4)).eval()
    x = torch.randn(512, 6)
    found = analyze(net, [(x, answers(net, x))], interventions=FEW)
    words = {tuple(said.span.at): said.word for said in found.verdicts}
    assert words["layers.1", 1] == words["layers.0", 1] == "loopable"
    assert words["layers.0", 0] == words["layers.1", 0] == "needed"


def half(first: bool) -> nn.Module:
    """A residual layer that reads and changes one half of the channels."""
    layer: Any = shaken(Row(12, torch.tanh))
    other = slice(6, 12) if first else slice(0, 6)
    for weights in (layer.up.weight[:, other], layer.down.weight[other], layer.down.bias[other]):
        weights.data.zero_()
    return cast("nn.Module", layer)


def test_neighbours_that_do_not_read_each_other_can_be_merged() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 12), half(True), half(False), shaken(Row(12, F.relu)), nn.Linear(12, 4)).eval()
    x = torch.randn(1024, 6)
    found = analyze(net, [(x, answers(net, x))], interventions=FEW)
    assert [said.word for said in found.verdicts] == ["mergeable", "needed", "needed"]


def test_beside_a_dead_span_nothing_counts_as_merged() -> None:
    net = FAMILIES["mlp"]()
    found = analyze(net.module, net.batches, interventions=FEW)
    at = {said.span.path: said.word for said in found.verdicts}
    assert at["layers.0"] == "needed"  # side by side with layers.1, which is dead, nothing changes
    assert at["layers.1"] == "dead"


@pytest.fixture(scope="module")
def shaped() -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 12), *(shaken(Row(12, F.relu)) for _ in range(4)), nn.Linear(12, 4))
    x = torch.randn(300, 6)
    return net, x, torch.randint(0, 4, (300,))


def harms_of(found: Analysis) -> list[float]:
    return [one.loss.value for one in found.effects if one.intervention == "skip"]


def test_skip_harms_are_those_of_the_plain_loop(shaped: tuple[nn.Module, Tensor, Tensor]) -> None:
    net, x, y = shaped
    harms = []
    with torch.no_grad():
        base = F.cross_entropy(net(x), y)
        for index in range(1, 5):
            rest = nn.Sequential(*(part for i, part in enumerate(net) if i != index))
            harms.append(float(F.cross_entropy(rest(x), y) - base))
    assert harms_of(analyze(net, [(x, y)], interventions=())) == pytest.approx(harms, abs=1e-5)


def test_little_memory_changes_no_number(shaped: tuple[nn.Module, Tensor, Tensor]) -> None:
    net, x, y = shaped
    large, small = (analyze(net, [(x, y)], interventions=FEW, memory=memory) for memory in (512e6, 1e4))
    assert harms_of(small) == pytest.approx(harms_of(large), abs=1e-6)
    assert [one.word for one in small.verdicts] == [one.word for one in large.verdicts]


def test_a_run_keeps_no_more_than_it_may(
    shaped: tuple[nn.Module, Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the memory, so that a second run fits beside it; however many rows there are."""
    net, x, y = shaped
    kept: list[int] = []
    record = Resumable._recorded

    def weighed(runs: Resumable, tape: Tape, changes: Any) -> Tape:
        found = record(runs, tape, changes)
        kept.append(found.nbytes)
        return found

    monkeypatch.setattr(Resumable, "_recorded", weighed)
    analyze(net, [(x, y)], interventions=FEW, memory=20_000)
    assert 2_000 < max(kept) <= 10_000


def test_what_is_predicted_of_several_is_the_sum(shaped: tuple[nn.Module, Tensor, Tensor]) -> None:
    net, x, y = shaped
    found = analyze(net, [(x, y)], interventions=())
    harms, visits = harms_of(found), [said.span.at for said in found.verdicts]
    assert found.predicted([visits[:1], visits[1:3]]) == pytest.approx([harms[0], harms[1] + harms[2]])


class Apart(nn.Module):
    """Layers that each write to a channel of their own: what they do to a loss of squares adds up."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Own(i, size) for i in range(size))
        self.last = nn.Linear(2 * size, size)
        self.last.weight.data, self.last.bias.data = torch.eye(size, 2 * size), torch.zeros(size)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + layer(x)
        return self.last(x)


class Own(nn.Module):
    """It reads channel size + i and writes to channel i, the more the later it comes."""

    def __init__(self, i: int, size: int) -> None:
        super().__init__()
        self.map = nn.Linear(2 * size, 2 * size, bias=False)
        self.map.weight.data = torch.zeros(2 * size, 2 * size)
        self.map.weight.data[i, size + i] = float(i + 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.map(x).tanh()


def test_predictions_hold_where_harms_add_up() -> None:
    torch.manual_seed(0)
    rows = 120  # so few that all of them are chosen on
    net, x = Apart(5), torch.cat((torch.zeros(rows, 5), torch.randn(rows, 5)), dim=1)
    with torch.no_grad():
        y = net(x) + 0.3 * torch.randn(rows, 5)
    found = analyze(net, [(x, y)], interventions=())
    sets = [*found.pairs, *(one.harm for one in found.curve)]
    assert {len(one.skipped) for one in sets} == {0, 1, 2, 3, 4, 5}
    assert [one.predicted for one in sets] == pytest.approx([one.realised.value for one in sets], abs=1e-6)
    assert found.held == pytest.approx(1.0, abs=0.02)
    assert found.to_json()["held"] | {"pairs": []} == {"spearman": found.held, "sets": 8, "largest": 5, "pairs": []}


def test_of_one_pair_there_is_no_order(shaped: tuple[nn.Module, Tensor, Tensor]) -> None:
    net, x, _ = shaped
    found = analyze(net[:3], [x], interventions=())
    assert len(found.pairs) == 1
    assert found.held is None


def trial_of(shaped: tuple[nn.Module, Tensor, Tensor], size: int) -> Trial:
    net, x, y = shaped
    batches = tuple(Batch(*pair) for pair in zip(x.split(size), y.split(size), strict=True))
    return Trial(Scene(net, anatomy(net, x[:2]), batches, TASKS.make(Part("classification", {"classes": 4}))))


def test_steps_that_follow_each_other_are_sets(shaped: tuple[nn.Module, Tensor, Tensor]) -> None:
    trial = trial_of(shaped, 60)
    order = [trial.scene.spans[i] for i in (2, 0, 3)]
    steps = [Skip().changes((span,)) for span in order]
    sets = [Skip().changes(tuple(order[: i + 1])) for i in range(3)]
    base, nested = trial.nested(steps)
    own, told = trial.told(sets)
    assert (base.loss == own.loss).all()
    with trial.holding(1 << 20):
        went = [trial.go_on(step) for step in steps]
    with trial.holding(0):  # nothing fits: all is run again
        trial.go_on(steps[0])
        beside = trial.told([steps[1]])[1][0]
    for found in (nested, went):
        assert all((one.loss == other.loss).all() for one, other in zip(found, told, strict=True))
    assert (beside.loss == told[1].loss).all()


def test_what_is_lost_is_not_run_on_more_rows(shaped: tuple[nn.Module, Tensor, Tensor]) -> None:
    trial = trial_of(shaped, 30)
    steps = [Skip().changes((span,)) for span in trial.scene.spans]
    for ask in (trial.told, trial.nested):
        base, told = ask(steps, lambda before, after: len(before.loss) == len(after.loss))
        whole = ask(steps)[1]
        assert len(base.loss) == 300
        assert {len(one.loss) for one in told} == {150}  # the first look is at 128 rows
        assert all((one.loss == other.loss[:150]).all() for one, other in zip(told, whole, strict=True))


def test_what_is_not_certain_says_how_many_rows_would_tell(shaped: tuple[nn.Module, Tensor, Tensor]) -> None:
    net, x, y = shaped
    reasons = [
        said.why for said in analyze(net, [(x[:30], y[:30])], interventions=()).verdicts if said.word == "needed"
    ]
    unclear = [why for why in reasons if why.startswith("not certain")]
    assert unclear
    assert all("rows would tell" in why and "inconclusive" in why for why in unclear)


def test_batches_are_told_from_data_that_is_split() -> None:
    x, y = torch.randn(6, 3), torch.zeros(6, dtype=torch.int64)
    assert all(is_batches(data) for data in ([x], [(x, y)], iter([x]), [{"input": x}]))
    assert not any(is_batches(data) for data in ((x, y), x, "digits", 3))
    module = nn.Linear(3, 2)
    found, task = batches_in(module, [(x[:2], y[:2]), (x[2:], y[2:]), (x, y)], rows=5)
    assert [batch.rows for batch in found] == [2, 4]
    assert task is not None
    assert batches_in(module, [x], rows=5)[1] is None
    for data, words in (
        ([], "there is none"),
        ([(x, y), x], "some batches have targets"),
        ([(x, y[:3])], "6 rows and 3 targets"),
        (["words"], "no tensor in it"),
    ):
        with pytest.raises(BadData, match=words):
            batches_in(module, data, rows=20)


def test_so_many_rows_and_no_more_are_looked_at(shaped: tuple[nn.Module, Tensor, Tensor]) -> None:
    net, x, y = shaped
    pieces = list(zip(x.split(40), y.split(40), strict=True))
    assert analyze(net, pieces, interventions=(), rows=100).rows == 100
    assert analyze(net, iter(pieces), interventions=()).rows == 300


def test_the_module_is_left_as_it_was(shaped: tuple[nn.Module, Tensor, Tensor]) -> None:
    net, x, y = shaped
    net.train()
    net[2].eval()
    before, state = {name: value.clone() for name, value in net.state_dict().items()}, torch.get_rng_state()
    flags = [part.training for part in net.modules()]
    analyze(net, [(x, y)])
    assert flags == [part.training for part in net.modules()]
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(part._forward_hooks or part._forward_pre_hooks or "forward" in vars(part) for part in net.modules())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in net.parameters())


def test_rows_that_read_each_other_are_kept_together() -> None:
    net = FAMILIES["graph_net"]()
    assert rows_meet(net.module, net.batches[0])
    assert not rows_meet(nn.Linear(3, 2), Batch(torch.randn(8, 3)))
    turned = nn.TransformerEncoderLayer(8, 2, 16)  # the first size is time
    assert rows_meet(turned, Batch(torch.randn(8, 2, 8)))
    with pytest.raises(BadModel, match="does not run"):
        rows_meet(nn.Linear(3, 2), Batch(torch.randn(8, 4)))


def test_a_net_in_front_of_a_graph_of_the_data() -> None:
    torch.manual_seed(0)
    nodes = torch.arange(400)
    edges = torch.stack((torch.cat((nodes, nodes.roll(1))), torch.cat((nodes.roll(1), nodes))))
    graph = SimpleNamespace(x=torch.randn(400, 5), y=torch.randint(0, 3, (400,)), edge_index=edges)
    net = shaken(Net(Spec.parse("vector[features=5] | residual(gcn norm=none) 3x8 | pool[outputs=3]")))
    net.stages[0].layers[1].block.map.weight.data.zero_()
    net.stages[0].layers[1].block.map.bias.data.zero_()
    found = analyze(net, graph, interventions=())
    assert [said.word == "dead" for said in found.verdicts] == [False, True, False]
    assert [said.span.path for said in found.verdicts] == [f"stages.0.layers.{i}" for i in range(3)]
    assert found.rows < 400


def test_without_targets_its_own_answers_are_wanted() -> None:
    net = FAMILIES["our_mlp"]()
    found = analyze(net.module, [batch.example for batch in net.batches], interventions=())
    assert found.quality.value == 1.0
    words = {said.span.at: said.word for said in found.verdicts}
    same = [at for at, word in net.truth.items() if word in ("dead", "loopable", "duplicate", "linear", "skippable")]
    assert all(words[at] == net.truth[at] for at in same)


def test_a_target_at_every_place_is_a_next_token() -> None:
    torch.manual_seed(0)
    net = Net(Spec.parse("tokens[vocabulary=9,length=6] | residual(transformer[causal=true]) 2x8 | every[outputs=9]"))
    x = torch.randint(0, 9, (40, 7))
    found = analyze(net, [(x[:, :-1], x[:, 1:])], interventions=())
    assert found.metric == "log-likelihood"
    assert str(found.keep) == "+5%"
