"""Wirings that own joins, gates or memory: the identities of their papers, exactly, beyond what the battery asks."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from shoal.core.base import Branch, Wiring
from shoal.core.errors import BadSetting, Refused, UnknownName
from shoal.core.part import Part
from shoal.core.spec import Spec
from shoal.costing import cost
from shoal.kinds import WIRINGS
from shoal.net import Net
from shoal.testing._costs import require_costed
from shoal.testing._exports import check_onnx, check_pt2
from shoal.testing._probes import measured_reads, probed
from shoal.testing._samples import OFFERS, PLACES, inputs, shake

DIM = 8


def make(text: str, depth: int, dim: int = DIM) -> Wiring:
    """A float64 wiring whose weights have left their initial values."""
    torch.manual_seed(0)
    wiring: Wiring = WIRINGS.make(Part.parse(text), dim, depth, dim=dim, offers=OFFERS).double()
    shake(wiring)
    return wiring


def branches(wiring: Wiring, seed: int = 1) -> list[nn.Module]:
    """Layers with weights, as wide as they need to be."""
    torch.manual_seed(seed)
    return [nn.Sequential(nn.Linear(*ends, dtype=torch.float64), nn.Tanh()) for ends in wiring.ends()]


def net_of(text: str, seed: int = 0) -> Net:
    torch.manual_seed(seed)
    return Net(Spec.parse(text)).double()


def residual(x: Tensor, layers: Sequence[Branch]) -> Tensor:
    for layer in layers:
        x = x + layer(x)
    return x


def close(found: Tensor, wanted: Tensor, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)


def zero(x: Tensor) -> Tensor:
    return torch.zeros_like(x)


# ---- streams


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_streams_say_what_is_measured_at_any_resolution(data: st.DataObject) -> None:
    depth, count = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 4))
    part = Part(
        "streams",
        {
            "count": count,
            "stride": data.draw(st.integers(1, 3)),
            "out": data.draw(st.sampled_from(["fine", "coarse"])),
            "plain": data.draw(st.booleans()),
            "widths": tuple(data.draw(st.integers(1, 9)) for _ in range(min(count, depth))),
        },
    )
    wiring: Wiring = WIRINGS.make(part, DIM, depth, dim=DIM, offers=OFFERS).double()
    assert wiring.reads() == measured_reads(wiring)
    for places, sizes in PLACES.items():
        y, calls, _ = probed(wiring, inputs(places))
        assert [layer for layer, _ in calls] == list(range(depth))
        shrunk = part.settings["stride"] ** (len(wiring.widths) - 1) if part.settings["out"] == "coarse" else 1
        assert y.shape == (2, *(-(-size // shrunk) for size in sizes), wiring.out())


def test_streams_are_divided_as_evenly_as_can_be() -> None:
    assert make("streams[count=3]", 14).depths == [4, 5, 5]  # ParNet's
    assert make("streams[count=3]", 2).depths == [1, 1]
    assert make("streams[depths=[1,4]]", 5).depths == [1, 4]
    assert max(make("streams[count=4]", 12).depths) == 3


@pytest.mark.parametrize("out", ["fine", "coarse"])
@pytest.mark.parametrize("places", [0, 1, 2])
def test_streams_run_in_any_order(out: str, places: int) -> None:
    wiring = make(f"streams[count=3,widths=[8,5,6],out={out}]", 7)
    layers, x = branches(wiring), inputs(places)
    seen = [x, wiring.joins[0](x)]
    seen.append(wiring.joins[1](seen[1]))
    runs = (layers[:2], layers[2:4], layers[4:])
    y: list[Tensor] = [x] * 3
    for stream in (2, 0, 1):
        y[stream] = residual(seen[stream], runs[stream])
    if out == "coarse":
        wanted = y[2] + wiring.maps[1](y[1] + wiring.maps[0](y[0]))
    else:
        wanted = y[2]
        for stream in (1, 0):
            wanted = wiring.maps[stream](wanted)
            for axis in range(1, places + 1):
                wanted = wanted.repeat_interleave(2, dim=axis).narrow(axis, 0, y[stream].shape[axis])
            wanted = y[stream] + wanted
    assert torch.equal(wiring(x, layers), wanted)


def test_a_stream_sees_the_mean_of_its_places() -> None:
    wiring = make("streams[count=2,out=coarse]", 2)
    x = inputs(2)
    _, calls, _ = probed(wiring, x)
    assert [tuple(seen.shape[1:-1]) for _, seen in calls] == [(5, 4), (3, 2)]
    close(calls[1][1][:, 0, 0], wiring.joins[0].map(x[:, :2, :2].mean(dim=(1, 2))))


def test_one_stream_is_the_residual_or_the_plain_net() -> None:
    x = inputs(1)
    for text, wanted in (("streams[count=1]", "residual"), ("streams[count=1,plain=true]", "plain")):
        layers = branches(make(text, 3))
        assert torch.equal(make(text, 3)(x, layers), make(wanted, 3)(x, layers))


IMAGES = "convolution[channels=2] | {}(conv) 3x8 | pool[outputs=3]"


@pytest.mark.parametrize(
    "text", ["streams", "streams[out=coarse]", "streams[count=2,widths=[8,6],join=convolution,out=coarse]"]
)
def test_streams_of_images_are_costed(text: str) -> None:
    net = net_of(IMAGES.format(text)).float().eval()
    x = torch.randn(2, 5, 4, 2)
    require_costed(net, x)
    assert torch.isfinite(net(x)).all()


def test_streams_of_images_are_exported() -> None:
    net, x = net_of(IMAGES.format("streams")).float().eval(), torch.randn(2, 5, 4, 2)
    check_pt2(net, x)
    check_onnx(net, x)


@pytest.mark.parametrize(
    "text",
    [
        "streams[count=0]",
        "streams[stride=0]",
        "streams[depths=[1,1]]",
        "streams[depths=[0,3]]",
        "streams[widths=[8,8]]",
        "streams[widths=[8,8,0]]",
        "cross_stage[share=1.0]",
        "cross_stage[share=-0.1]",
        "reversible[columns=0]",
        "reversible[least=0.0]",
        "checkpointed[every=-1]",
        "gated[size=0]",
        "gated[cost=-1.0]",
        "routed[cost=-1.0]",
        "routed[every=0]",
        "mixture_of_depths[capacity=0.0]",
        "mixture_of_depths[capacity=1.5]",
        "composite[backbones=0]",
        "iterative[act=nothing]",
    ],
)
def test_settings_out_of_range_are_refused(text: str) -> None:
    with pytest.raises(BadSetting, match=text.partition("[")[0] + "|activation") as caught:
        make(text, 3)
    assert "\n" not in str(caught.value)


def test_a_join_that_there_is_not_is_named() -> None:
    with pytest.raises(UnknownName, match="downsample"):
        make("streams[join=downsampel]", 3)


def test_the_last_layer_of_a_stream_cannot_go() -> None:
    wiring = make("streams[depths=[1,2]]", 3)
    assert wiring.without(2)["depths"] == (1, 1)
    with pytest.raises(Refused, match="layer 0 is the only one of stream 0"):
        wiring.without(0)


# ---- cross stage


def test_no_share_is_the_stage_and_its_transitions() -> None:
    wiring = make("cross_stage[share=0.0]", 3)
    layers, x = branches(wiring), inputs(1)
    assert torch.equal(wiring(x, layers), wiring.behind(wiring.after(residual(x, layers))))


def test_what_goes_past_never_reaches_the_stage() -> None:
    wiring = make("cross_stage[share=0.4]", 3)
    assert wiring.past == 3
    x = inputs(1).requires_grad_()
    _, calls, _ = probed(wiring, x)
    for _, seen in calls:
        (slope,) = torch.autograd.grad(seen.sum(), x, retain_graph=True, allow_unused=True)
        assert not slope[..., :3].any()
        assert slope[..., 3:].any()


def test_fusion_says_which_transitions_there_are() -> None:
    layers, x = branches(make("cross_stage", 2)), inputs(0)
    past, through = x[..., :4], residual(x[..., 4:], layers)
    last, first, both = (make(f"cross_stage[fusion={fusion}]", 2) for fusion in ("last", "first", "both"))
    assert torch.equal(last(x, layers), torch.cat((past, last.after(through)), dim=-1))
    assert torch.equal(first(x, layers), first.behind(torch.cat((past, through), dim=-1)))
    assert torch.equal(both(x, layers), both.behind(torch.cat((past, both.after(through)), dim=-1)))
    assert (last.behind, first.after) == (None, None)


def test_half_the_channels_are_a_quarter_of_a_convolutions_work() -> None:
    x = torch.randn(1, 8, 8, 2)
    macs = {}
    for wiring in ("residual", "cross_stage"):
        net = net_of(f"convolution[channels=2] | {wiring}(conv) 6x32 | pool[outputs=3]").float()
        macs[wiring] = sum(call.macs for call in cost(net, x, training=False).calls if ".layers." in call.path)
    assert macs["cross_stage"] / macs["residual"] == pytest.approx(0.25, rel=0.02)


# ---- aggregation


def test_iterative_by_hand() -> None:
    wiring = make("iterative", 3)
    layers, x = branches(wiring), inputs(1)
    one = x + layers[0](x)
    two = one + layers[1](one)
    three = two + layers[2](two)
    wanted = wiring.nodes[1](wiring.nodes[0](one, two), three)
    assert torch.equal(wiring(x, layers), wanted)
    node = wiring.nodes[0]
    close(node(one, two), node.norm(torch.cat((one, two), -1) @ node.map.matrix().T).relu())
    node.residual = True
    close(node(one, two), (node.norm(torch.cat((one, two), -1) @ node.map.matrix().T) + two).relu())


def test_a_tree_of_height_three_by_hand() -> None:
    wiring = make("hierarchical", 8)
    layers, x = branches(wiring), inputs(1)
    left, nodes = iter(layers), iter(wiring.nodes)

    def pair(y: Tensor) -> tuple[Tensor, Tensor]:
        a = y + next(left)(y)
        return a, a + next(left)(a)

    under_two = next(nodes)(*pair(x))  # T_2(x): its T_1, then two layers
    two = next(nodes)(under_two, *pair(under_two))
    one = next(nodes)(*pair(two))
    wanted = next(nodes)(two, one, *pair(one))
    assert next(left, None) is next(nodes, None) is None
    assert torch.equal(wiring(x, layers), wanted)


@pytest.mark.parametrize("height", [1, 2, 3, 4])
def test_a_tree_holds_two_to_its_height(height: int) -> None:
    wiring = make("hierarchical", 2**height)
    heard: list[Tensor] = []
    for node in wiring.nodes:
        node.register_forward_pre_hook(lambda _, given: heard.extend(given))
    layers = branches(wiring)
    given_to: list[Tensor] = []
    for layer in layers:
        layer.register_forward_pre_hook(lambda _, given: given_to.append(given[0]))
    out = wiring(inputs(1), layers)
    assert len(given_to) == 2**height
    for x, layer in zip(list(given_to), layers, strict=True):  # every block's output goes to a node
        assert any(torch.equal(x + layer(x), each) for each in heard)
    assert len(wiring.nodes) == 2 ** (height - 1)
    roots = {1: [1], 2: [1, 2], 3: [1, 2, 1, 3], 4: [1, 2, 1, 3, 1, 2, 1, 4]}[height]
    assert [node.map.inputs // DIM - 1 for node in wiring.nodes] == roots
    assert sum(node.map.weight.numel() for node in wiring.nodes) == sum((root + 1) * DIM * DIM for root in roots)
    assert out.shape == inputs(1).shape


def test_any_depth_is_cut_greedily() -> None:
    assert make("hierarchical", 11).heights == [3, 1, 0]
    layers, x = branches(make("hierarchical", 1)), inputs(0)
    assert torch.equal(make("hierarchical", 1)(x, layers), residual(x, layers))
    assert torch.equal(make("iterative", 1)(x, layers), residual(x, layers))
    layers = branches(make("hierarchical", 2))
    assert torch.equal(make("hierarchical", 2)(x, layers), make("iterative", 2)(x, layers))


# ---- reversible columns


@settings(max_examples=30, deadline=None)
@given(depth=st.integers(1, 12), columns=st.integers(1, 12), places=st.integers(0, 2))
def test_the_way_back_is_exact(depth: int, columns: int, places: int) -> None:
    wiring = make(f"reversible[columns={columns}]", depth)
    layers, x = branches(wiring), inputs(places)
    levels = wiring.run(x, layers)
    assert len(levels) == wiring.levels
    assert torch.equal(levels[-1], wiring(x, layers))
    for found in wiring.inverse(x, levels, layers):
        close(found, x, 1e-10)
    assert wiring.reads() == measured_reads(wiring)


def test_layers_that_give_zero_leave_the_product_of_the_gammas() -> None:
    wiring = make("reversible[columns=3]", 6)
    x = inputs(1)
    for level, found in enumerate(wiring.run(x, [zero] * 6)):
        close(found, wiring.gamma[level::2].prod(dim=0) * x)


def test_gamma_stays_away_from_zero_and_can_come_back() -> None:
    wiring = make("reversible[columns=2,least=0.25]", 2)
    with torch.no_grad():
        wiring.gamma.copy_(torch.tensor([[0.0, -0.1, 0.1, -0.5] * 2] * 2))
    kept = wiring.run(torch.ones(1, DIM, dtype=torch.float64), [zero, zero])[-1]
    close(kept, torch.tensor([[0.25, -0.25, 0.25, -0.5] * 2], dtype=torch.float64) ** 2)
    kept.sum().backward()
    assert wiring.gamma.grad.ne(0).all()


def gradients(net: Net, x: Tensor, weight: Tensor) -> dict[str, Tensor]:
    names, parameters = zip(*net.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad((net(x) * weight).sum(), parameters), strict=True))


def spec_of(wiring: str) -> str:
    return f"convolution[channels=2] | {wiring}(conv*2, mlp*2, bottleneck[hidden=4]*2) 6x8 | pool[outputs=3]"


@pytest.mark.parametrize(
    ("thrifty", "plain"),
    [
        ("reversible[columns=3]", "reversible[columns=3,recompute=false]"),
        ("reversible[columns=4]", "reversible[columns=4,recompute=false]"),
        ("checkpointed[every=4]", "residual"),
        ("checkpointed", "residual"),
    ],
)
def test_recomputing_gives_the_same_gradients_and_batch_statistics(thrifty: str, plain: str) -> None:
    one, two = net_of(spec_of(thrifty)), net_of(spec_of(plain))
    shake(one)
    two.load_state_dict(one.state_dict())
    x = torch.randn(3, 5, 4, 2, dtype=torch.float64)
    weight = torch.randn(3, 3, dtype=torch.float64)
    found, wanted = gradients(one, x, weight), gradients(two, x, weight)
    for name in wanted:
        close(found[name], wanted[name], 1e-10)
    moved = one.state_dict()
    for name, value in two.state_dict().items():
        assert torch.equal(moved[name], value), name
    assert torch.equal(one.eval()(x), two.eval()(x))


def dropping(wiring: Wiring) -> list[nn.Module]:
    torch.manual_seed(2)
    return [nn.Sequential(nn.Linear(DIM, DIM, dtype=torch.float64), nn.Dropout(0.4)) for _ in range(wiring.depth)]


@pytest.mark.parametrize(
    ("thrifty", "plain"),
    [("reversible[columns=3]", "reversible[columns=3,recompute=false]"), ("checkpointed", "residual")],
)
def test_the_second_run_drops_what_the_first_dropped(thrifty: str, plain: str) -> None:
    x, slopes, states = inputs(1).requires_grad_(), [], []
    for text in (thrifty, plain):
        wiring = make(text, 6)
        layers = dropping(wiring)
        torch.manual_seed(3)
        y = wiring(x, layers)
        torch.rand(5)
        slopes.append(torch.autograd.grad(y.square().sum(), [x, *layers[0].parameters()]))
        states.append(torch.get_rng_state())
    for found, wanted in zip(*slopes, strict=True):
        close(found, wanted, 1e-10)
    assert torch.equal(*states)  # backward leaves the random numbers alone


def test_a_graph_gone_through_twice_or_in_part() -> None:
    wiring, plain = make("reversible[columns=3]", 6), make("reversible[columns=3,recompute=false]", 6)
    layers, x = branches(wiring), inputs(1).requires_grad_()
    for text in (wiring, plain):
        text.load_state_dict(wiring.state_dict())
    y, wanted = wiring(x, layers).square().sum(), plain(x, layers).square().sum()
    for _ in range(2):
        for of in ([x], [layers[3][0].weight], [wiring.gamma, x]):
            other = [plain.gamma if each is wiring.gamma else each for each in of]
            for a, b in zip(
                torch.autograd.grad(y, of, retain_graph=True),
                torch.autograd.grad(wanted, other, retain_graph=True),
                strict=True,
            ):
                close(a, b, 1e-10)


def test_frozen_layers_and_an_input_without_gradient() -> None:
    wiring = make("reversible[columns=2]", 4)
    layers, x = branches(wiring), inputs(0)
    for layer in layers[:3]:
        layer.requires_grad_(False)
    plain = make("reversible[columns=2,recompute=false]", 4)
    plain.load_state_dict(wiring.state_dict())
    found = torch.autograd.grad(wiring(x, layers).square().sum(), [wiring.gamma, layers[3][0].weight])
    wanted = torch.autograd.grad(plain(x, layers).square().sum(), [plain.gamma, layers[3][0].weight])
    for a, b in zip(found, wanted, strict=True):
        close(a, b, 1e-10)


def test_lower_precision_is_that_of_the_first_run() -> None:
    slopes = []
    for recompute in ("true", "false"):
        wiring = make(f"reversible[columns=3,recompute={recompute}]", 6).float()
        layers = [layer.float() for layer in branches(wiring)]
        torch.manual_seed(4)
        x = torch.randn(4, DIM)
        with torch.autocast("cpu", torch.bfloat16):
            loss = wiring(x, layers).square().sum()
        slopes.append(torch.autograd.grad(loss, [layers[0][0].weight, wiring.gamma]))
    for found, wanted in zip(*slopes, strict=True):
        torch.testing.assert_close(found, wanted, rtol=0.05, atol=0.05 * float(wanted.abs().max()))


def training_bytes(wiring: str, depth: int) -> int:
    net = net_of(f"vector[features=4] | {wiring}(mlp) {depth}x32 | pool[outputs=2]").float()
    peak = cost(net, torch.randn(64, 4)).activation_bytes.training
    assert peak is not None
    return peak


def test_memory_is_constant_in_columns() -> None:
    few, many = (training_bytes(f"reversible[columns={count}]", 4 * count) for count in (2, 16))
    kept, all_kept = (training_bytes(f"reversible[columns={count},recompute=false]", 4 * count) for count in (2, 16))
    assert many < 1.05 * few
    assert all_kept > 6 * kept


def test_checkpoints_keep_a_quarter_at_most() -> None:
    assert training_bytes("checkpointed", 64) <= 0.25 * training_bytes("residual", 64)


# ---- gated


def force(wiring: Any, logit: float) -> None:
    """Every gate's or router's answer, whatever it sees."""
    gates = getattr(wiring, "gates", None)
    answers = wiring.routers if gates is None else gates.answers if hasattr(gates, "answers") else [gates.answer]
    with torch.no_grad():
        for answer in answers:
            answer.weight.zero_()
            answer.bias.fill_(logit)


GATED = ["gated", "gated[gate=recurrent]", "routed"]


@pytest.mark.parametrize("text", GATED)
@pytest.mark.parametrize("training", [True, False])
def test_open_is_residual_and_shut_is_nothing(text: str, training: bool) -> None:
    wiring = make(text, 4).train(training)
    layers, x = branches(wiring), inputs(2)
    force(wiring, float("inf"))
    assert torch.equal(wiring(x, layers), residual(x, layers))
    force(wiring, float("-inf"))
    assert torch.equal(wiring(x, layers), x)


@pytest.mark.parametrize("text", GATED)
def test_all_are_open_at_first(text: str) -> None:
    torch.manual_seed(0)
    wiring: Wiring = WIRINGS.make(Part.parse(text), DIM, 5, dim=DIM, offers=OFFERS).double()
    layers, x = branches(wiring), 10 * inputs(1)
    assert torch.equal(wiring(x, layers), residual(x, layers))


class Counting:
    """A layer that counts the rows that went through it."""

    def __init__(self, layer: Branch) -> None:
        self.layer, self.rows = layer, 0

    def __call__(self, x: Tensor) -> Tensor:
        self.rows += len(x)
        return self.layer(x)


def deciding(text: str) -> tuple[Any, Tensor]:
    """A wiring whose gates are open for some of many rows."""
    wiring = make(text, 4)
    torch.manual_seed(5)
    with torch.no_grad():
        for name, parameter in wiring.named_parameters():
            if parameter.numel() == 1:
                parameter.fill_(0.05)
            elif "answer" in name or "router" in name:
                parameter.copy_(torch.randn_like(parameter))
    return wiring, torch.randn(40, 3, DIM, dtype=torch.float64)


@pytest.mark.parametrize("text", GATED)
def test_exactly_the_open_rows_are_computed(text: str) -> None:
    wiring, x = deciding(text)
    layers = branches(wiring)
    multiplied = wiring.train()(x, layers)
    share = float(wiring.share.mean.detach())
    assert 0.1 < share < 0.9
    counted = [Counting(layer) for layer in layers]
    close(wiring.eval()(x, counted), multiplied, 1e-10)
    assert sum(each.rows for each in counted) == round(share * len(layers) * len(x))
    alone = torch.cat([wiring(row, layers) for row in x.split(1)])
    close(alone, multiplied, 1e-10)


def test_gates_that_differ_are_exported() -> None:
    text = "gated[size=4,gate=recurrent]"
    net = net_of(f"vector[features=4] | {text}(mlp[hidden=6]) 3x8 | pool[outputs=2]").float().eval()
    wiring = net.stages[0].wiring
    with torch.no_grad():
        for name, parameter in wiring.named_parameters():
            if "answer" in name or "router" in name:
                parameter.copy_(torch.randn_like(parameter) * (parameter.numel() > 1))
    x = 3 * torch.randn(12, 4)
    wiring.train()(net.stem(x), list(net.stages[0].layers))
    assert 0.05 < float(wiring.share.mean.detach()) < 0.95
    net.eval()
    check_pt2(net, x)


def test_backward_takes_the_slope_of_the_sigmoid() -> None:
    wiring = make("routed", 1)
    layers, x = branches(wiring), inputs(0)
    for logit in (0.7, -0.7):
        force(wiring, logit)
        wiring.zero_grad()
        wiring(x, layers).sum().backward()
        soft = torch.tensor(logit, dtype=torch.float64).sigmoid()
        wanted = layers[0](x).detach().sum() * soft * (1 - soft)
        close(wiring.routers[0].bias.grad, wanted[None])


@pytest.mark.parametrize("text", ["gated[cost=0.5]", "gated[gate=recurrent,cost=0.5]", "routed[cost=0.5]"])
def test_the_open_share_is_paid_for(text: str) -> None:
    wiring, x = deciding(text)
    layers = [layer.requires_grad_(False) for layer in branches(wiring)]
    assert wiring.auxiliary_loss() is None
    wiring.train()(x, layers)
    paid = wiring.auxiliary_loss()
    assert float(paid.detach()) == pytest.approx(0.5 * float(wiring.share.mean.detach()))
    copied = copy.deepcopy(wiring)
    assert copied.auxiliary_loss() is None
    paid.backward()
    optimizer = torch.optim.SGD(wiring.parameters(), lr=1.0)
    optimizer.step()
    for _ in range(50):
        optimizer.zero_grad()
        wiring(x, layers)
        again = wiring.auxiliary_loss()
        again.backward()
        optimizer.step()
    assert float(again.detach()) < 0.5 * float(paid.detach())
    wiring.eval()(x, layers)
    assert wiring.auxiliary_loss() is None


def test_a_recurrent_gate_is_one_for_all_layers_and_remembers() -> None:
    counts = {sum(p.numel() for p in make("gated[gate=recurrent]", depth).parameters()) for depth in (2, 9)}
    assert counts == {4 * 10 * (DIM + 1) + 4 * 10 * 10 + 10 + 1}
    wiring = make("gated[gate=recurrent]", 3)
    x = inputs(0)
    first, memory = wiring.gates(0, x, wiring.gates.begin(x))
    second, _ = wiring.gates(1, x, memory)
    cell = nn.LSTMCell(DIM, 10, dtype=torch.float64)  # torch's order: take, keep, new, say
    order = torch.cat([torch.arange(10) + 10 * k for k in (0, 1, 3, 2)])
    with torch.no_grad():
        cell.weight_ih.copy_(wiring.gates.see.matrix()[order])
        cell.bias_ih.copy_(wiring.gates.see.bias[order])
        cell.weight_hh.copy_(wiring.gates.recall.matrix()[order])
        cell.bias_hh.zero_()
    once = cell(x)
    close(first, wiring.gates.answer(once[0]).squeeze(-1))
    close(second, wiring.gates.answer(cell(x, once)[0]).squeeze(-1))


def test_router_tuning_moves_routers_alone() -> None:
    net = net_of("vector[features=4] | routed(mlp) 3x8 | pool[outputs=2]")
    net.requires_grad_(False)
    net.stages[0].wiring.requires_grad_(True)
    shake(net.stages[0].wiring)
    (net(inputs(0, 4)).square().sum() + net.stages[0].wiring.auxiliary_loss()).backward()
    moved = {name for name, parameter in net.named_parameters() if parameter.grad is not None}
    assert moved == {f"stages.0.wiring.routers.{i}.{end}" for i in range(3) for end in ("weight", "bias")}


def test_shut_routers_leave_the_model_without_attention() -> None:
    stem, head = "convolution[channels=2,kernel=[3]]", "pool[outputs=2]"
    routed = net_of(f"{stem} | routed[every=2](attention[heads=2], mlp, attention[heads=2], mlp) 4x8 | {head}")
    without = net_of(f"{stem} | residual(mlp) 2x8 | {head}")
    force(routed.stages[0].wiring, float("-inf"))
    assert len(routed.stages[0].wiring.routers) == 2
    weights = {name: w for name, w in routed.state_dict().items() if not any(f"layers.{i}." in name for i in (0, 2))}
    renamed = {
        name.replace("layers.1.", "layers.0.").replace("layers.3.", "layers.1."): w for name, w in weights.items()
    }
    without.load_state_dict({name: w for name, w in renamed.items() if ".wiring." not in name})
    x = torch.randn(3, 6, 2, dtype=torch.float64)
    for training in (True, False):
        assert torch.equal(routed.train(training)(x), without.train(training)(x))


# ---- mixture of depths


@pytest.mark.parametrize("places", [0, 1, 2])
def test_full_capacity_and_full_scores_are_the_residual_net(places: int) -> None:
    wiring = make("mixture_of_depths[capacity=1.0]", 3)
    layers, x = branches(wiring), inputs(places)
    force(wiring, float("inf"))
    assert torch.equal(wiring(x, layers), residual(x, layers))
    force(wiring, float("-inf"))
    assert torch.equal(wiring(x, layers), x)


@pytest.mark.parametrize("places", [1, 2])
def test_only_the_chosen_places_move(places: int) -> None:
    wiring = make("mixture_of_depths[capacity=0.5]", 1)
    layer, x = branches(wiring)[0], inputs(places)
    seen: list[Tensor] = []
    y = wiring(x, [lambda row: (seen.append(row), layer(row))[1]])
    row, out = x.flatten(1, -2), y.flatten(1, -2)
    half = row.shape[1] // 2
    assert seen[0].shape == (2, half, DIM)
    score = wiring.routers[0](nn.functional.layer_norm(row, (DIM,))).sigmoid().squeeze(-1)
    for b in range(2):
        largest = set(score[b].argsort(descending=True)[:half].tolist())
        for t in range(row.shape[1]):
            if t in largest:
                close(out[b, t], row[b, t] + score[b, t] * layer(row[b, t]))
            else:
                assert torch.equal(out[b, t], row[b, t])
        order = sorted(largest)
        assert torch.equal(seen[0][b], row[b, order])


@pytest.mark.parametrize("wiring", GATED)
def test_a_closed_node_is_still_heard_by_its_neighbours(wiring: str) -> None:
    """Edges belong to all rows: in eval the open ones alone would be given edges of others."""
    torch.manual_seed(0)
    net = net_of(f"nodes[features=4] | {wiring}(gcn) 3x8 | pool[outputs=2]")
    x, edges = torch.randn(12, 4, dtype=torch.float64), torch.randint(0, 12, (2, 40))
    shares: list[float] = []
    inner = net.stages[0].wiring
    for weight in inner.parameters():
        nn.init.normal_(weight)  # they begin open

    def note(gates: list[Tensor], training: bool) -> None:
        shares.extend(float(gate.detach().mean()) for gate in gates)

    inner.share.note = note
    evaluated = net.eval()(x, context={"edges": edges})
    assert any(0 < share < 1 for share in shares), shares
    torch.testing.assert_close(evaluated, net.train()(x, context={"edges": edges}))


def test_places_are_gated_one_by_one_and_costed() -> None:
    net = net_of("convolution[channels=2,kernel=[3]] | mixture_of_depths(attention[heads=2]) 1x8 | pool[outputs=2]")
    x = torch.randn(2, 9, 2)
    require_costed(net.float(), x)
    check_pt2(net.eval(), x)
    check_onnx(net, x)
    full = net_of("convolution[channels=2,kernel=[3]] | residual(attention[heads=2]) 1x8 | pool[outputs=2]").float()
    layers = [
        sum(call.macs for call in cost(each, x, training=False).calls if ".layers." in call.path)
        for each in (net, full)
    ]
    assert layers[0] < 0.6 * layers[1]


# ---- composite


def test_composite_by_hand() -> None:
    wiring = make("composite[backbones=2]", 4)
    layers, x = branches(wiring), inputs(1)
    one = x + layers[0](x)
    two = one + layers[1](one)
    y = x + wiring.joins[0](one)
    y = y + layers[2](y)
    y = y + wiring.joins[1](two)
    assert torch.equal(wiring(x, layers), y + layers[3](y))
    layers = branches(make("composite[backbones=1]", 3))
    assert torch.equal(make("composite[backbones=1]", 3)(x, layers), residual(x, layers))
    assert make("composite[backbones=3]", 8).depths == [2, 3, 3]
