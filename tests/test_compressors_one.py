"""Compressors of papers, and what they heal by: the identities of each specification, and answers that were planted."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from shoal.anatomy import anatomy
from shoal.compressors._choices import Choices
from shoal.compressors._dlrt import augmented, factored, stepped, truncated
from shoal.compressors._lessons import called, lessons, loss, score
from shoal.compressors._mixing import candidates, drawn, mixed, priced, read_mixed, stretched
from shoal.compressors._policy import Keeping, search
from shoal.compressors._standing import ordered, standing
from shoal.compressors._students import Trial, worth
from shoal.compressors._uniform import uniform
from shoal.compressors._units import units_of
from shoal.compressors.distil_bilstm import DistilBiLSTM
from shoal.compressors.dlrt import DLRT
from shoal.compressors.fitnets import FitNets
from shoal.compressors.gnn_to_mlp import GnnToMlp
from shoal.compressors.n2n import N2N
from shoal.compressors.quantised_distil import QuantisedDistil, shared_out
from shoal.compressors.transformable import Transformable
from shoal.core.base import Proposal, Task
from shoal.core.errors import BadModel, BadSetting
from shoal.core.part import Part
from shoal.core.scene import Batch, Scene
from shoal.core.spec import Spec
from shoal.data import Graph, open_data
from shoal.edits.drop import Drop
from shoal.edits.narrow import Narrow
from shoal.kinds import TASKS
from shoal.net import Net
from shoal.recipe import done
from shoal.training import TrainingRecipe
from shoal.training.graphs import read_of_graphs
from shoal.training.loop import fit
from shoal.training.objectives.distil import Distil
from shoal.training.objectives.graph_free import GraphFree
from shoal.training.objectives.hints import Hints, _far, stages
from shoal.training.objectives.logit_mse import LogitMSE, hidden
from shoal.training.objectives.reliable import Reliable, fitted, unreliable

CLASSES = 3
TASK: Task = TASKS.make(Part("classification", {"classes": CLASSES}))
STACK = "vector[features=5] | residual(mlp[hidden=12]) 4x8 | pool[outputs=3]"


def net_of(text: str = STACK, seed: int = 0) -> Net:
    torch.manual_seed(seed)
    return Net(Spec.parse(text)).eval()


def scene_of(module: nn.Module, x: Tensor, task: Task | None = TASK) -> Scene:
    """The module in front of rows, its own answers as their classes: it is always right."""
    with torch.no_grad():
        target = None if task is None else module(x).argmax(dim=-1)
    return Scene(module, anatomy(module, x[:2]), (Batch(x, target),), task)


def dead_units(net: Net, share: float = 0.5) -> list[set[int]]:
    """Zero some hidden units of every MLP; the numbers of those that live, a layer each."""
    living = []
    for stage in net.stages:
        for layer in stage.layers:
            up, down = layer.block.up, layer.block.down
            dead = torch.randperm(up.outputs)[: round(share * up.outputs)]
            with torch.no_grad():
                up.weight[dead] = 0
                up.bias[dead] = 0
                down.weight[:, dead] = 0
                down.weight.mul_(4)  # what lives matters
            living.append(set(range(up.outputs)) - set(dead.tolist()))
    return living


# Hints


def test_hints_alone_leave_what_stands_behind_untouched() -> None:
    teacher, student = net_of(), net_of("vector[features=5] | residual(mlp[hidden=4]) 4x8 | pool[outputs=3]", 1)
    data = open_data((torch.randn(64, 5).numpy(), torch.arange(64).numpy() % 3))
    before = {name: value.clone() for name, value in student.state_dict().items()}
    objective = Hints(TASK, teacher, pairs=[("stages.0.layers.2", "stages.0.layers.2")], share=1.0)
    list(fit(student, data, TrainingRecipe(epochs=2, batch=32, weight_decay=0.1), objective=objective))
    changed = {name for name, value in student.state_dict().items() if not torch.equal(before[name], value)}
    assert any(name.startswith("stages.0.layers.1.") for name in changed)
    behind = ("stages.0.layers.2.", "stages.0.layers.3.", "head.")
    assert not [name for name in changed if name.startswith(behind)]


def test_hints_of_a_net_to_itself_are_nothing() -> None:
    net, x, y = net_of(), torch.randn(7, 5), torch.zeros(7, dtype=torch.int64)
    pairs = [(f"stages.0.layers.{i}",) * 2 for i in range(4)]
    assert float(Hints(TASK, net, pairs=pairs, share=1.0)(net, x, y).detach()) == 0
    assert torch.equal(Hints(TASK, net, pairs=pairs, share=0.0)(net, x, y), Distil(TASK, net)(net, x, y))
    half = Hints(TASK, net_of(seed=1), pairs=pairs)
    whole = 0.5 * Hints(TASK, net_of(seed=1), pairs=pairs, share=1.0)(net, x, y) + 0.5 * half.answers(net, x, y)
    assert torch.allclose(half(net, x, y), whole)


def test_a_state_of_another_width_is_mapped_as_well_as_can_be() -> None:
    torch.manual_seed(0)
    v = torch.randn(9, 6, 4, dtype=torch.float64, requires_grad=True)
    u = torch.randn(9, 6, 7, dtype=torch.float64)
    assert float(_far(v.detach(), v.detach() @ torch.randn(4, 7, dtype=torch.float64) + 2)) < 1e-10
    rows, wanted = v.reshape(-1, 4), u.reshape(-1, 7)
    full = torch.cat((rows, torch.ones_like(rows[:, :1])), dim=1)
    best = torch.linalg.pinv(full) @ wanted  # trained along to the end, gradients and all
    by_hand = (wanted - full @ best).square().sum() / wanted.square().sum()
    assert torch.allclose(_far(v, u), by_hand, atol=1e-10)
    slopes = [torch.autograd.grad(one, v, retain_graph=True)[0] for one in (_far(v, u), by_hand)]
    assert torch.allclose(*slopes, atol=1e-5)  # the ridge moves the map a little
    first = _far(v.movedim(-1, 1), u.movedim(-1, 1))
    assert torch.allclose(first, _far(v, u))  # channels are where the two differ


def test_the_middle_is_hinted_at_where_nobody_says_which() -> None:
    thin, wide = net_of("vector[features=5] | residual(mlp) 2x4 | pool[outputs=3]"), net_of()
    objective = Hints(TASK, wide, share=1.0)
    x, y = torch.randn(40, 5), torch.zeros(40, dtype=torch.int64)
    value = objective(thin, x, y)
    assert objective.pairs == (("stages.0.layers.1", "stages.0.layers.2"),)
    value.backward()
    assert thin.head.map.weight.grad is None
    assert thin.stem.map.weight.grad is not None


def test_wrong_hints_are_refused() -> None:
    net, x, y = net_of(), torch.randn(4, 5), torch.zeros(4, dtype=torch.int64)
    with pytest.raises(BadSetting, match="pairs is empty"):
        Hints(TASK, net, pairs=[])
    with pytest.raises(BadSetting, match="share"):
        Hints(TASK, net, share=1.5)
    with pytest.raises(BadModel, match="no part 'nowhere'"):
        Hints(TASK, net, pairs=[("nowhere", "head")])(net, x, y)
    with pytest.raises(BadModel, match="channels alone"):
        _far(torch.randn(4, 5, 6), torch.randn(4, 7, 8))
    with pytest.raises(BadModel, match="no span"):
        Hints(TASK, nn.Linear(5, 3))(nn.Linear(5, 3), x, y)
    with pytest.raises(BadSetting, match="at least 2"):
        stages(TASK, net, steps=1)


def test_the_teacher_s_weight_falls_from_four_to_one() -> None:
    first, *rest = stages(TASK, net_of(), steps=4)
    assert isinstance(first, Hints)
    assert first.share == 1
    weights = [one.weight for one in rest if isinstance(one, Distil)]
    assert [round(weight / (1 - weight), 6) for weight in weights] == [4, 3, 2, 1]
    assert {one.temperature for one in rest if isinstance(one, Distil)} == {3.0}


def test_hooks_are_gone_when_the_loss_is_known() -> None:
    net = net_of()
    Hints(TASK, net, share=1.0)(net, torch.randn(4, 5), torch.zeros(4, dtype=torch.int64))
    assert not any(part._forward_pre_hooks for part in net.modules())


# Logits


def test_logits_are_matched_number_by_number() -> None:
    teacher, net = net_of(), net_of(seed=1)
    x, y = torch.randn(6, 5), torch.arange(6) % 3
    far = (net(x) - teacher(x)).square().mean()
    assert torch.allclose(LogitMSE(TASK, teacher)(net, x, y), far)
    mixed_loss = 0.25 * far + 0.75 * TASK.loss(net(x), y)
    assert torch.allclose(LogitMSE(TASK, teacher, weight=0.25)(net, x, y), mixed_loss)
    assert float(LogitMSE(TASK, teacher)(teacher, x, y).detach()) == 0
    with pytest.raises(BadModel, match="make them equal"):
        LogitMSE(TASK, nn.Linear(5, 2))(net, x, y)
    with pytest.raises(BadSetting, match="share"):
        LogitMSE(TASK, teacher, weight=-1.0)


def test_words_are_hidden_and_rows_are_cut() -> None:
    torch.manual_seed(0)
    x = torch.randint(1, 9, (4000, 20))
    changed = hidden(x, 0)
    assert bool(((changed == x) | (changed == 0)).all())
    left = (changed > 0).sum(dim=1)
    cut = left <= 5
    assert abs(float(cut.float().mean()) - 0.25) < 0.03
    assert abs(float((changed[~cut] == 0).float().mean()) - 0.1) < 0.01
    assert bool((hidden(torch.ones(50, 1, dtype=torch.int64), 0) <= 1).all())
    with pytest.raises(BadModel, match="no rows of tokens"):
        hidden(torch.randn(3, 4), 0)
    text = net_of("tokens[vocabulary=9,length=6] | plain(bilstm) 1x4 | ends[outputs=3]")
    taught, y = LogitMSE(TASK, text, token=0), torch.zeros(5, dtype=torch.int64)
    assert float(taught(text, x[:5, :6], y).detach()) < 1e-12
    assert float(taught(net_of(str(text.spec), 1), x[:5, :6], y).detach()) > 0


# A graph net to an MLP


def club() -> tuple[Graph, Tensor]:
    """Twenty nodes on a ring, every second one of the other class."""
    torch.manual_seed(0)
    rows = torch.arange(20)
    ring = torch.cat((torch.stack((rows, rows.roll(2))), torch.stack((rows.roll(2), rows))), dim=1)
    return Graph(torch.randn(20, 5) + (rows % 2)[:, None], ring), rows % 2


BINARY: Task = TASKS.make(Part("classification", {"classes": 2}))
GNN = "nodes[features=5] | residual(gcn) 2x8 | pool[outputs=2]"
PLAIN = "nodes[features=5] | residual(mlp) 2x8 | pool[outputs=2]"


def test_without_neighbours_it_is_the_graph_free_loss() -> None:
    (graph, y), teacher, student = club(), net_of(GNN), net_of(PLAIN, 1)
    for labels in (0.0, 0.3, 1.0):
        reliable = Reliable(BINARY, teacher, graph, labels=labels, begin=100, temperature=2.0)
        free = GraphFree(BINARY, teacher, graph, labels=labels, temperature=2.0)
        assert torch.allclose(reliable(student, graph.x, y), free(student, graph.x, y))
        assert reliable.calls == 1


def test_reliable_neighbours_teach() -> None:
    (graph, y), teacher, student = club(), net_of(GNN), net_of(PLAIN, 1)
    reliable = Reliable(BINARY, teacher, graph, begin=0)
    assert 0 <= float(reliable.rho.min()) <= float(reliable.rho.max()) == 1
    reliable.rho = torch.zeros(20)  # all are reliable: every edge teaches
    there, here = reliable.drawn()
    assert torch.equal(torch.stack((there, here)), graph.edges)
    given, answers = student(graph.x), reliable.answers
    by_hand = BINARY.distil(given, answers, 1.0) + BINARY.distil(given[here], answers[there], 1.0)
    assert torch.allclose(reliable(student, graph.x, y), by_hand)
    reliable.rho = torch.ones(20)  # none is
    assert not reliable.drawn()[0].numel()
    assert torch.allclose(reliable(student, graph.x, y), BINARY.distil(given, answers, 1.0))
    with pytest.raises(BadModel, match="reads edges"):
        reliable(teacher, graph.x, y)
    with pytest.raises(BadSetting, match="no classes"):
        Reliable(TASKS.make(Part("regression", {"outputs": 2})), teacher, graph)
    for wrong in ({"labels": 2.0}, {"noise": 0.0}, {"bins": 1}):
        with pytest.raises(BadSetting):
            Reliable(BINARY, teacher, graph, **wrong)


def test_an_answer_that_noise_does_not_move_is_reliable() -> None:
    sure, unsure, flipped = (torch.tensor([row]) for row in ([9.0, -9.0], [0.1, 0.0], [-9.0, 9.0]))
    rho = unreliable(torch.cat((sure, sure, unsure)), torch.cat((sure, unsure, sure)))
    assert float(rho[0]) == 0
    assert float(rho.max()) == 1
    assert float(unreliable(sure, flipped)) == 0  # as sure as before, of the other one: entropy does not see it


@given(exponent=st.floats(0.8, 4.0))
@settings(max_examples=20, deadline=None)
def test_the_exponent_is_found(exponent: float) -> None:
    rho = (torch.arange(50).double() + 0.5).repeat_interleave(400) / 50
    rank = torch.arange(400).repeat(50) / 400
    low, high = 1 - 0.99**exponent, 1 - 0.01**exponent  # what the shares are scaled from
    wanted = (1 - rho**exponent - low) / (high - low)
    alike = rank < wanted
    assert abs(fitted(rho, alike, 50, 1.0) - exponent) < 0.1 * exponent + 0.05
    assert fitted(rho, torch.ones_like(alike), 50, 1.7) == 1.7


def test_a_graph_net_becomes_an_mlp() -> None:
    graph, _ = club()
    net = net_of(GNN)
    example = {"x": graph.x, "context": {"edges": graph.edges}}
    scene = Scene(net, anatomy(net, example), (Batch(example, None, whole=True),))
    (proposal,) = GnnToMlp(depth=3, dim=12, hidden=7).propose(scene)
    student = done(net, proposal)
    assert isinstance(student, Net)
    assert str(student.spec) == "nodes[features=5] | residual(mlp[hidden=7]) 3x12 | pool[outputs=2]"
    assert not read_of_graphs(student)
    assert student(graph.x).shape == (20, 2)
    assert proposal.paths == ("stages.0.layers.0", "stages.0.layers.1")
    assert list(GnnToMlp().propose(scene_of(net_of(), torch.randn(4, 5)))) == []


# DLRT


def low(rows: int, columns: int, rank: int) -> Tensor:
    return torch.randn(rows, rank, dtype=torch.float64) @ torch.randn(rank, columns, dtype=torch.float64)


def squares(target: Tensor):
    return lambda weights: 0.5 * (weights["w"] - target).square().sum()


def test_augmented_bases_hold_the_old_matrix() -> None:
    torch.manual_seed(0)
    for rows, columns, rank in ((9, 7, 3), (9, 7, 5), (5, 12, 5), (6, 6, 6), (4, 4, 1)):
        one = factored(low(rows, columns, rank), 1e-12)
        assert one.rank == rank
        new = augmented(one, torch.randn(rows, rank).double(), torch.randn(columns, rank).double())
        assert torch.allclose(new.matrix(), one.matrix(), atol=1e-10)
        assert new.rank == 2 * rank or new.s.shape == (min(rows, 2 * rank), min(columns, 2 * rank))
        for basis in (new.u, new.v):
            assert torch.allclose(basis.T @ basis, torch.eye(basis.shape[1]).double(), atol=1e-10)


@pytest.mark.parametrize("shape", [(6, 6), (4, 9), (9, 4)])
def test_at_full_rank_a_step_is_one_of_gradient_descent(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    start, target = torch.randn(*shape).double(), torch.randn(*shape).double()
    found, _ = stepped({"w": factored(start, 0.0)}, {}, squares(target), 0.3, 0.0)
    assert torch.allclose(found["w"].matrix(), start - 0.3 * (start - target), atol=1e-10)


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_at_low_rank_the_gradient_is_seen_through_the_new_bases(rank: int) -> None:
    torch.manual_seed(0)
    start, target, lr = low(9, 7, rank), torch.randn(9, 7).double(), 0.1
    one = factored(start, 1e-12)
    slope = start - target
    u = torch.linalg.qr(torch.cat((one.u @ one.s - lr * slope @ one.v, one.u), 1)).Q
    v = torch.linalg.qr(torch.cat((one.v @ one.s.T - lr * slope.T @ one.u, one.v), 1)).Q
    by_hand = start - lr * u @ u.T @ slope @ v @ v.T
    found, _ = stepped({"w": one}, {}, squares(target), lr, 0.0)
    assert torch.allclose(found["w"].matrix(), by_hand, atol=1e-10)
    assert found["w"].rank <= 2 * rank


@given(theta=st.floats(0.01, 0.9), seed=st.integers(0, 50))
@settings(max_examples=25, deadline=None)
def test_no_more_is_cut_than_theta_allows(theta: float, seed: int) -> None:
    torch.manual_seed(seed)
    whole = factored(torch.randn(8, 6).double(), 0.0)
    cut = truncated(whole, theta)
    values = torch.linalg.svdvals(whole.s)
    assert float((whole.matrix() - cut.matrix()).norm()) <= theta * float(whole.s.norm()) + 1e-12
    if cut.rank > 1:
        assert float(values[cut.rank - 1 :].norm()) > theta * float(values.norm())  # one less would be too few


def test_ranks_rise_and_fall_to_that_of_the_answer() -> None:
    torch.manual_seed(0)
    for begin in (1, 8):
        factors = {"w": factored(low(10, 8, begin), 1e-12)}
        target, before = low(10, 8, 3), torch.inf
        ranks = []
        for _ in range(40):
            factors, _ = stepped(factors, {}, squares(target), 0.5, 1e-3)
            ranks.append(factors["w"].rank)
            now = float(squares(target)({"w": factors["w"].matrix()}))
            cut = 1e-3 * 1.01 * float(factors["w"].s.norm())
            assert now <= 0.5 * ((2 * before) ** 0.5 + cut) ** 2 + 1e-9  # the step goes down, the cut no further back
            before = now
        assert ranks[0] <= 2 * begin
        assert ranks[-1] == 3
        assert torch.allclose(factors["w"].matrix(), target, atol=0.1)


def test_a_fixed_rank_stays_and_other_weights_move_once() -> None:
    torch.manual_seed(0)
    target = torch.randn(6, 5).double()
    factors, others = {"w": factored(low(6, 5, 2), 1e-12)}, {"b": torch.ones(5).double()}

    def both(weights):
        return squares(target)(weights) + 0.5 * weights["b"].square().sum()

    found, moved = stepped(factors, others, both, 0.1, None)
    assert found["w"].rank == 2
    assert torch.allclose(moved["b"], others["b"] * 0.9)
    assert float(squares(target)({"w": found["w"].matrix()})) < float(squares(target)({"w": factors["w"].matrix()}))


def test_planted_ranks_are_proposed() -> None:
    net = net_of("vector[features=5] | residual(mlp[hidden=24]) 2x16 | pool[outputs=3]")
    with torch.no_grad():
        for layer in net.stages[0].layers:
            for matrix, rank in ((layer.block.up, 2), (layer.block.down, 3)):
                matrix.fit(low(matrix.outputs, matrix.inputs, rank).float() / 8)
    for scene in (scene_of(net, torch.randn(80, 5)), scene_of(net, torch.randn(80, 5), None)):
        proposals = list(DLRT(theta=0.02, steps=2, lr=1e-4).propose(scene))
        ranks = [[(edit.path.rpartition(".")[2], edit.rank) for edit in one.edits] for one in proposals]
        assert ranks == [[("up", 2), ("down", 3)]] * 2
        assert torch.allclose(done(net, proposals[0])(torch.ones(1, 5)), net(torch.ones(1, 5)), atol=1e-4)


# N2N


def test_the_reward_is_that_of_the_specification() -> None:
    assert worth(0.0, 1.0) == 0
    assert worth(1.0, 1.0) == 1
    slope = (worth(0.5 + 1e-6, 1.0) - worth(0.5 - 1e-6, 1.0)) / 2e-6
    assert abs(slope - 2 * (1 - 0.5)) < 1e-6
    assert worth(0.5, 0.5) == 0.5 * worth(0.5, 1.0)
    assert worth(0.3, 1.0) + worth(0.7, 1.0) < 2 * worth(0.5, 1.0)  # concave


def test_keeping_all_is_worth_nothing_and_what_cannot_be_made_less() -> None:
    trial = Trial(scene_of(net_of(), torch.randn(64, 5)), 0)
    assert trial.reward(()) == 0
    gone = tuple(Drop(path=f"stages.0.layers.{i}", branch=True) for i in (3, 2, 1))
    assert 0 < trial.reward(gone) < 1
    assert trial.reward((Drop(path="stages.0.layers.9"),)) == -1


def test_a_policy_learns_what_is_rewarded() -> None:
    torch.manual_seed(0)
    policy, told = Keeping(2), torch.eye(6)[:, :2]
    wanted = (0, 1, 0, 1, 0, 1)
    rewards = search(
        policy,
        told,
        lambda way: float(sum(a == b for a, b in zip(way, wanted, strict=True))),
        updates=40,
        rollouts=5,
        lr=0.03,
    )
    assert list(rewards.values()) == sorted(rewards.values(), reverse=True)
    late = [sum(a == b for a, b in zip(policy.draw(told)[0], wanted, strict=True)) for _ in range(20)]
    assert sum(late) / 20 > 3.6  # it began at 3.0


def test_n2n_finds_spans_that_do_nothing_and_widths_that_are_dead() -> None:
    net = net_of()
    living = dead_units(net, 0.5)
    with torch.no_grad():
        for index in (1, 2):
            for weight in net.stages[0].layers[index].block.down.parameters():
                weight.zero_()
    scene = scene_of(net, torch.randn(100, 5))
    proposals = list(N2N(updates=8).propose(scene))
    removals = [set(one.paths) for one in proposals if one.into is None]
    assert {"stages.0.layers.1", "stages.0.layers.2"} <= removals[0]
    assert any(isinstance(edit, Narrow) for one in proposals for edit in one.edits)
    for one in proposals:
        for edit in one.edits:
            if isinstance(edit, Narrow):
                layer = int(edit.path[-1])
                kept = set(edit.keep)
                assert kept <= living[layer] or living[layer] <= kept  # the dead ones go first
    first, again = (list(N2N(updates=2).propose(scene)) for _ in range(2))
    assert again == first


def test_n2n_works_on_modules_of_other_people() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(*(nn.Sequential(nn.Linear(5, 5), nn.Tanh()) for _ in range(4)))
    scene = scene_of(module, torch.randn(40, 5), None)
    state = torch.get_rng_state()
    proposals = list(N2N(updates=3, steps=2).propose(scene))
    assert torch.equal(state, torch.get_rng_state())
    assert proposals
    assert all(done(module, one)(torch.ones(1, 5)).isfinite().all() for one in proposals)


# Transformable


def test_channels_are_stretched_by_adaptive_pooling() -> None:
    for units, to in ((4, 4), (3, 7), (2, 5), (5, 8)):
        row = torch.randn(1, 1, units)
        assert torch.allclose(row[0, 0] @ stretched(units, to).T, F.adaptive_avg_pool1d(row, to)[0, 0], atol=1e-6)
    assert torch.equal(stretched(6, 6), torch.eye(6))


def test_two_candidates_are_drawn() -> None:
    torch.manual_seed(0)
    logits = torch.tensor([0.0, 3.0, 0.0, 0.0], requires_grad=True)
    some = torch.stack([drawn(logits, 1.0) for _ in range(400)])
    assert torch.allclose(some.sum(dim=1), torch.ones(400))
    assert bool(((some > 0).sum(dim=1) <= 2).all())
    assert int(some.detach().mean(dim=0).argmax()) == 1
    some[:, 1].sum().backward()
    assert logits.grad is not None
    assert float(logits.grad[1]) > 0
    assert torch.equal(drawn(torch.zeros(1), 0.1), torch.ones(1))
    assert candidates(10, (0.25, 0.5, 0.51)) == (2, 5, 10)
    assert candidates(1, (0.1,)) == (1,)


def test_a_mixture_reads_what_a_narrowed_layer_would() -> None:
    torch.manual_seed(0)
    order, row, weight = [3, 0, 2, 1], torch.randn(4), torch.randn(5, 4)
    for align in ("mask", "stretch"):
        assert torch.allclose(mixed(torch.tensor([0.0, 1.0]), (2, 4), order, align), torch.eye(4))
    alone = mixed(torch.tensor([1.0, 0.0]), (2, 4), order, "mask")
    assert torch.allclose(read_mixed(weight, alone, 1) @ row, weight[:, [3, 0]] @ row[[3, 0]], atol=1e-6)
    both = mixed(torch.tensor([0.25, 0.75]), (2, 4), order, "stretch")
    spread = torch.zeros(4)
    spread[order] = 0.25 * stretched(2, 4) @ row[[3, 0]] + 0.75 * row[order]
    assert torch.allclose(read_mixed(weight, both, 1) @ row, weight @ spread, atol=1e-6)
    heads = mixed(torch.tensor([1.0, 0.0]), (1, 2), [1, 0], "mask")
    assert torch.equal(read_mixed(torch.ones(1, 6, 3, 3), heads, 3)[0, :, 0, 0], torch.tensor([0.0, 0, 0, 1, 1, 1]))


def test_the_cost_is_pushed_into_its_band() -> None:
    for value, sign in ((0.9, 1), (0.51, 0), (0.2, -1)):
        expected = torch.tensor(value, requires_grad=True)
        cost = priced(expected, 0.5, 0.05)
        if sign:
            cost.backward()
            assert expected.grad is not None
            assert float(expected.grad) * sign > 0
        else:
            assert float(cost.detach()) == 0


@pytest.mark.parametrize(
    "text",
    [
        "vector[features=5] | residual(mlp[hidden=12]) 3x8 - residual(mlp[hidden=6]) 2x6 | pool[outputs=3]",
        "convolution[channels=2] | residual(conv[hidden=6]) 3x4 | pool[outputs=3]",
        "convolution[channels=2,kernel=[3]] | residual(transformer[heads=2,head_dim=4,hidden=8]) 2x8 | pool[outputs=3]",
    ],
)
def test_the_expected_cost_is_that_of_the_net_that_is_made(text: str) -> None:
    net = net_of(text)
    x = torch.randn(2, *((5,) if "vector" in text else (6, 2) if "[3]" in text else (5, 4, 2)))
    choices = Choices(net, x, (0.5,))
    one = {name: F.one_hot(torch.tensor(0), len(logits)).float() for name, logits in choices.logits.items()}
    whole = {
        name: F.one_hot(torch.tensor(len(logits) - 1), len(logits)).float() for name, logits in choices.logits.items()
    }
    assert choices.widths
    assert abs(float(choices.expected(whole).detach()) - 1) < 1e-6
    shrunk: nn.Module = net
    depth = {**whole, **{name: one[name] for name in choices.widths}}
    for width in choices.widths.values():
        keep = tuple(sorted(width.order[: width.sizes[0]]))
        edit = Narrow(path=width.units.path, width=width.units.width, keep=keep)
        shrunk = done(shrunk, _proposal(edit))
    found = Choices(shrunk, x, (0.5,)) if isinstance(shrunk, Net) else choices
    ratio = sum(found.layers.values()) / sum(choices.layers.values())
    assert abs(float(choices.expected(depth).detach()) - ratio) < 1e-6
    early = {**whole, **{name: one[name] for name in choices.depths}}
    first = sum(cost for path, cost in choices.layers.items() if path.endswith(".layers.0"))
    assert abs(float(choices.expected(early).detach()) - first / sum(choices.layers.values())) < 1e-6


def _proposal(edit: Narrow) -> Proposal:
    return Proposal((edit,), (edit.path,), into=edit.path)


def test_with_one_candidate_nothing_is_mixed() -> None:
    net, x = net_of(), torch.randn(9, 5)
    choices = Choices(net, x, (1.0,))
    at = {
        name: torch.ones(1) if name in choices.widths else F.one_hot(torch.tensor(3), 4).float()
        for name in choices.logits
    }
    assert torch.allclose(called(net, x, choices.weights(at, "stretch")), net(x), atol=1e-6)


def test_dead_units_are_found() -> None:
    net = net_of("vector[features=5] | residual(mlp[hidden=16]) 1x8 | pool[outputs=3]")
    (living,) = dead_units(net, 0.5)
    (proposal,) = Transformable(steps=80).propose(scene_of(net, torch.randn(128, 5)))
    (edit,) = proposal.edits
    assert isinstance(edit, Narrow)
    assert set(edit.keep) == living
    x = torch.randn(3, 5)
    assert torch.allclose(done(net, proposal)(x), net(x), atol=1e-5)


def test_idle_layers_are_found() -> None:
    net = net_of("vector[features=5] | residual(mlp[hidden=16]) 4x8 | pool[outputs=3]")
    with torch.no_grad():
        for layer in list(net.stages[0].layers)[2:]:
            for weight in layer.block.down.parameters():
                weight.zero_()
    (proposal,) = Transformable(steps=80, shares=(1.0,)).propose(scene_of(net, torch.randn(128, 5)))
    assert proposal.paths == ("stages.0.layers.2", "stages.0.layers.3")
    assert proposal.into is None
    x = torch.randn(3, 5)
    assert torch.allclose(done(net, proposal)(x), net(x), atol=1e-5)


# FitNets, quantised distillation, BiLSTM


def test_the_units_that_weigh_most_come_first() -> None:
    for text in (STACK, "convolution[channels=2] | residual(conv[hidden=6]) 2x4 | pool[outputs=3]"):
        net = net_of(text)
        units = next(units_of(net))
        with torch.no_grad():
            for path in units.readers:
                net.get_parameter(f"{path}.weight")[:, 2] = 0  # never read
            for path in units.makers:
                net.get_parameter(f"{path}.weight")[5] *= 50
        weights = standing(net, units)
        assert float(weights[2]) == 0
        assert ordered(net, units)[0] == 5
        assert ordered(net, units)[-1] == 2


def test_fitnets_keeps_the_same_share_everywhere() -> None:
    net = net_of()
    living = dead_units(net, 0.25)
    proposals = list(FitNets(share=0.75).propose(scene_of(net, torch.randn(6, 5))))
    assert [one.paths for one in proposals] == [(f"stages.0.layers.{i}",) for i in range(4)]
    x = torch.randn(3, 5)
    for one, alive in zip(proposals, living, strict=True):
        (edit,) = one.edits
        assert isinstance(edit, Narrow)
        assert set(edit.keep) == alive
        assert torch.allclose(done(net, one)(x), net(x), atol=1e-5)
    assert FitNets.objective == "hints"


class Steps(nn.Module):
    """A residual stack as strangers write it, every second hidden unit dead."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = nn.ModuleList(nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 5)) for _ in range(3))
        with torch.no_grad():
            for step in self.steps:
                assert isinstance(step, nn.Sequential)
                step[0].weight[::2] = 0
                step[0].bias[::2] = 0
                step[2].weight.mul_(8)  # what lives matters

    def forward(self, x: Tensor) -> Tensor:
        for step in self.steps:
            x = x + step(x)
        return x


def test_fitnets_narrows_modules_of_other_people() -> None:
    torch.manual_seed(0)
    module, x = Steps().eval(), torch.randn(6, 5)
    scene = scene_of(module, x, None)
    proposals = list(FitNets(share=0.5).propose(scene))
    assert [one.paths for one in proposals] == [(f"steps.{i}",) for i in range(3)]
    for one in proposals:
        (edit,) = one.edits
        assert isinstance(edit, Narrow)
        assert edit.keep == (1, 3, 5, 7)
        assert torch.allclose(done(module, one)(x), module(x), atol=1e-5)
    shrunk = [one for one in N2N(updates=4).propose(scene) if one.into is not None]
    assert shrunk
    assert all(done(module, one)(x).shape == x.shape for one in shrunk)


@given(bits=st.integers(1, 8), bucket=st.sampled_from([3, 7, 256]), seed=st.integers(0, 20))
@settings(max_examples=25, deadline=None)
def test_numbers_lie_on_levels(bits: int, bucket: int, seed: int) -> None:
    torch.manual_seed(seed)
    values = torch.randn(5, 8, dtype=torch.float64)
    found = uniform(values, bits, bucket)
    assert torch.allclose(uniform(found, bits, bucket), found, atol=1e-12)  # idempotent
    for given_, made in zip(values.flatten().split(bucket), found.flatten().split(bucket), strict=True):
        reach = float(given_.max() - given_.min())
        assert float((given_ - made).abs().max()) <= reach / (2 * (2**bits - 1)) + 1e-12
        assert len(made.unique()) <= 2**bits
    assert torch.allclose(uniform(values, 30, bucket), values, atol=1e-8)


def test_rounding_by_chance_is_right_on_average() -> None:
    torch.manual_seed(0)
    values, draws = torch.rand(40, dtype=torch.float64), torch.Generator().manual_seed(0)
    mean = torch.stack([uniform(values, 2, 40, draws=draws) for _ in range(1500)]).mean(dim=0)
    assert float((mean - values).abs().max()) < 0.04
    assert torch.equal(uniform(torch.full((9,), 3.0), 4, 4), torch.full((9,), 3.0))


def test_bits_go_where_the_gradient_is() -> None:
    assert shared_out({"a": 1.0, "b": 1.0}, {"a": 10, "b": 10}, 4) == {"a": 4, "b": 4}
    assert shared_out({"a": 4.0, "b": 1.0}, {"a": 10, "b": 10}, 4) == {"a": 5, "b": 3}
    assert shared_out({"a": 4.0, "b": 1.0}, {"a": 90, "b": 10}, 4) == {"a": 4, "b": 2}
    assert shared_out({"a": 1e9, "b": 1.0}, {"a": 1, "b": 1}, 5) == {"a": 8, "b": 2}
    assert shared_out({"a": 0.0, "b": 0.0}, {"a": 1, "b": 1}, 5) == {"a": 5, "b": 5}
    net = net_of()
    with torch.no_grad():
        net.stages[0].layers[0].block.up.weight.mul_(1e-4)  # nothing leans on how its answer is read
        net.stages[0].layers[0].block.down.weight.mul_(1e-4)
    proposals = list(QuantisedDistil(bits=4).propose(scene_of(net, torch.randn(64, 5))))
    bits = {one.paths[0]: one.edits[0].bits for one in proposals}
    assert bits["stages.0.layers.0"] < max(bits.values())
    assert all(done(net, one)(torch.ones(1, 5)).isfinite().all() for one in proposals)


def test_a_text_net_becomes_a_bilstm() -> None:
    text = "tokens[vocabulary=11,length=6] | residual(transformer[heads=2,head_dim=4,hidden=8]) 2x8 | pool[outputs=3]"
    net, x = net_of(text), torch.randint(0, 11, (5, 6))
    (proposal,) = DistilBiLSTM(dim=8, hidden=5).propose(scene_of(net, x))
    student = done(net, proposal)
    assert isinstance(student, Net)
    assert str(student.spec).startswith("tokens[length=6,vocabulary=11] | plain(bilstm norm=none) 1x8 | ends[")
    assert student(x).shape == (5, 3)
    with pytest.raises(BadSetting, match="even"):
        DistilBiLSTM(dim=7)
    every = net_of("tokens[vocabulary=11,length=6] | residual(mlp) 2x8 | every[outputs=11]")
    assert list(DistilBiLSTM().propose(scene_of(every, x, None))) == []
    assert list(DistilBiLSTM().propose(scene_of(net_of(), torch.randn(4, 5)))) == []


def test_what_was_read_last_reaches_the_answer() -> None:
    """The end of each direction has seen every place, and the head reads just those."""
    net = net_of("tokens[vocabulary=11,length=6] | plain(bilstm norm=none) 1x8 | ends[outputs=3]")
    x = torch.randint(0, 11, (1, 6))
    stream = net.stages[0](net.stem(x), None, 0, None).detach().requires_grad_()
    net.head(stream).sum().backward()
    assert stream.grad is not None
    assert bool(stream.grad[0, 1:-1].eq(0).all())
    assert bool(stream.grad[0, 0, :4].eq(0).all())
    assert bool(stream.grad[0, -1, 4:].eq(0).all())
    for place in range(6):
        other = x.clone()
        other[0, place] = (other[0, place] + 1) % 11
        assert not torch.equal(net(x), net(other))


# Lessons


def test_lessons_leave_no_mark_and_ask_for_what_there_is() -> None:
    net = net_of("convolution[channels=2] | residual(conv) 2x4 | pool[outputs=3]").train()
    before = copy.deepcopy(net.state_dict())
    scene = scene_of(net, torch.randn(70, 4, 4, 2), None)
    found = lessons(scene, 32)
    assert [one.batch.rows for one in found] == [32, 32, 6]
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert net.training
    assert float(loss(scene, found[0], found[0].wanted)) == 0
    assert score(scene, found, net) == pytest.approx(1)


def test_what_a_stranger_raises_is_told() -> None:
    with pytest.raises(BadModel, match="Linear does not run"):
        called(nn.Linear(3, 3), torch.randn(2, 4))
