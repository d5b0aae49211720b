"""Networks of other families, compressed: stacked recurrent layers, nets that read a graph."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

import shoal
from coupled_strangers import Recurrent
from shoal import compression
from shoal.anatomy import anatomy
from shoal.compressors.skip import Skip
from shoal.core.base import Proposal
from shoal.core.errors import Refused
from shoal.core.scene import Batch, Scene
from shoal.core.spec import Spec
from shoal.data import Dataset, open_data
from shoal.edits.drop import Drop
from shoal.edits.fold import Fold
from shoal.goals import parse_goals
from shoal.kinds import TASKS
from shoal.net import Net
from shoal.recipe import Recipe, edited
from shoal.shrinking.folding import folded, folds
from shoal.shrinking.healing import blocks_for, objective_for
from shoal.shrinking.planning import Plan
from shoal.shrinking.scale import Scale
from shoal.shrinking.weighing import Weigher
from shoal.training import TrainingRecipe, evaluate
from shoal.training.graphs import OnGraph, OnNodes, read_of_graphs, standing

KINDS = (nn.LSTM, nn.GRU, nn.RNN)
QUICK = TrainingRecipe(lr=2e-3, batch=32, epochs=1)


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Latencies are measured for a moment: none is asserted."""
    monkeypatch.setattr(compression, "TIMED", 0.05)


def rows(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def one_of(stack: nn.RNNBase, layer: int) -> nn.RNNBase:
    """One layer of a stack by itself, as a module of torch's own."""
    settings = {"proj_size": stack.proj_size} if isinstance(stack, nn.LSTM) else {}
    inputs = stack.get_parameter(f"weight_ih_l{layer}").shape[1]
    made = type(stack)(
        inputs, stack.hidden_size, bias=stack.bias, batch_first=True, bidirectional=stack.bidirectional, **settings
    ).double()
    own = {name: stack.get_parameter(name.replace("_l0", f"_l{layer}")) for name, _ in made.named_parameters()}
    made.load_state_dict(own, strict=True)
    return made


# ------------------------------------------------------------------ stacked recurrent layers


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("settings", [{}, {"bidirectional": True}, {"bias": False}])
def test_layers_of_a_stack_go_and_the_others_stay(kind: type[nn.RNNBase], settings: dict[str, bool]) -> None:
    stack, x = nn.Sequential(kind(5, 6, num_layers=3, batch_first=True, **settings).double()), rows(4, 7, 5)
    with torch.no_grad():
        for gone in ((1,), (2,), (1, 2)):
            found = edited(stack, Drop(path="0", layers=gone))
            wanted = x
            for layer in range(3):
                wanted = wanted if layer in gone else one_of(stack[0], layer)(wanted)[0]
            assert torch.allclose(found(x)[0], wanted, atol=1e-10, rtol=0)
            assert found[0].num_layers == 3 - len(gone)


def test_a_projected_stack_loses_its_first_layer_where_the_widths_agree() -> None:
    stack, x = nn.Sequential(nn.LSTM(4, 6, num_layers=2, proj_size=4, batch_first=True).double()), rows(3, 5, 4)
    found = edited(stack, Drop(path="0", layers=(0,)))
    assert torch.allclose(found(x)[0], one_of(stack[0], 1)(x)[0], atol=1e-10, rtol=0)


def test_frozen_weights_and_modes_of_a_stack_stay() -> None:
    module = Recurrent(nn.GRU, 2)
    module.rnn.weight_hh_l0.requires_grad_(False)
    found = edited(module.train(), Drop(path="rnn", layers=(1,)))
    assert found.rnn.training
    assert [name for name, value in found.rnn.named_parameters() if not value.requires_grad] == ["weight_hh_l0"]
    again = Recipe(None, (Drop(path="rnn", layers=(1,)),)).replay(Recurrent(nn.GRU, 2))
    again.load_state_dict(found.state_dict(), strict=True)
    x = torch.randn(3, 7, 5)
    assert torch.equal(again(x), found(x))


@pytest.mark.parametrize(
    ("path", "layers", "why"),
    [
        ("rnn", (2,), "name some of them"),
        ("rnn", (1, 1), "name some of them"),
        ("rnn", (0, 1), "must stay"),
        ("rnn", (0,), "takes 5 numbers and gives 6"),
        ("head", (1,), "is no LSTM, GRU or RNN"),
    ],
)
def test_layers_that_cannot_go_are_refused(path: str, layers: tuple[int, ...], why: str) -> None:
    module = Recurrent(nn.LSTM, 2)
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(Refused, match=rf"^{path}: .*{why}") as caught:
        edited(module, Drop(path=path, layers=layers))
    assert "\n" not in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_a_net_has_no_layers_within_layers() -> None:
    net = Net(Spec.parse("vector[features=5] | residual(mlp) 2x8 | pool[outputs=3]"))
    with pytest.raises(Refused, match="leave layers out"):
        edited(net, Drop(path="stages.0.layers.1", layers=(0,)))


class Everywhere(nn.Module):
    """A stack in two places, and one whose last states are asked for by number."""

    def __init__(self) -> None:
        super().__init__()
        self.first = self.again = nn.GRU(6, 6, num_layers=2, batch_first=True)
        self.last = nn.GRU(6, 6, num_layers=2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.again(self.first(x)[0])[0])[1].view(2, -1, 6)[1]


def skipped(module: nn.Module, x: Tensor) -> Iterator[Proposal]:
    return Skip().propose(Scene(module, anatomy(module, x), (Batch(x),)))


def test_layers_of_a_stack_are_proposed_where_what_is_left_runs() -> None:
    x = torch.randn(3, 7, 5)
    found = [one.edits for one in skipped(Recurrent(nn.LSTM, 3), x)]
    assert found == [(Drop(path="rnn", layers=layers),) for layers in ((1,), (1, 2), (2,))]
    assert list(skipped(Recurrent(nn.LSTM, 1), x)) == []
    assert not [one for one in skipped(Everywhere(), torch.randn(1, 4, 6)) if one.edits[0].layers]


def test_a_stacked_lstm_is_compressed() -> None:
    x = torch.randn(120, 9, 5)
    y = (x[:, :, 0].sum(dim=1) > 0).long()
    module = Recurrent(nn.LSTM, 2)
    found = shoal.compress(
        module, (x, y), to="params<=60%", keep=None, recipe=QUICK, compressors=["skip"], controls=False
    )
    assert found.goals_met
    assert isinstance(found.module, Recurrent)
    assert found.module.rnn.num_layers == 1
    assert module.rnn.num_layers == 2


# ------------------------------------------------------------------ what stands idle


def test_an_activation_done_twice_is_done_once_and_what_is_idle_goes() -> None:
    sizes = [5, 7, 7, 7, 3]
    layers = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())]
    module, x = nn.Sequential(*layers[:-1]).double(), rows(4, 5)
    shrunk = edited(edited(module, Drop(path="2")), Drop(path="4"))
    found = folds(shrunk, x)
    assert found == (Fold(pairs=(("1", "3"), ("1", "5")), idle=("2", "3", "4", "5")),)
    final = folded(shrunk, found, x)
    assert [name for name, _ in final.named_children()] == ["0", "1", "6"]
    assert torch.equal(final(x), shrunk(x))
    again = Recipe(None, (Drop(path="2"), Drop(path="4"), *found)).replay(copy.deepcopy(module))
    again.load_state_dict(final.state_dict(), strict=True)
    assert torch.equal(again(x), final(x))
    with pytest.raises(Refused, match="0 is not idle"):
        edited(module, Fold(idle=("0",)))
    with pytest.raises(Refused, match="leave pairs and idle empty"):
        edited(Net(Spec.parse("vector[features=5] | residual(mlp) 2x8 | pool[outputs=3]")), Fold(idle=("0",)))


class Indexed(nn.Module):
    """A Sequential that is a list: its parts are asked for by number."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = nn.Sequential(*(nn.Linear(5, 5) for _ in range(3)))

    def forward(self, x: Tensor) -> Tensor:
        for number in range(3):
            x = torch.tanh(self.steps[number](x))
        return x


def test_what_is_idle_stays_where_parts_are_asked_for_by_number() -> None:
    x = rows(4, 5)
    shrunk = edited(Indexed().double(), Drop(path="steps.1"))
    assert folds(shrunk, x) == ()


# ------------------------------------------------------------------ nets that read a graph


@pytest.fixture(scope="module")
def friends() -> Dataset:
    """Two circles of nodes, joined in one place; the class is the circle, which features hardly tell."""
    drawn, size = torch.Generator().manual_seed(0), 60
    y = torch.arange(2 * size) // size
    begin = torch.arange(2 * size)
    end = torch.where(begin % size == size - 1, begin - size + 1, begin + 1)
    pairs = torch.cat((torch.stack((begin, end)), torch.tensor([[0], [size]])), dim=1)
    x = torch.randn(2 * size, 6, generator=drawn) + 0.7 * y[:, None]
    return open_data(SimpleNamespace(x=x, y=y, edge_index=torch.cat((pairs, pairs.flip(0)), dim=1)), as_given=True)


@pytest.fixture(scope="module")
def taught(friends: Dataset) -> Net:
    recipe = TrainingRecipe(optimizer="adam", lr=0.02, epochs=30, batch=1000)
    net = shoal.train("residual(gcn) 3x8", friends, recipe).net
    assert isinstance(net, Net)
    return net


def test_what_stands_before_a_graph_can_be_copied_and_timed(friends: Dataset, taught: Net) -> None:
    module, example = standing(taught, friends.train, 2)
    assert isinstance(module, OnNodes)
    assert torch.equal(example, friends.train.nodes[:2])
    wanted = taught(friends.train.graph.x, context=friends.train.graph.context())[example]
    for one in (module, copy.deepcopy(module), copy.deepcopy(OnGraph(taught, friends.train.graph))):
        assert torch.allclose(one(example), wanted, atol=1e-6)
    copied = copy.deepcopy(module)
    with torch.no_grad():
        for value in copied.parameters():
            value.zero_()
        assert float(copied(example).abs().max()) == 0  # the copy's parts are those that it runs
        assert float(module(example).abs().max()) > 0
    assert shoal.latency(module, example, seconds=0.05).median > 0


def test_what_reads_no_edges_stands_by_itself(friends: Dataset) -> None:
    net = shoal.build("residual(mlp) 1x8", like=friends)
    module, example = standing(net, friends.train, 3)
    assert module is net
    assert torch.equal(example, friends.example(3))


def test_a_graph_net_is_weighed_with_its_graph(friends: Dataset, taught: Net) -> None:
    task, some = TASKS.make(friends.signature.task), friends.valid
    scale = Scale(parse_goals("depth<=50%"), taught, friends.example(1), "eager", rows=friends.train)
    weigher = Weigher(some.batch(slice(None)), task, scale, nodes=some)
    assert weigher.loss(taught) == pytest.approx(evaluate(taught, some, task).loss, abs=1e-6)
    weighed = weigher.weigh(taught, weigher.proposals(taught, {"skip": Skip()}), scale.before, {"depth": 1.0})
    assert weighed
    for one in weighed:
        without = edited(taught, one.proposal.edits[0])
        assert one.harm == pytest.approx(weigher.far(without, taught), abs=1e-6)
        assert one.harm > 0


def test_what_a_graph_net_teaches(friends: Dataset, taught: Net) -> None:
    task, graph = TASKS.make(friends.signature.task), friends.train.graph
    plan = Plan(edited(taught, Drop(path="stages.0.layers.1")), [], [])
    assert blocks_for(task, taught, plan, anatomy(taught, friends.example(1)).spans, friends.example(1), graph) is None
    objective = objective_for(task, taught, plan, graph)
    assert type(objective).__name__ == "Distil"
    nodes = friends.train.nodes
    loss = objective(OnGraph(taught, graph), nodes, friends.train.y)
    answers = OnGraph(taught, graph)(nodes)
    assert float(loss.detach()) == pytest.approx(0.1 * float(task.loss(answers, friends.train.y).detach()), abs=1e-5)
    alone = Plan(shoal.build("residual(mlp) 1x8", like=friends), [], [])
    assert type(objective_for(task, taught, alone, graph)).__name__ == "GraphFree"


def test_a_graph_net_becomes_an_mlp_and_is_timed_with_its_graph(friends: Dataset, taught: Net) -> None:
    found = shoal.compress(
        taught,
        friends,
        to="macs<=50%",
        keep=None,
        recipe=TrainingRecipe(optimizer="adam", lr=0.01, epochs=40, batch=1000),
        compressors=["gnn_to_mlp[dim=8,hidden=8]"],
        controls=False,
    )
    assert isinstance(found.module, Net)
    assert not read_of_graphs(found.module)
    assert found.goals_met
    nodes = len(friends.train.graph.x)
    assert found.before.cost.macs > nodes * found.after.cost.macs / 4
    assert found.after.result.quality.value > 0.6
    assert found.report["layers"][0]["fate"] == "dropped"
