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
from shoal.core.errors import BadModel
from shoal.core.scene import Batch
from shoal.core.spec import Spec
from shoal.intervening import rows_meet
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


def test_what_is_predicted_of_several_is_the_sum(shaped: tuple[nn.Module, Tensor, Tensor]) -> None:
    net, x, y = shaped
    found = analyze(net, [(x, y)], interventions=())
    harms, visits = harms_of(found), [said.span.at for said in found.verdicts]
    assert found.predicted([visits[:1], visits[1:3]]) == pytest.approx([harms[0], harms[1] + harms[2]])


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
