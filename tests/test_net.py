"""Nets: the product of methods, seeing, ties, context, the shallow-again equalities, stages, strict loading."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import cycle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from shoal.core.base import Linear, Wiring
from shoal.core.errors import BadModel, BadSetting, BadSpec
from shoal.core.part import Part
from shoal.core.spec import LayerSpec, Spec, Stage
from shoal.kinds import BLOCKS, LINEARS, NORMS, STEMS, WIRINGS
from shoal.net import Layer, Net, Place, empty, load_net
from shoal.testing._probes import measured_reads
from shoal.testing._samples import OFFERS

STEM = {0: "vector[features=5]", 1: "convolution[channels=2,kernel=[3]]", 2: "convolution[channels=2]"}
DATA = {0: (3, 5), 1: (3, 6, 2), 2: (3, 5, 4, 2)}


def tiny(name: str, kind: str = "block") -> Part:
    kinds = {"block": BLOCKS, "linear": LINEARS, "norm": NORMS, "wiring": WIRINGS, "stem": STEMS}
    return Part(name, kinds[kind].get(name).tiny)


def make(text: str, *, shaken: bool = True, seed: int = 0) -> Net:
    """A float64 net whose weights have all left their initial values."""
    torch.manual_seed(seed)
    net = Net(Spec.parse(text)).double()
    if shaken:
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(torch.empty_like(parameter).uniform_(-0.2, 0.2))
    return net


def sample(places: int, seed: int = 0) -> Tensor:
    return torch.randn(DATA[places], dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def layout(block: str) -> int:
    return max(places for places in BLOCKS.get(block).layouts if places in DATA)


PARTNERS = 6  # every wiring meets every sixth block, each time others; the plainest of either kind meet all
PRODUCT = [
    pytest.param(wiring, block, norm, linear, id=f"{wiring}-{block}-{norm}-{linear}")
    for (wiring, block), norm, linear in zip(
        [
            (wiring, block)
            for i, wiring in enumerate(WIRINGS.names())
            for j, block in enumerate(BLOCKS.names())
            if (i + j) % PARTNERS == 0 or wiring == "residual" or block == "mlp"
        ],
        cycle(NORMS.names()),
        cycle(sorted(LINEARS.names(), reverse=True)),
        strict=False,
    )
]


@pytest.mark.parametrize(("wiring", "block", "norm", "linear"), PRODUCT)
def test_every_wiring_takes_every_block(wiring: str, block: str, norm: str, linear: str) -> None:
    places = layout(block)
    layer = f"{tiny(block)} norm={norm} linear={tiny(linear, 'linear')}"
    net = make(f"{STEM[places]} | {tiny(wiring, 'wiring')}({layer}) 3x8 | pool[outputs=4]")
    y = net(sample(places))
    assert y.shape == (3, 4)
    (y * torch.randn_like(y)).sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    assert torch.isfinite(net.eval()(sample(places))).all()
    assert Spec.parse(str(net.spec)) == net.spec


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_reads_and_ends_at_any_depth_and_size(data: st.DataObject) -> None:
    depth, dim = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 9))
    cuts = sorted(data.draw(st.sets(st.integers(1, max(depth - 1, 1)), max_size=4)) | {depth})
    sizes = tuple(b - a for a, b in zip([0, *cuts], cuts, strict=False))
    drawn = data.draw(st.integers(1, 5))
    options = [
        Part("residual"),
        Part("plain"),
        Part("grouped", {"size": sizes}),
        Part("grouped", {"size": drawn}),
        Part("grouped", {"size": 0}),
        Part("looped", {"times": drawn}),
        Part("dense", {"growth": drawn}),
    ]
    part = data.draw(st.sampled_from(options + [Part(name, WIRINGS.get(name).tiny) for name in WIRINGS.names()]))
    dim = dim if part in options else 8  # what is tiny fits 8; of one or two channels a norm leaves nothing
    wiring: Wiring = WIRINGS.make(part, dim, depth, dim=dim, offers=OFFERS).double()
    assert wiring.reads() == measured_reads(wiring)
    assert len(wiring.ends()) == depth


# ---- seeing


def record(net: Net, x: Tensor) -> list[Place]:
    seen: list[Place] = []
    net(x, see=lambda place, _: seen.append(place))
    return seen


@pytest.mark.parametrize("wiring", WIRINGS.names())
def test_every_place_is_shown_once_and_in_order(wiring: str) -> None:
    net = make(f"{STEM[0]} | {tiny(wiring, 'wiring')}(mlp[hidden=6]) 3x8-2x8 | pool[outputs=2]").eval()
    seen = record(net, sample(0))
    assert len(seen) == len(set(seen))
    assert {(place.stage, place.layer) for place in seen} == {(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)}
    assert seen == sorted(seen, key=lambda place: (place.stage, place.visit))
    assert [place.end for place in seen] == ["in", "out"] * (len(seen) // 2)
    for before, after in zip(seen[::2], seen[1::2], strict=True):
        assert before._replace(end="out") == after


def test_visits_are_counted_a_layer() -> None:
    looped = make(f"{STEM[0]} | looped[times=2](mlp) 2x4 | pool[outputs=2]").eval()
    ordered = make(f"{STEM[0]} | residual(mlp) 2x4@0,1,0,1 | pool[outputs=2]").eval()
    outs = [Place(0, 0, "out", 0), Place(0, 1, "out", 0), Place(0, 0, "out", 1), Place(0, 1, "out", 1)]
    for net in (looped, ordered):
        assert [place for place in record(net, sample(0)) if place.end == "out"] == outs


@pytest.mark.parametrize("wiring", WIRINGS.names())
def test_a_tensor_given_back_stands_instead(wiring: str) -> None:
    net = make(f"{STEM[0]} | {tiny(wiring, 'wiring')}(mlp[hidden=6]) 3x8 | pool[outputs=2]").eval()
    x = sample(0)
    plain = net(x)
    assert torch.equal(net(x, see=lambda place, tensor: tensor), plain)
    assert torch.equal(net(x, see=lambda place, tensor: None), plain)
    for target in record(net, x):
        changed = net(x, see=lambda place, t, target=target: torch.ones_like(t) if place == target else None)
        assert not torch.equal(changed, plain), target


def test_seeing_zero_is_dropping_in_a_residual_stack() -> None:
    net = make(f"{STEM[0]} | residual(mlp[hidden=6]) 3x8 | pool[outputs=2]").eval()
    short = make(f"{STEM[0]} | residual(mlp[hidden=6]) 2x8 | pool[outputs=2]").eval()
    weights = {
        name.replace("layers.2.", "layers.1."): w for name, w in net.state_dict().items() if ".layers.1." not in name
    }
    short.load_state_dict(weights)
    zero = net(sample(0), see=lambda place, t: torch.zeros_like(t) if place == Place(0, 1, "out", 0) else None)
    assert torch.equal(zero, short(sample(0)))


# ---- ties


def test_order_is_looped() -> None:
    looped = make(f"{STEM[0]} | looped[times=3](mlp) 2x8 | pool[outputs=2]")
    ordered = Net(Spec.parse(f"{STEM[0]} | residual(mlp) 2x8@0,1,0,1,0,1 | pool[outputs=2]")).double()
    ordered.load_state_dict(looped.state_dict(), strict=True)
    assert torch.equal(looped(sample(0)), ordered(sample(0)))


@pytest.mark.parametrize("shape", ["looped[times=2](mlp[hidden=6]) 2x8", "residual(mlp[hidden=6]) 2x8@0,1,0,1"])
def test_shared_weights_are_one_and_their_gradients_add_up(shape: str) -> None:
    tied = make(f"{STEM[0]} | {shape} | pool[outputs=2]")
    free = Net(Spec.parse(f"{STEM[0]} | residual(mlp[hidden=6]) 4x8 | pool[outputs=2]")).double()
    stage = {name: w for name, w in tied.state_dict().items() if ".layers." in name}
    assert len({name.split("layers.")[1].split(".")[0] for name in stage}) == 2
    copies = {name.replace("layers.0.", "layers.2.").replace("layers.1.", "layers.3."): w for name, w in stage.items()}
    free.load_state_dict({**tied.state_dict(), **copies}, strict=True)
    x, weight = sample(0), torch.randn(3, 2, dtype=torch.float64)
    assert torch.equal(tied(x), free(x))
    for net in (tied, free):
        (net(x) * weight).sum().backward()
    found, parts = dict(tied.named_parameters()), dict(free.named_parameters())
    for name in stage:
        other = name.replace("layers.0.", "layers.2.").replace("layers.1.", "layers.3.")
        total = parts[name].grad + parts[other].grad
        torch.testing.assert_close(found[name].grad, total, rtol=1e-10, atol=1e-12)


# ---- norms of a visit's own

OWN = [
    ("mlp[hidden=6]", 0, 2 * 8),  # the layer's norm
    ("transformer[heads=2,hidden=12]", 1, 4 * 8),  # two that the block places
    ("conv[hidden=6]", 2, 2 * 6),
]


def weights_of(net: Net) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


@pytest.mark.parametrize(("block", "places", "norms"), OWN)
def test_own_norms_cost_their_weights_and_no_others(block: str, places: int, norms: int) -> None:
    once, shared, own = (
        make(f"{STEM[places]} | residual({block}) 1x8{order} | pool[outputs=2]")
        for order in ("", "@0,0,0,0", "@0,0,0,0*")
    )
    assert weights_of(shared) == weights_of(once)
    assert weights_of(own) == weights_of(once) + 3 * norms


@pytest.mark.parametrize(("block", "places", "norms"), OWN)
def test_own_norms_that_are_all_alike_are_shared_ones(block: str, places: int, norms: int) -> None:
    text = f"{STEM[places]} | residual({block}) 2x8@0,1,0,0{{}} | pool[outputs=2]"
    shared, own = (make(text.format(star)).eval() for star in ("", "*"))
    state = {}
    for name in own.state_dict():
        head, found, tail = name.partition(".each.")
        state[name] = shared.state_dict()[f"{head}.{tail.partition('.')[2]}" if found else name]
    own.load_state_dict(state, strict=True)
    x = sample(places)
    assert torch.equal(own(x), shared(x))
    before = own(x)
    with torch.no_grad():
        next(p for name, p in own.named_parameters() if ".each.2.weight" in name).mul_(2)
    assert not torch.equal(own(x), before)


@pytest.mark.parametrize(("block", "places", "norms"), OWN)
def test_each_visit_reads_its_own_norms(block: str, places: int, norms: int) -> None:
    """A free stack of copies, each with the norms of its visit, is the same; the matrices' gradients add up."""
    own = make(f"{STEM[places]} | residual({block}) 1x8@0,0,0* | pool[outputs=2]")
    free = make(f"{STEM[places]} | residual({block}) 3x8 | pool[outputs=2]")
    state = {name: value for name, value in own.state_dict().items() if "layers" not in name}
    for name in free.state_dict():
        if "layers." in name:
            visit, inner = name.split("layers.")[1].split(".", 1)
            norm, _, leaf = inner.rpartition(".")
            named = f"stages.0.layers.0.{norm}.each.{visit}.{leaf}"
            state[name] = own.state_dict().get(named, own.state_dict().get(f"stages.0.layers.0.{inner}"))
    free.load_state_dict(state, strict=True)
    x = sample(places)
    for net in (own, free):
        net.train()
        (net(x) * torch.linspace(-1, 1, 2, dtype=torch.float64)).sum().backward()
    assert torch.equal(own.eval()(x), free.eval()(x))  # the statistics of batch norms, too
    for name, parameter in own.named_parameters():
        assert parameter.grad is not None, name
        if "layers" in name and ".each." not in name:
            copies = [dict(free.named_parameters())[name.replace("layers.0.", f"layers.{i}.")].grad for i in range(3)]
            torch.testing.assert_close(parameter.grad, sum(copies), rtol=1e-10, atol=1e-12)


def test_own_norms_are_found_again_where_layers_run_anew_for_the_gradient() -> None:
    text = f"{STEM[0]} | {{}}(mlp[hidden=6]) 1x8@0,0,0* | pool[outputs=2]"
    nets = [make(text.format(wiring)).train() for wiring in ("residual", "checkpointed")]
    nets[1].load_state_dict(nets[0].state_dict(), strict=True)
    for net in nets:
        (net(sample(0)) * torch.linspace(-1, 1, 2, dtype=torch.float64)).sum().backward()
    for (name, one), other in zip(nets[0].named_parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-10, atol=1e-12, msg=name)


def test_own_norms_reach_context_modes_copies_and_folders() -> None:
    net = make(f"{STEM[1]} | residual(attention[heads=2]) 1x8@0,0* | pool[outputs=2]").eval()
    mask = torch.ones(3, 6, dtype=torch.bool)
    mask[:, -1] = False
    x = sample(1)
    assert not torch.equal(net(x, context={"mask": mask}), net(x))
    assert torch.equal(copy.deepcopy(net)(x), net(x))
    assert torch.equal(load_net(net.spec, net.state_dict())(x), net(x))
    assert len(record(net, x)) == 4


# ---- exits

EXITS = "pool[outputs=2] | 0.0: pool, 0.2: pool[norm=rms], 1.1: pool"


@pytest.mark.parametrize("wiring", ["residual", "plain", "grouped[size=2]", "dense[growth=3]", "looped[times=2]"])
def test_an_exit_reads_what_its_layer_is_given(wiring: str) -> None:
    net = make(f"{STEM[2]} | {wiring}(conv[hidden=6]) 3x8-2x6 | {EXITS}").eval()
    x = sample(2)
    read: dict[Place, Tensor] = {}
    last = net(x, see=lambda place, stream: read.update({place: stream.clone()}))
    places = [Place(0, 0, "in", 0), Place(0, 2, "in", 0), Place(1, 1, "in", 0)]
    wanted = [head(read[place]) for head, place in zip(net.exits, places, strict=True)]
    found = net.answers(x)
    assert len(found) == 4
    assert all(torch.equal(a, b) for a, b in zip(found, [*wanted, last], strict=True))
    assert Spec.parse(str(net.spec)) == net.spec


def test_an_exit_of_shared_layers_reads_its_visit() -> None:
    net = make(f"{STEM[0]} | residual(mlp) 2x8@0,1,0,1* | pool[outputs=2] | 0.3: pool").eval()
    read: list[Tensor] = []
    net(sample(0), see=lambda place, stream: read.append(stream) if place == Place(0, 1, "in", 1) else None)
    assert torch.equal(net.answers(sample(0))[0], net.exits[0](*read))


def test_exits_change_no_answer_and_no_weight_of_the_net() -> None:
    bare, full = (
        make(f"{STEM[0]} | residual(mlp) 3x8 | {end}", shaken=False)
        for end in ("pool[outputs=2]", "pool[outputs=2] | 0.2: pool")
    )
    assert torch.equal(bare(sample(0)), full(sample(0)))
    assert bare.state_dict().keys() == {name for name in full.state_dict() if not name.startswith("exits.")}
    assert len(bare.answers(sample(0))) == 1


def test_an_exit_whose_layer_was_left_out_is_an_error() -> None:
    net = make(f"{STEM[0]} | residual(mlp) 3x8 | pool[outputs=2] | 0.2: pool")

    class Lazy(nn.Module):
        def forward(self, x: Tensor, layers: list[Callable[[Tensor], Tensor]]) -> Tensor:
            return layers[0](x)

    net.stages[0].wiring = Lazy()
    with pytest.raises(BadModel, match=r"exit 0\.2: its layer was not run"):
        net.answers(sample(0))


# ---- context


@pytest.mark.parametrize("wiring", WIRINGS.names())
@pytest.mark.parametrize(
    "block", [name for name in BLOCKS.names() if "mask" in Layer(LayerSpec(tiny(name)), 8, 8).reads]
)
def test_a_mask_reaches_attention_under_every_wiring(wiring: str, block: str) -> None:
    net = make(f"{STEM[1]} | {tiny(wiring, 'wiring')}({tiny(block)}) 3x8 | every[outputs=2]").eval()
    mask = torch.ones(3, 6, dtype=torch.bool)
    mask[:, -1] = False
    x, other = sample(1), sample(1)
    other[:, -1] = 5.0
    hidden = [net(each, context={"mask": mask})[:, :-2] for each in (x, other)]  # the stem's kernel reaches one further
    open_ = [net(each)[:, :-2] for each in (x, other)]
    assert not torch.equal(*open_)
    beyond_stem = net.stem(x)[:, :-2]
    assert torch.equal(beyond_stem, net.stem(other)[:, :-2])
    assert not torch.equal(hidden[0], open_[0])
    changed = net.stem(x).clone()
    changed[:, -1] = 5.0
    stage = net.stages[0]
    ran = [stage(each, {"mask": mask}, 0, None)[:, :-1] for each in (net.stem(x), changed)]
    assert torch.equal(*ran)


def test_unknown_context_is_an_error_that_lists_the_known() -> None:
    net = make(f"{STEM[1]} | residual(attention[heads=2]) 1x8 | pool[outputs=2]")
    with pytest.raises(BadModel, match="did you mean 'mask'"):
        net(sample(1), context={"masks": torch.ones(3, 6, dtype=torch.bool)})
    bare = make(f"{STEM[0]} | residual(mlp) 1x8 | pool[outputs=2]")
    with pytest.raises(BadModel, match="no block"):
        bare(sample(0), context={"mask": torch.ones(3, 1, dtype=torch.bool)})
    assert torch.equal(bare(sample(0), context={}), bare(sample(0)))


# ---- make deep networks shallow again


def stack(wiring: str, block: str = "mlp[act=tanh,hidden=6]", depth: int = 4) -> Net:
    return make(f"{STEM[0]} | {wiring}({block} norm=none) {depth}x8 | pool[outputs=2]").eval()


def test_a_deep_and_shallow_have_equal_parameters() -> None:
    for block in BLOCKS.names():
        nets = [
            empty(Spec.parse(f"{STEM[2]} | {w}({tiny(block)}) 4x8 | pool[outputs=2]"))
            for w in ("residual", "grouped[size=0]")
        ]
        deep, shallow = ({name: w.shape for name, w in net.state_dict().items()} for net in nets)
        assert deep == shallow


def test_b_the_gap_is_of_second_order() -> None:
    deep, shallow = stack("residual"), stack("grouped[size=0]")
    x = torch.randn(5, 8, dtype=torch.float64)

    def gap(scale: float) -> float:
        outs = []
        for net in (deep, shallow):
            branches: list[Callable[[Tensor], Tensor]] = [
                lambda t, layer=layer: scale * layer(t) for layer in deep.stages[0].layers
            ]
            outs.append(net.stages[0].wiring(x, branches))
        return float((outs[0] - outs[1]).detach().norm())

    for scale in (0.02, 0.01):
        assert gap(scale) / gap(scale / 2) == pytest.approx(4, rel=0.1)


def test_groups_of_one_are_the_residual_net() -> None:
    deep, dial = stack("residual"), stack("grouped[size=1]")
    dial.load_state_dict(deep.state_dict(), strict=True)
    assert torch.equal(deep(sample(0)), dial(sample(0)))


def test_c_parallel_mlps_are_one_wide_mlp() -> None:
    shallow = stack("grouped[size=0]")
    wide = stack("residual", "mlp[act=tanh,hidden=24]", depth=1)
    blocks = [layer.block for layer in shallow.stages[0].layers]
    merged = wide.stages[0].layers[0].block
    with torch.no_grad():
        merged.up.weight.copy_(torch.cat([block.up.weight for block in blocks]))
        merged.up.bias.copy_(torch.cat([block.up.bias for block in blocks]))
        merged.down.weight.copy_(torch.cat([block.down.weight for block in blocks], dim=1))
        merged.down.bias.copy_(sum(block.down.bias for block in blocks))
    x = torch.randn(5, 8, dtype=torch.float64)
    found, wanted = (net.stages[0](x, None, 0, None) for net in (wide, shallow))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


def test_d_parallel_convolutions_are_one_wide_and_a_sum_over_groups() -> None:
    count, dim = 3, 4
    wiring = WIRINGS.make(Part("grouped", {"size": 0}), dim, count, dim=dim)
    convs = [nn.Conv2d(dim, dim, 3, padding=1, dtype=torch.float64) for _ in range(count)]
    branches = [lambda t, conv=conv: conv(t.movedim(-1, 1)).relu().movedim(1, -1) for conv in convs]
    x = torch.randn(2, 5, 4, dim, dtype=torch.float64)
    weight = torch.cat([conv.weight for conv in convs])
    bias = torch.cat([conv.bias for conv in convs if conv.bias is not None])
    wide = F.conv2d(x.movedim(-1, 1), weight, bias, padding=1).relu()
    summed = wide.unflatten(1, (count, dim)).sum(dim=1).movedim(1, -1)
    torch.testing.assert_close(wiring(x, branches), x + summed, rtol=0, atol=1e-12)


def test_e_one_layer_is_the_same_in_all_layouts() -> None:
    outs = []
    for wiring in ("residual", "grouped[size=0]", "grouped[size=5]", "looped[times=1]"):
        outs.append(stack(wiring, depth=1)(sample(0)))
    assert all(torch.equal(out, outs[0]) for out in outs)


def test_f_parallel_branches_may_change_places() -> None:
    shallow = stack("grouped[size=0]")
    before = shallow(sample(0))
    layers = shallow.stages[0].layers
    shallow.stages[0].layers = nn.ModuleList([layers[2], layers[0], layers[3], layers[1]])
    torch.testing.assert_close(shallow(sample(0)), before, rtol=0, atol=1e-12)


# ---- stages


def test_stages_change_width_and_resolution() -> None:
    net = make(
        f"{STEM[2]} | residual(conv) 1x4-1x6 -pad- dense[growth=3](conv) 2x8 -widen- plain(mlp) 1x5 | every[outputs=2]"
    )
    places: dict[int, tuple[int, ...]] = {}
    torch.manual_seed(0)
    x = torch.randn(2, 9, 7, 2, dtype=torch.float64)
    y = net(x, see=lambda place, t: places.update({place.stage: tuple(t.shape[1:])}) if place.end == "in" else None)
    assert places == {0: (9, 7, 4), 1: (5, 4, 6), 2: (3, 2, 11), 3: (3, 2, 5)}
    assert y.shape == (2, 3, 2, 2)
    assert [stage.out for stage in net.spec.stages] == [4, 6, 14, 5]


def test_layers_may_differ_and_name_exceptions_for_their_matrices() -> None:
    low = "mlp[hidden=6] linear.up=low_rank[rank=2]"
    net = make(f"{STEM[0]} | residual({low}, gated_mlp[hidden=5]*2) 3x8 | pool[outputs=2]")
    first, second, third = net.stages[0].layers
    assert type(first.block.up) is LINEARS.get("low_rank")
    assert first.block.up.rank == 2
    assert type(first.block.down) is LINEARS.get("dense")
    assert (first.block.up.inputs, first.block.up.outputs) == (8, 6)
    assert type(second.block) is type(third.block) is BLOCKS.get("gated_mlp")
    assert net(sample(0)).shape == (3, 2)
    both = make(f"{STEM[0]} | residual(mlp linear=low_rank[rank=2] linear.down=dense) 1x8 | pool[outputs=2]")
    kinds = {name: type(m) for name, m in both.stages[0].layers[0].block.named_modules() if isinstance(m, Linear)}
    assert kinds == {"up": LINEARS.get("low_rank"), "down": LINEARS.get("dense")}
    with pytest.raises(BadSetting, match=r"linear\.upp.*did you mean 'up'"):
        make(f"{STEM[0]} | residual(mlp linear.upp=low_rank) 1x8 | pool[outputs=2]")


def test_an_exception_keeps_kernel_and_bias() -> None:
    net = make(f"{STEM[2]} | residual(conv[hidden=6] linear.first=low_rank[rank=3]) 1x8 | pool[outputs=2]")
    first = net.stages[0].layers[0].block.first
    assert first.kernel == (3, 3)
    assert first.bias is None
    assert net(sample(2)).shape == (3, 2)


def test_an_open_spec_is_refused() -> None:
    with pytest.raises(BadSpec, match="no stem or head"):
        Net(Spec.parse("residual(mlp) 1x8"))


# ---- building, copying, loading

FULL = f"{STEM[2]} | residual(conv[hidden=6], bottleneck[hidden=4]) 2x8-2x12 | pool[outputs=2]"


def test_it_builds_without_memory_and_copies() -> None:
    spec = Spec.parse(FULL)
    held = empty(spec)
    assert all(w.is_meta for w in held.state_dict().values())
    net = Net(spec)
    assert {n: w.shape for n, w in net.state_dict().items()} == {n: w.shape for n, w in held.state_dict().items()}
    twin = copy.deepcopy(net.eval())
    x = sample(2).float()
    assert torch.equal(twin(x), net(x))
    assert twin.spec == net.spec


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_come_back_bit_for_bit(dtype: torch.dtype) -> None:
    net = make(FULL).to(dtype)
    net(sample(2).to(dtype))  # moves the running statistics
    again = load_net(net.spec, net.state_dict())
    assert not again.training
    assert all(torch.equal(w, net.state_dict()[name]) for name, w in again.state_dict().items())
    assert torch.equal(again(sample(2).to(dtype)), net.eval()(sample(2).to(dtype)))


def test_loading_is_strict_and_names_what_is_wrong() -> None:
    net = make(FULL)
    weights = dict(net.state_dict())
    first = "stages.0.layers.0.block.first.weight"
    broken = {
        "missing": {name: w for name, w in weights.items() if name != first},
        "extra": {**weights, "stages.9.weight": torch.zeros(1)},
        "other shape": {**weights, first: weights[first][:-1]},
    }
    for says, given_weights in broken.items():
        with pytest.raises(BadModel, match=rf"{says} \['stages") as caught:
            load_net(net.spec, given_weights)
        assert "\n" not in str(caught.value)
    other = Spec.parse(FULL.replace("2x12", "2x12-2x12"))
    with pytest.raises(BadModel, match="missing"):
        load_net(other, weights)


def test_the_net_does_not_move_the_callers_input_or_spec() -> None:
    net, x = make(FULL).eval(), sample(2)
    before, spec = x.clone(), str(net.spec)
    net(x)
    assert torch.equal(x, before)
    assert str(net.spec) == spec


def test_stages_hold_one_layer_object_a_layer() -> None:
    stage = Stage(Part("residual"), (LayerSpec(Part("mlp")),) * 2, 8, order=(0, 1, 1))
    net = Net(Spec((stage,), Part("vector", {"features": 5}), Part("pool", {"outputs": 2})))
    assert len(net.stages[0].layers) == 2
    assert net.stages[0].wiring.depth == 3


def test_dense_fits_any_matrix_exactly() -> None:
    for kernel in ((), (3,), (3, 3)):
        linear = LINEARS.make(Part("dense"), 6, 4, True, kernel, 2).double()
        matrix = torch.randn_like(linear.matrix())
        linear.fit(matrix)
        assert torch.equal(linear.matrix(), matrix)
