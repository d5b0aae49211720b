"""Graphs: what propagation, aggregation and depth come to, exactly; data, training, all graph blocks in all wirings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from shoal import Net, Spec, TrainingRecipe, build, cost, evaluate, open_data, train
from shoal.blocks._graphs import AGGREGATIONS, LARGEST, SMALLEST, averaged, softmax_at, summed
from shoal.commands._talk import Talk
from shoal.commands._trained import Order
from shoal.commands._training import trained
from shoal.core.errors import BadData, BadModel, BadSetting
from shoal.core.graphs import (
    adaptive,
    closed,
    components,
    normalised,
    smoothness,
    spread,
    stationary,
    transposed,
    walking,
    walks,
)
from shoal.core.named import read_spec
from shoal.core.part import Part
from shoal.core.spec import LayerSpec
from shoal.data import Dataset, encoder_from_json
from shoal.kinds import NETS, TASKS, WIRINGS
from shoal.net import Layer
from shoal.training import fit
from shoal.training.graphs import OnGraph, asked, propagated_beforehand
from shoal.training.objectives.graph_free import GraphFree

BLOCKS = ("gcn", "sage", "graph_attention[heads=2]", "gen", "propagate", "adaptive_hops[hops=3]", "gated_hops[hops=3]")
CPU = torch.device("cpu")
NODES = 9


def rows(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def both(edges: list[tuple[int, int]]) -> Tensor:
    pairs = torch.tensor(edges, dtype=torch.int64).view(-1, 2).T
    return torch.cat((pairs, pairs.flip(0)), dim=1)


# two components and a node alone
EDGES = both([(0, 1), (1, 2), (2, 0), (2, 3), (4, 5), (5, 6), (6, 7)])


def dense(edges: Tensor, nodes: int = NODES) -> Tensor:
    """A + I, by hand."""
    matrix = torch.eye(nodes, dtype=torch.float64)
    for begin, end in edges.T.tolist():
        if begin != end:
            matrix[end, begin] += 1
    return matrix


def layer(text: str, dim: int = 8, out: int = 8) -> Layer:
    torch.manual_seed(0)
    made = Layer(LayerSpec(Part.parse(text), norm=Part("none")), dim, out).double().eval()
    for parameter in made.parameters():
        nn.init.uniform_(parameter, -0.5, 0.5)
    return made


def run(made: nn.Module, x: Tensor, **context: Tensor) -> Tensor:
    return made(x, context=context)


# ------------------------------------------------------------------ the matrix


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, NODES - 1), st.integers(0, NODES - 1)), max_size=25))
def test_matrices_are_what_they_are_by_hand(pairs: list[tuple[int, int]]) -> None:
    edges = torch.tensor(pairs, dtype=torch.int64).view(-1, 2).T
    whole = dense(edges)
    degrees = whole.sum(dim=1)
    root = degrees.rsqrt()
    found, walk = normalised(edges, NODES, torch.float64), walking(edges, NODES, torch.float64)
    assert torch.allclose(found.to_dense(), root[:, None] * whole * root, atol=1e-12)
    assert torch.allclose(walk.to_dense(), whole / degrees[:, None], atol=1e-12)
    assert torch.equal(transposed(found).to_dense(), found.to_dense().T)


def test_spread_is_the_product_in_all_directions() -> None:
    edges = torch.tensor([[0, 1, 2, 5], [1, 2, 0, 3]])  # one way only: the matrix is not symmetric
    matrix, x = normalised(edges, NODES, torch.float64), rows(NODES, 2, 3).requires_grad_()
    y = spread(matrix, x)
    assert torch.allclose(y, torch.einsum("vu,upc->vpc", matrix.to_dense(), x), atol=1e-12)
    assert torch.autograd.gradcheck(lambda x: spread(matrix, x), x)
    assert torch.autograd.gradgradcheck(lambda x: spread(matrix, x), x)


def test_components_are_the_smallest_node_reached() -> None:
    assert components(EDGES, NODES).tolist() == [0, 0, 0, 0, 4, 4, 4, 4, 8]
    chain = torch.stack((torch.arange(1, 200), torch.arange(199)))  # pointing one way
    assert components(chain.flip(1), 200).unique().tolist() == [0]


# ------------------------------------------------------------------ smoothness, by the specification of DGMLP


def test_the_stationary_point_is_the_limit_of_the_walk() -> None:
    x, walk = rows(NODES, 4), walking(EDGES, NODES, torch.float64)
    y = x
    for _ in range(2000):
        y = spread(walk, y)
    limit = stationary(EDGES, x)
    assert torch.allclose(y, limit, atol=1e-10)
    weights = torch.tensor([3.0, 3, 4, 2], dtype=torch.float64)  # (d + 1) of the first component: 4 edges, 4 nodes
    assert torch.allclose(limit[1], weights @ x[:4] / (2 * 4 + 4), atol=1e-12)
    assert torch.equal(limit[8], x[8])


def test_smoothness_begins_as_the_distance_from_the_limit() -> None:
    x = rows(NODES, 4)
    limit = stationary(EDGES, x)
    levels = torch.stack([*smoothness(walks(EDGES, x, 5), limit)], dim=-1)
    assert levels.shape == (NODES, 6)
    assert torch.allclose(levels[:, 0], 1 - torch.cosine_similarity(x, limit), atol=1e-9)
    assert all(level.isfinite().all() for level in smoothness([torch.zeros(2, 3)] * 2, torch.zeros(2, 3)))


def test_adaptive_weights_sum_to_one() -> None:
    same = torch.ones(NODES, 4, dtype=torch.float64)  # rows that walking leaves alone: the weights alone are seen
    assert torch.allclose(adaptive(EDGES, same, 7), same, atol=1e-12)
    x = rows(NODES, 4)
    assert torch.allclose(adaptive(EDGES, x, 0), x, atol=1e-12)
    steps = [*walks(EDGES, x, 7)]
    weights = torch.stack([*smoothness(steps, stationary(EDGES, x))], dim=-1).softmax(-1)
    assert torch.allclose(weights.sum(-1), torch.ones(NODES, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(adaptive(EDGES, x, 7), torch.einsum("vk,kvc->vc", weights, torch.stack(steps)), atol=1e-12)


# ------------------------------------------------------------------ aggregation, by the specification of DeeperGCN


def test_aggregations_have_their_limits() -> None:
    begin, end = closed(EDGES, NODES)
    messages = rows(NODES, 3).abs()[begin] + 0.01
    mean = averaged(messages, end, NODES)
    index = end[:, None].expand_as(messages)
    largest = torch.zeros(NODES, 3, dtype=torch.float64).scatter_reduce(0, index, messages, "amax")
    soft, power = AGGREGATIONS["softmax"], AGGREGATIONS["power"]
    one = torch.ones(1, dtype=torch.float64)
    assert torch.allclose(soft(messages, end, NODES, 0 * one), mean, atol=1e-12)
    assert torch.allclose(power(messages, end, NODES, one), mean, atol=1e-12)
    assert torch.allclose(soft(messages, end, NODES, 1e7 * one), largest, atol=1e-4)
    assert torch.allclose(power(messages, end, NODES, 1e5 * one), largest, atol=1e-4)
    for gather in (soft, power):  # the same neighbours twice
        twice = gather(torch.cat((messages, messages)), torch.cat((end, end)), NODES, 1.5 * one)
        assert torch.allclose(twice, gather(messages, end, NODES, 1.5 * one), atol=1e-10)
        assert gather(messages, end, NODES, 0 * one).isfinite().all()


def test_softmax_at_sums_to_one_at_every_node() -> None:
    begin, end = closed(EDGES, NODES)
    shares = softmax_at(100 * rows(len(end), 2), end, NODES)
    assert torch.allclose(summed(shares, end, NODES), torch.ones(NODES, 2, dtype=torch.float64), atol=1e-12)
    assert len(begin) == EDGES.shape[1] + NODES


def test_messages_are_sized_by_the_row() -> None:
    made = layer("gen[act=identity]")
    x = rows(NODES, 8)
    seen: list[Tensor] = []
    made.block.up.register_forward_hook(lambda _module, given, _out: seen.append(given[0]))
    run(made, x, edges=EDGES)
    ratio = (seen[0] - x).norm(dim=-1) / x.norm(dim=-1)
    assert torch.allclose(ratio, made.block.scale.abs().detach().expand(NODES), atol=1e-10)


# ------------------------------------------------------------------ blocks


@pytest.mark.parametrize("text", BLOCKS)
def test_renumbering_the_nodes_renumbers_the_answers(text: str) -> None:
    made, x = layer(text), rows(NODES, 8)
    order = torch.randperm(NODES, generator=torch.Generator().manual_seed(1))
    place = order.argsort()
    assert torch.allclose(run(made, x[order], edges=place[EDGES]), run(made, x, edges=EDGES)[order], atol=1e-10)


@pytest.mark.parametrize("text", BLOCKS)
def test_without_edges_every_node_is_for_itself(text: str) -> None:
    made, x = layer(text), rows(NODES, 2, 8)
    none = torch.empty(2, 0, dtype=torch.int64)
    assert torch.allclose(made(x), run(made, x, edges=none), atol=1e-10)
    loops = torch.arange(NODES).expand(2, -1)
    if not text.startswith("sage"):  # which leaves a node out of its own mean unless an edge says so
        assert torch.allclose(made(x), run(made, x, edges=loops), atol=1e-10)
    assert torch.allclose(made(x)[:, 0], made(x[:, 0]), atol=1e-12)  # places are apart


@pytest.mark.parametrize("text", ["gcn", "gcn[hops=3]", "propagate[hops=2,bias=true]", "gated_hops[hops=3]"])
def test_edges_and_the_matrix_made_of_them_are_one(text: str) -> None:
    made, x = layer(text), rows(NODES, 8)
    matrix = normalised(EDGES, NODES, torch.float64)
    assert torch.equal(run(made, x, edges=EDGES), run(made, x, adjacency=matrix))


def test_blocks_are_those_of_pyg() -> None:
    pyg = pytest.importorskip("torch_geometric.nn")
    x = rows(NODES, 8)
    ours = layer("gcn[act=identity]", out=6)
    theirs = pyg.GCNConv(8, 6, bias=False).double()
    theirs.lin.weight.data.copy_(ours.block.map.weight)
    assert torch.allclose(run(ours, x, edges=EDGES) - ours.block.map.bias, theirs(x, EDGES), atol=1e-10)

    ours = layer("sage[act=identity]", out=6)
    theirs = pyg.SAGEConv(8, 6).double()
    theirs.lin_r.weight.data.copy_(ours.block.own.weight)
    theirs.lin_l.weight.data.copy_(ours.block.neighbours.weight)
    theirs.lin_l.bias.data.copy_(ours.block.own.bias)
    assert torch.allclose(run(ours, x, edges=EDGES), theirs(x, EDGES), atol=1e-10)

    ours = layer("graph_attention[act=identity,heads=2]", out=6)
    theirs = pyg.GATConv(8, 3, heads=2).double()
    theirs.lin.weight.data.copy_(ours.block.map.weight)
    theirs.bias.data.copy_(ours.block.map.bias)
    theirs.att_src.data.copy_(ours.block.begins)
    theirs.att_dst.data.copy_(ours.block.ends)
    ours.block.map.bias.data.zero_()  # theirs comes behind the mean, and is no part of the scores
    assert torch.allclose(run(ours, x, edges=EDGES) + theirs.bias, theirs(x, EDGES), atol=1e-10)

    for aggregate, name in (("softmax", "t"), ("power", "p")):
        ours = layer(f"gen[act=identity,hidden=16,aggregate={aggregate}]")
        ours.block.sharpness.data.fill_(0.7)
        own = {name: 0.7}
        theirs = pyg.GENConv(8, 8, aggr=aggregate, msg_norm=True, norm=None, bias=True, **own).double()
        theirs.msg_norm.scale.data.copy_(ours.block.scale)
        theirs.aggr_module.min_value, theirs.aggr_module.max_value = SMALLEST, LARGEST
        matrices = [part for part in theirs.mlp.modules() if hasattr(part, "weight")]
        for mine, other in zip((ours.block.up, ours.block.down), matrices, strict=True):
            other.weight.data.copy_(mine.weight)
            other.bias.data.copy_(mine.bias)
        assert torch.allclose(run(ours, x, edges=EDGES), theirs(x, closed(EDGES, NODES)), atol=1e-10)


def test_gates_lie_between_and_open_to_the_plain_sum() -> None:
    made, x = layer("gated_hops[hops=4]"), rows(NODES, 8)
    made.block.gate.bias.data.fill_(60.0)
    steps, matrix = [x], normalised(EDGES, NODES, torch.float64)
    for _ in range(4):
        steps.append(spread(matrix, steps[-1]))
    assert torch.allclose(run(made, x, edges=EDGES), torch.stack(steps).sum(0), atol=1e-10)
    alone = layer("gated_hops[hops=0]")
    scale = alone.block.gate(x).sigmoid()
    assert torch.allclose(run(alone, x, edges=EDGES), scale * x, atol=1e-12)
    assert bool(((scale > 0) & (scale < 1)).all())


def test_a_branch_of_zeros_leaves_the_stream() -> None:
    net = Net(Spec.parse("features[features=8] | residual(gen) 3x8 | shift[outputs=8]")).double()
    for part in net.stages[0].layers:
        part.block.down.weight.data.zero_()
        part.block.down.bias.data.zero_()
    x = rows(NODES, 8)
    assert torch.equal(net(x, context={"edges": EDGES}), x)


@pytest.mark.parametrize("text", BLOCKS)
def test_wrong_edges_are_refused(text: str) -> None:
    made, x = layer(text), rows(NODES, 8)
    for edges, what in ((EDGES + 3, "batch holds 9 rows"), (EDGES.T, "of shape"), (EDGES.double(), "float64")):
        with pytest.raises(BadModel, match=what):
            run(made, x, edges=edges)


def test_wrong_settings_and_matrices_are_refused() -> None:
    for text in ("gcn[hops=-1]", "propagate[dropout=1.0]", "gen[aggregate=median]", "graph_attention[heads=3]"):
        with pytest.raises(BadSetting):
            layer(text)
    with pytest.raises(BadModel, match="adjacency of 4 nodes for 9 rows"):
        run(layer("gcn"), rows(NODES, 8), adjacency=normalised(EDGES[:, :0], 4, torch.float64))


# ------------------------------------------------------------------ every graph block under every wiring


@pytest.mark.parametrize("wiring", WIRINGS.names())
def test_every_block_under_every_wiring_reads_its_edges(wiring: str) -> None:
    part = Part(wiring, WIRINGS.get(wiring).tiny)
    for text in BLOCKS:
        torch.manual_seed(0)
        net = Net(Spec.parse(f"vector[features=5] | {part}({text}) 4x8 | pool[outputs=3]")).double().train()
        x = rows(NODES, 5)
        y = net(x, context={"edges": EDGES})
        assert y.shape == (NODES, 3)
        y.square().sum().backward()
        gradients = [p.grad for p in net.stem.parameters() if p.grad is not None]
        assert gradients
        assert all(bool(g.isfinite().all()) for g in gradients)
        with torch.no_grad():
            assert not torch.equal(net(x, context={"edges": EDGES}), net(x, context={"edges": EDGES[:, :2]})), text
            assert net.eval()(x, context={"edges": EDGES}).isfinite().all()


# ------------------------------------------------------------------ nets


def test_parameters_are_the_published_ones() -> None:
    def count(text: str) -> int:
        with torch.device("meta"):
            return sum(p.numel() for p in Net(read_spec(text)).parameters())

    assert count("dagnn_arxiv") == NETS.get("dagnn").published["dagnn_arxiv"] == 43857
    cora = "channels=1433,outputs=7"
    assert count(f"gcn[{cora}]") == 1433 * 16 + 16 + 16 * 7 + 7
    assert count(f"sgc[{cora}]") == count(f"dgmlp[{cora}]") == 1433 * 7 + 7
    assert {count(f"dagnn[{cora},hops={hops}]") for hops in (0, 5, 50)} == {1433 * 64 + 64 + 64 * 7 + 7 + 8}
    assert count(f"gcn[{cora},depth=6,hidden=16]") == count(f"gcn[{cora}]") + 4 * (16 * 16 + 16)
    assert count(f"dgmlp[{cora},depth=2]") == 1433 * 64 + 64 + 2 * 64 + 64 * 7 + 7  # the norm between


def test_gcn_is_the_usual_stack() -> None:
    net = Net(read_spec("gcn[channels=5,outputs=3,hidden=6,depth=3]")).double().eval()
    for parameter in net.parameters():
        nn.init.uniform_(parameter, -0.5, 0.5)
    x, s = rows(NODES, 5), normalised(EDGES, NODES, torch.float64).to_dense()
    first, second, third = net.stages[0].layers
    h = (s @ x @ net.stem.map.weight.T + first.block.bias).relu()
    h = (s @ h @ second.block.map.weight.T + second.block.map.bias).relu()
    assert torch.allclose(net(x, context={"edges": EDGES}), net.head.map(s @ h), atol=1e-12)
    assert third.block.hops == 1


@pytest.mark.parametrize("text", ["dgmlp[hops=0,depth=4]", "dagnn[hops=0]", "sgc[hops=0]"])
def test_no_hops_is_an_mlp(text: str) -> None:
    net = Net(read_spec(text.replace("]", ",channels=5,outputs=3]"))).double().eval()
    x = rows(NODES, 5)
    names = {name for part in net.modules() if isinstance(part, Layer) for name in part.reads}
    matrix = normalised(EDGES, NODES, torch.float64)
    context = {name: value for name, value in {"edges": EDGES, "adjacency": matrix}.items() if name in names}
    assert torch.allclose(net(x, context=context), net(x), atol=1e-12)


def test_wrong_depths_are_refused() -> None:
    for text in ("gcn[depth=1]", "dgmlp[depth=0]", "sgc[hops=-1]"):
        with pytest.raises(BadSetting):
            Net(read_spec(text, {"channels": 5, "outputs": 3}))


def test_memory_and_work_are_linear_in_edges() -> None:
    torch.manual_seed(0)
    nodes = 50
    net = Net(Spec.parse("vector[features=8] | residual(gen) 2x8 | pool[outputs=3]"))
    found = []
    for count in (200, 400, 800):
        edges = torch.randint(nodes, (2, count))
        edges[1] = torch.where(edges[0] == edges[1], (edges[1] + 1) % nodes, edges[1])
        found.append(cost(net, {"x": torch.randn(nodes, 8), "context": {"edges": edges}}))
    for values in ([each.macs for each in found], [each.activation_bytes.training for each in found]):
        assert (values[2] - values[1]) == 2 * (values[1] - values[0]) > 0
    matrix = [normalised(torch.randint(nodes, (2, count)), nodes) for count in (200, 800)]
    sparse = Net(Spec.parse("vector[features=8] | residual(gcn) 2x8 | pool[outputs=3]"))
    both = [cost(sparse, {"x": torch.randn(nodes, 8), "context": {"adjacency": each}}) for each in matrix]
    assert both[0].activation_bytes.training == both[1].activation_bytes.training  # no message is ever held
    assert both[1].macs > both[0].macs


# ------------------------------------------------------------------ data


def tiny_graph(**more: object) -> SimpleNamespace:
    """Thirty nodes in two classes that are told apart by their neighbours only."""
    random = np.random.default_rng(0)
    y = np.repeat([0, 1], 15)
    pairs = [(a, b) for a in range(30) for b in range(30) if a != b and y[a] == y[b] and random.random() < 0.4]
    edges = np.array(pairs).T
    return SimpleNamespace(
        x=random.normal(size=(30, 6)) + 0.4 * y[:, None],
        y=y,
        edge_index=np.concatenate((edges, edges[::-1]), 1),
        **more,
    )


def masks(*counts: int) -> dict[str, np.ndarray]:
    part = np.tile(np.repeat(np.arange(len(counts)), counts), 2)
    return {name: part == i for i, name in enumerate(("train_mask", "val_mask", "test_mask"))}


def test_graphs_are_opened_from_attributes_and_archives(tmp_path: Path) -> None:
    source = tiny_graph(**masks(5, 4, 6))
    data = open_data(source)
    assert [len(part) for part in (data.train, data.valid, data.test)] == [10, 8, 12]
    assert data.signature.channels == 6
    assert data.train.graph is data.test.graph
    assert data.train.graph is not None
    assert torch.equal(data.train.x, data.train.graph.x[data.train.nodes])
    file = tmp_path / "club.npz"
    np.savez(file, **vars(source))
    again = open_data(file)
    assert (again.name, again.fingerprint) == ("club", data.fingerprint)
    assert len(open_data(tiny_graph()).test) == 10  # no masks: cut by seed
    counts = open_data(SimpleNamespace(**{**vars(source), "x": np.arange(180).reshape(30, 6)}))
    assert torch.allclose(counts.train.graph.x.sum(1), torch.ones(30))
    encoder = encoder_from_json(counts.encoder.to_json())
    assert torch.equal(encoder(np.arange(180).reshape(30, 6)), counts.train.graph.x)
    part = data.train.take(4, seed=0)
    assert torch.equal(part.x, data.train.graph.x[part.nodes])


def test_pyg_graphs_are_opened() -> None:
    pyg = pytest.importorskip("torch_geometric.data")
    source = tiny_graph(**masks(5, 4, 6))
    made = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in vars(source).items()}
    assert open_data(pyg.Data(**made)).fingerprint == open_data(source).fingerprint


def test_bad_graphs_are_said() -> None:
    good = tiny_graph(**masks(5, 4, 6))
    bad = {
        "joins nodes": {"edge_index": good.edge_index + 20},
        "give integers": {"edge_index": good.edge_index.astype(float)},
        "one target a node": {"y": good.y[:-1]},
        "holds no features": {"x": good.x[:, :0]},
        "put each node in one": {"val_mask": good.train_mask},
        "some true": {"test_mask": np.zeros(30, dtype=bool)},
    }
    for what, change in bad.items():
        with pytest.raises(BadData, match=what):
            open_data(SimpleNamespace(**{**vars(good), **change}))


def test_cora_is_not_at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOAL_DATA", str(tmp_path))
    with pytest.raises(BadData, match=r"cora\.npz is not at hand"):
        open_data("cora")


# ------------------------------------------------------------------ training

QUICK = TrainingRecipe(lr=0.05, epochs=40, batch=5, schedule="constant", warmup=0.0)


@pytest.fixture(scope="module")
def club() -> Dataset:
    return open_data(tiny_graph(**masks(5, 4, 6)))


@pytest.mark.parametrize("spec", ["residual(gcn) 2x8", "gcn[dropout=0.0]", "sgc", "deepergcn[depth=2,dropout=0.0]"])
def test_nets_learn_on_a_graph(club: Dataset, spec: str) -> None:
    run = train(spec, club, QUICK, seed=0)
    assert run.test.quality.value >= 0.75
    again = evaluate(run.net, club.test, club.signature.task)
    assert again.quality.value == run.test.quality.value


@pytest.mark.parametrize("block", ["gcn", "sage", "graph_attention", "gen", "gated_hops[hops=2]"])
def test_half_precision_trains(club: Dataset, block: str) -> None:
    net = build(f"residual({block}) 1x8", like=club)
    steps = list(fit(net, club, replace(QUICK, epochs=2, precision="bfloat16")))
    assert all(np.isfinite(step.loss) for step in steps)


def test_a_net_is_asked_for_nodes_with_the_whole_graph(club: Dataset) -> None:
    net = build("residual(gcn) 2x8", like=club).eval()
    model, split = asked(net, club.test, CPU)
    assert isinstance(model, OnGraph)
    whole = net(club.test.graph.x, context={"edges": club.test.graph.edges})
    assert torch.allclose(model(split.x), whole[club.test.nodes], atol=1e-6)
    assert asked(build("residual(mlp) 1x8", like=club), club.test, CPU)[1] is club.test


@pytest.mark.parametrize("spec", ["sgc[hops=3]", "dgmlp[hops=5,depth=3,dropout=0.0]", "dgmlp[hops=4]"])
def test_what_is_propagated_beforehand_gives_the_same(club: Dataset, spec: str) -> None:
    net, graph = build(spec, like=club).eval(), club.test.graph
    before = propagated_beforehand(net, graph)
    assert before is not None
    assert propagated_beforehand(build(spec, like=club, seed=1), graph) is before  # once for all nets of that kind
    model, split = asked(net, club.test, CPU)
    assert model is net
    whole = net(graph.x, context={"edges": graph.edges})[club.test.nodes]
    assert torch.allclose(model(split.x), whole, atol=1e-6)


@pytest.mark.parametrize(
    "spec",
    [
        "gcn",  # weights come first
        "features[features=6] | residual(propagate norm=none) 1x6 | pool[outputs=2]",  # twice the row without edges
        "features[features=6] | plain(propagate[act=tanh] norm=none) 1x6 | pool[outputs=2]",
        "features[features=6] | plain(propagate norm=none) 1x6 -widen- plain(gcn) 1x8 | pool[outputs=2]",
    ],
)
def test_what_is_not_the_same_is_not_propagated_beforehand(club: Dataset, spec: str) -> None:
    assert propagated_beforehand(build(spec, like=club), club.train.graph) is None


def test_scores_before_training_do_not_spoil_it(club: Dataset) -> None:
    data = open_data(tiny_graph(**masks(5, 4, 6)))
    net = build("residual(gcn) 1x8", like=data)
    evaluate(net, data.valid, data.signature.task)  # makes the matrix, in inference
    assert len(list(fit(net, data, TrainingRecipe(epochs=1)))) == 1
    assert data.train.graph is not club.train.graph


def test_an_mlp_learns_a_graph_net_s_answers(club: Dataset) -> None:
    task = TASKS.make(club.signature.task)
    teacher = train("residual(gcn) 1x8", club, QUICK, seed=0).net
    student = build("residual(mlp) 1x16", like=club)
    graph, (x, y) = club.train.graph, club.train.batch(slice(None))
    objective = GraphFree(task, teacher, graph)
    wanted = teacher(graph.x, context={"edges": graph.edges})
    assert torch.allclose(objective.answers, wanted, atol=1e-6)
    by_hand = task.distil(student(graph.x), wanted, 1.0)
    assert torch.allclose(objective(student, x, y), by_hand, atol=1e-6)
    alone = GraphFree(task, teacher, graph, labels=1.0)
    assert torch.equal(alone(student, x, y), task.loss(student(x), y))
    run = train(student, club, QUICK, seed=0, objective=objective)
    answers = run.net(graph.x).argmax(-1)
    assert float((answers == wanted.argmax(-1)).float().mean()) > 0.9
    with pytest.raises(BadModel, match="reads edges"):
        objective(teacher, x, y)
    with pytest.raises(BadSetting, match="share"):
        GraphFree(task, teacher, graph, labels=2.0)


def test_the_command_line_trains_on_a_graph(tmp_path: Path) -> None:
    np.savez(tmp_path / "club.npz", **vars(tiny_graph(**masks(5, 4, 6))))
    order = Order(str(tmp_path / "club.npz"), spec="residual(gcn) 2x8", epochs=2, baselines=False)
    found = trained(Talk(as_json=False, quiet=True), order)
    assert found.report["data"]["sizes"]["train"] == 10
    assert found.cost.uncounted == ()


def test_a_graph_is_read_by_a_graph_net_where_none_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "club.npz", **vars(tiny_graph(**masks(5, 4, 6))))
    spec = build(None, like=open_data(tmp_path / "club.npz")).spec
    assert "propagate" in {layer.block.name for stage in spec.stages for layer in stage.layers}


def test_cora(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOAL_DATA", str(shared_data))
    data = open_data("cora")
    assert [len(part) for part in (data.train, data.valid, data.test)] == [140, 500, 1000]
    recipe = TrainingRecipe(lr=0.2, weight_decay=0.0, epochs=10, batch=140, schedule="constant", warmup=0.0)
    assert train("sgc", "cora", recipe).test.quality.value > 0.7
