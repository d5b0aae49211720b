"""Named nets: how many parameters they have, against sums by hand; what their parts do that the battery does not ask.

Each sum is written from the architecture as its paper or its official code defines it, not from our specs.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from shoal.core.errors import BadSetting, BadSpec, Refused
from shoal.core.named import read_spec
from shoal.core.part import Part
from shoal.core.spec import Spec, wiring_of
from shoal.edits.drop import Drop
from shoal.kinds import BLOCKS, HEADS, JOINS, NETS, STEMS, WIRINGS
from shoal.net import Net, empty
from shoal.recipe import edited
from shoal.testing import run
from shoal.testing._samples import OFFERS, shake


def count(name: str) -> int:
    """Parameters of a named net, without building it in memory."""
    return sum(parameter.numel() for parameter in empty(read_spec(name)).parameters())


def conv(inputs: int, outputs: int, side: int = 3, groups: int = 1) -> int:
    """Weights of a convolution without bias."""
    return inputs // groups * outputs * side * side


def norm(width: int) -> int:
    """Scale and shift."""
    return 2 * width


def linear(inputs: int, outputs: int) -> int:
    """A matrix with a bias."""
    return inputs * outputs + outputs


# ---- sums by hand


def resnet(depth: int) -> int:
    """He et al.: 3 x 3 to 16; 6 n convolutions, each with a norm; shortcuts without weights; a linear map."""
    blocks, total, inputs = (depth - 2) // 6, conv(3, 16) + norm(16), 16
    for width in (16, 32, 64):
        for _ in range(blocks):
            total += conv(inputs, width) + conv(width, width) + 2 * norm(width)
            inputs = width
    return total + linear(64, 10)


def densenet(depth: int, growth: int, bottleneck: bool, compression: float) -> int:
    """Huang et al.: norm-relu-conv layers that each add `growth`; transitions of norm-relu-1x1; a last norm."""
    width = 2 * growth if bottleneck else 16
    total = conv(3, width)
    for stage in range(3):
        for _ in range((depth - 4) // (6 if bottleneck else 3)):
            if bottleneck:
                total += norm(width) + conv(width, 4 * growth, 1) + norm(4 * growth) + conv(4 * growth, growth)
            else:
                total += norm(width) + conv(width, growth)
            width += growth
        if stage < 2:
            total += norm(width) + conv(width, int(width * compression), 1)
            width = int(width * compression)
    return total + norm(width) + linear(width, 10)


def wide_resnet(depth: int, times: int) -> int:
    """Zagoruyko and Komodakis: norm-relu-conv twice a block, a 1 x 1 shortcut where the width changes, a last norm."""
    total, inputs = conv(3, 16), 16
    for width in (16 * times, 32 * times, 64 * times):
        for _ in range((depth - 4) // 6):
            total += norm(inputs) + conv(inputs, width) + norm(width) + conv(width, width)
            total += conv(inputs, width, 1) if inputs != width else 0
            inputs = width
    return total + norm(inputs) + linear(inputs, 10)


def resnext(cardinality: int, width: int) -> int:
    """Xie et al., CIFAR: three stages of three bottlenecks in groups, option B where the width changes."""
    total, inputs = conv(3, 64) + norm(64), 64
    for stage in range(3):
        inner, out = cardinality * width * 2**stage, 256 * 2**stage
        for _ in range(3):
            total += conv(inputs, inner, 1) + conv(inner, inner, 3, cardinality) + conv(inner, out, 1)
            total += 2 * norm(inner) + norm(out)
            total += conv(inputs, out, 1) + norm(out) if inputs != out else 0
            inputs = out
    return total + linear(1024, 10)


def simplenet() -> int:
    """Hasanpour et al.: thirteen convolutions with biases, each with a norm."""
    widths = (64, 128, 128, 128, 128, 128, 256, 256, 256, 512, 2048, 256, 256)
    total, inputs = 0, 3
    for index, width in enumerate(widths):
        total += conv(inputs, width, 1 if index in (10, 11) else 3) + width + norm(width)
        inputs = width
    return total + linear(256, 10)


def dpn(layers: tuple[int, ...], growth: tuple[int, ...], stem: int, hidden: int, groups: int) -> int:
    """Chen et al.: the first block of a stage projects to the residual part and twice the growth; norms before all."""
    total, inputs = conv(3, stem, 7) + norm(stem), stem
    for stage, (blocks, more) in enumerate(zip(layers, growth, strict=True)):
        residual, inner = 256 * 2**stage, hidden * 2**stage
        for block in range(blocks):
            if block == 0:
                total += norm(inputs) + conv(inputs, residual + 2 * more, 1)
            total += norm(inputs) + conv(inputs, inner, 1) + norm(inner) + conv(inner, inner, 3, groups)
            total += norm(inner) + conv(inner, residual + more, 1)
            inputs = residual + 3 * more if block == 0 else inputs + more
    return total + norm(inputs) + linear(inputs, 1000)


LARGE = ((16, 32, 32, 128), 160, 40)

# name -> (the sum by hand, the number itself). Published to the unit are those in `published` of a net. The rounded
# counts of the specifications agree: DenseNet-BC 0.8M and 25.6M, DPN-92 37.7M (DPN-98 is recalled there as 61.7M).
GOLDEN = {
    "resnet20": (resnet(20), 269_722),
    "resnet32": (resnet(32), 464_154),
    "resnet44": (resnet(44), 658_586),
    "resnet56": (resnet(56), 853_018),
    "resnet110": (resnet(110), 1_727_962),
    "densenet40": (densenet(40, 12, False, 1), 1_019_722),
    "densenet100": (densenet(100, 12, False, 1), 6_979_642),
    "densenet100_24": (densenet(100, 24, False, 1), 27_249_082),
    "densenet_bc100": (densenet(100, 12, True, 0.5), 769_162),
    "densenet_bc250": (densenet(250, 24, True, 0.5), 15_324_406),
    "densenet_bc190": (densenet(190, 40, True, 0.5), 25_624_430),
    "wide_resnet16_4": (wide_resnet(16, 4), 2_748_890),
    "wide_resnet16_8": (wide_resnet(16, 8), 10_961_370),
    "wide_resnet22_8": (wide_resnet(22, 8), 17_158_106),
    "wide_resnet28_10": (wide_resnet(28, 10), 36_479_194),
    "wide_resnet40_1": (wide_resnet(40, 1), 563_930),
    "wide_resnet40_2": (wide_resnet(40, 2), 2_243_546),
    "wide_resnet40_4": (wide_resnet(40, 4), 8_949_210),
    "resnext29_8x64": (resnext(8, 64), 34_426_698),
    "resnext29_16x64": (resnext(16, 64), 68_155_210),
    "simplenet": (simplenet(), 5_498_378),
    "dpn92": (dpn((3, 4, 20, 3), (16, 32, 24, 128), 64, 96, 32), 37_668_392),
    "dpn98": (dpn((3, 6, 20, 3), LARGE[0], 96, *LARGE[1:]), 61_570_728),
    "dpn131": (dpn((4, 8, 28, 3), LARGE[0], 128, *LARGE[1:]), 79_254_504),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_parameters_are_as_many_as_by_hand(name: str) -> None:
    by_hand, number = GOLDEN[name]
    assert by_hand == number
    assert count(name) == number


def test_every_variant_of_an_exact_net_is_counted() -> None:
    for name in ("resnet", "densenet", "wide_resnet", "resnext", "dpn"):
        assert set(NETS.get(name).variants) <= set(GOLDEN)


# ---- the battery of nets finds what is wrong

RESNET, BASIC = NETS.get("resnet"), BLOCKS.get("basic")
ODD = torch.linalg.det  # an operation that the counter has no formula for


def written(text: str) -> Any:
    """A method `spec` that gives the spec of that text, whatever the settings are."""
    return lambda self: Spec.parse(text)


def careless(self: Any, *, depth: int = 14, width: int = 4, outputs: int = 10, channels: int = 3) -> None:
    """A constructor that lets a zero through to where it hurts."""
    self.blocks, self.width, self.outputs, self.channels = 28 // depth, width, outputs, channels


FAULTS: list[tuple[str, Any, str, Any]] = [
    ("published_counts", RESNET, "published", {"resnet20": 269_723}),
    ("published_counts", RESNET, "published", {"resnet21": 269_722}),
    ("variants_are_read", RESNET, "variants", {"thin": {"depth": 14}}),
    ("variants_are_read", RESNET, "variants", {"resnet": {"depth": 14}}),
    ("variants_build", RESNET, "spec", written("residual(conv) 1x4")),
    ("ends_follow_data", RESNET, "spec", written("convolution[channels=3] | residual(conv) 1x4 | pool[outputs=10]")),
    ("wrong_numbers", RESNET, "__init__", careless),
    ("runs", BASIC, "forward", lambda self, x: x - x.mean(0)),
    ("trains", BASIC, "forward", lambda self, x: x.detach()),
    ("costed", BASIC, "forward", lambda self, x: x * ODD(torch.eye(2))),
    ("exports_to_pt2", BASIC, "forward", lambda self, x: x * float(x.sum())),
]


@pytest.mark.parametrize(
    ("check", "cls", "attribute", "fault"), FAULTS, ids=lambda each: each if isinstance(each, str) else ""
)
def test_planted_faults_are_found(
    monkeypatch: pytest.MonkeyPatch, check: str, cls: Any, attribute: str, fault: Any
) -> None:
    monkeypatch.setattr(cls, attribute, fault)
    with pytest.raises((AssertionError, RuntimeError, ZeroDivisionError)):
        run("net", "resnet", check)


# ---- what the papers say of them


@pytest.mark.parametrize(("name", "blocks", "columns"), [("fractalnet20", 5, 3), ("fractalnet[columns=4]", 5, 4)])
def test_fractalnet_has_so_many_convolutions(name: str, blocks: int, columns: int) -> None:
    stages = read_spec(name).stages
    assert sum(len(stage.layers) for stage in stages) == blocks * (2**columns - 1)
    assert {len(stage.layers) for stage in stages} == {2**columns - 1}


def test_simplenet_has_thirteen_convolutions_and_ends_at_one_place() -> None:
    spec = read_spec("simplenet[width=4]")
    assert 1 + sum(len(stage.layers) for stage in spec.stages) == 13
    places: list[tuple[int, ...]] = []
    net = Net(spec).eval()
    net(torch.zeros(1, 32, 32, 3), see=lambda place, x: places.append(tuple(x.shape[1:3])))
    assert places[-1] == (1, 1)
    assert [side for side, _ in dict.fromkeys(places)] == [32, 16, 8, 4, 2, 1]


def test_densenet_connects_all_to_all() -> None:
    """L (L + 1) / 2 connections in a block of L layers, the output's not counted."""
    for stage in read_spec("densenet40").stages:
        rows = wiring_of(stage.wiring, stage.dim, stage.depth).reads()
        assert sum(map(len, rows[:-1])) == stage.depth * (stage.depth + 1) // 2
        assert stage.out == stage.dim + 12 * stage.depth


def test_the_streams_of_parnet_end_coarse() -> None:
    net = Net(read_spec("parnet[widths=[4,6,8],last=10,layers=[1,1,2],stride=1,outputs=5]")).eval()
    x = torch.randn(2, 16, 16, 3)
    assert net.stages[0](net.stem(x), None, 0, None).shape == (2, 2, 2, 8)
    assert net(x).shape == (2, 5)


@pytest.mark.parametrize("name", ["resnet", "densenet", "wide_resnet", "resnext", "simplenet", "fractalnet", "revcol"])
@pytest.mark.parametrize("side", [5, 9])
def test_nets_take_images_of_odd_sides(name: str, side: int) -> None:
    made = NETS.make(Part(name, {**NETS.get(name).tiny, "channels": 1, "outputs": 4}))
    assert Net(made.spec()).eval()(torch.randn(2, side, side, 1)).shape == (2, 4)


WRONG = [
    ("resnet", {"depth": 8}, "depth=8"),
    ("resnet", {"depth": 21}, "give 14, 20, 26"),
    ("densenet", {"depth": 41}, "give 7, 10"),
    ("densenet", {"depth": 13, "bottleneck": True}, "give 10, 16"),
    ("densenet", {"compression": 0.0}, "compression=0.0"),
    ("wide_resnet", {"depth": 10}, "give 16, 22, 28"),
    ("resnext", {"depth": 21}, "give 20, 29, 38"),
    ("simplenet", {"width": 0}, "width=0"),
    ("fractalnet", {"widths": ()}, "widths"),
    ("dpn", {"groups": 7}, "groups that divide"),
    ("dpn", {"layers": (1, 2, 2, 2)}, "2 layers"),
    ("parnet", {"widths": (8,)}, "a width and layers for each"),
    ("cspnet", {"share": 1.0}, "share=1.0"),
    ("dla", {"heights": (0,)}, "heights"),
    ("revcol", {"columns": 0}, "columns=0"),
]


@pytest.mark.parametrize(("name", "settings", "said"), WRONG)
def test_settings_out_of_range_are_said_when_it_is_built(name: str, settings: dict[str, object], said: str) -> None:
    with pytest.raises(BadSetting, match=said) as caught:
        NETS.make(Part(name, settings))
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


# ---- the parts: joins, stems, heads, wirings


def join(text: str, inputs: int, outputs: int) -> torch.nn.Module:
    made = JOINS.make(Part.parse(text), inputs, outputs, dim=outputs, offers=OFFERS).double().eval()
    shake(made)
    return made


def convolved(linear: torch.nn.Module, x: Tensor, stride: int = 1) -> Tensor:
    """A convolution by torch alone, channels first."""
    side = linear.weight.shape[-1]
    return F.conv2d(x, linear.weight, linear.bias, stride, side // 2, groups=linear.groups)


def scaled(norm: torch.nn.Module, x: Tensor) -> Tensor:
    """A batch norm in eval by hand, channels first."""
    scale, shift = norm.weight / (norm.running_var + norm.eps).sqrt(), norm.bias
    return (x - norm.running_mean[:, None, None]) * scale[:, None, None] + shift[:, None, None]


X = torch.randn(2, 6, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_basic_join_is_the_strided_block_with_option_a() -> None:
    made, x = join("basic", 4, 6), X.movedim(-1, 1)
    y = scaled(made.inner, convolved(made.first, x, 2)).relu()
    y = scaled(made.outer, convolved(made.second, y))
    wanted = (F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 1)) + y).relu()
    torch.testing.assert_close(made(X), wanted.movedim(1, -1), rtol=1e-10, atol=1e-10)


def test_aggregated_join_is_the_strided_block_with_option_b() -> None:
    made, x = join("aggregated[hidden=4,groups=2]", 4, 6), X.movedim(-1, 1)
    y = scaled(made.before, convolved(made.first, x)).relu()
    y = scaled(made.behind, convolved(made.second, y, 2)).relu()
    beside = scaled(made.shortcut.norm, convolved(made.shortcut.map, x, 2))
    wanted = (beside + scaled(made.outer, convolved(made.third, y))).relu()
    torch.testing.assert_close(made(X), wanted.movedim(1, -1), rtol=1e-10, atol=1e-10)


def test_preact_join_projects_what_was_activated() -> None:
    made, x = join("preact", 4, 6), X.movedim(-1, 1)
    u = scaled(made.before, x).relu()
    y = convolved(made.second, scaled(made.inner, convolved(made.first, u, 2)).relu())
    wanted = convolved(made.shortcut, u, 2) + y
    torch.testing.assert_close(made(X), wanted.movedim(1, -1), rtol=1e-10, atol=1e-10)


def test_transition_averages_what_it_maps() -> None:
    made, x = join("transition", 4, 3), X.movedim(-1, 1)
    wanted = F.avg_pool2d(convolved(made.map, scaled(made.before, x).relu()), 2, ceil_mode=True)
    torch.testing.assert_close(made(X), wanted.movedim(1, -1), rtol=1e-10, atol=1e-10)


def test_dual_join_keeps_the_order_of_its_parts() -> None:
    """Residual part first, then what was projected of the dense part, then what the block adds to it."""
    made, x = join("dual[growth=2,hidden=4,groups=2]", 4, 11), X.movedim(-1, 1)
    s = convolved(made.w, scaled(made.before_w, x).relu(), 2)
    y = convolved(made.first, scaled(made.before, x).relu())
    y = convolved(made.second, scaled(made.inner, y).relu(), 2)
    y = convolved(made.third, scaled(made.last, y).relu())
    wanted = torch.cat((s[:, :5] + y[:, :5], s[:, 5:], y[:, 5:]), dim=1)
    torch.testing.assert_close(made(X), wanted.movedim(1, -1), rtol=1e-10, atol=1e-10)
    with pytest.raises(BadSpec, match="leaves no residual part"):
        join("dual[growth=4]", 4, 12)


def test_max_pool_takes_squares_larger_than_their_step() -> None:
    for text, wanted in (
        ("max_pool", F.max_pool2d(X.movedim(-1, 1), 2, ceil_mode=True)),
        ("max_pool[size=3]", F.max_pool2d(X.movedim(-1, 1), 3, 2, padding=1)),
    ):
        assert torch.equal(join(text, 4, 4)(X), wanted.movedim(1, -1))
    for wrong in ("max_pool[size=4]", "max_pool[size=1]", "max_pool[stride=0]"):
        with pytest.raises(BadSetting, match="join max_pool"):
            join(wrong, 4, 4)


@pytest.mark.parametrize("name", ["basic", "aggregated", "preact", "transition", "dual[growth=1]", "convolution"])
def test_a_join_goes_forward(name: str) -> None:
    part = Part.parse(name).with_settings(stride=0)
    with pytest.raises(BadSetting, match="stride=0"):
        join(str(part), 4, 8)


def test_new_settings_leave_stem_and_join_as_they_were() -> None:
    """Without norm and activation a convolution is the mere convolution, weights and names too."""
    stem = STEMS.make(Part("convolution", {"channels": 4}), 6, dim=6, offers=OFFERS).double()
    made = JOINS.make(Part("convolution"), 4, 6, dim=6, offers=OFFERS).double()
    assert list(stem.state_dict()) == ["first.bias", "first.weight"]
    assert list(made.state_dict()) == ["map.bias", "map.weight"]
    for module, linear, stride in ((stem, stem.first, 1), (made, made.map, 2)):
        assert torch.equal(module(X), convolved(linear, X.movedim(-1, 1), stride).movedim(1, -1))


def test_entry_and_joined_are_their_two_parts() -> None:
    stem = STEMS.make(Part.parse("entry[channels=4,width=3]"), 6, dim=6, offers=OFFERS).double()
    assert torch.equal(stem(X), stem.join(stem.first(X)))
    assert stem.first(X).shape == (2, 6, 5, 3)
    head = HEADS.make(Part.parse("joined[outputs=2,width=5,head=max_pool]"), 4, dim=4, offers=OFFERS).double()
    assert torch.equal(head(X), head.head(head.join(X)))
    assert torch.equal(head.head(head.join(X)), head.head.map(head.join(X).amax(dim=(1, 2))))


def test_activated_sums_drop_only_what_they_can() -> None:
    """A layer that gives zero may go where what comes in has been activated: not the first; no layer under a gelu."""
    text = "convolution[channels=4,act=relu] | residual[act={}](conv) 3x6 | pool[outputs=2]"
    net = Net(Spec.parse(text.format("relu"))).double().eval()
    with torch.no_grad():
        for parameter in net.stages[0].layers[1].parameters():
            parameter.zero_()
    shorter = edited(net, Drop(path="stages.0.layers.1", branch=True))
    assert len(shorter.stages[0].layers) == 2
    assert torch.equal(shorter(X), net(X))
    with pytest.raises(Refused, match="layer 0"):
        edited(net, Drop(path="stages.0.layers.0", branch=True))
    with pytest.raises(Refused, match="gelu"):
        edited(Net(Spec.parse(text.format("gelu"))).double(), Drop(path="stages.0.layers.1", branch=True))
    assert WIRINGS.make(Part("residual", {"act": "relu"}), 6, 3).groups() is None


def test_stepped_at_one_width_is_plain() -> None:
    stem, head = "convolution[channels=4]", "pool[outputs=2]"
    plain = Net(Spec.parse(f"{stem} | plain(unit) 3x6 | {head}")).double().eval()
    stepped = Net(Spec.parse(f"{stem} | stepped(unit) 3x6 | {head}")).double().eval()
    stepped.load_state_dict(plain.state_dict(), strict=True)
    assert torch.equal(stepped(X), plain(X))
    wide = Net(Spec.parse(f"{stem} | stepped[widths=[5,8]](unit) 3x6 | {head}"))
    assert [tuple(layer.block.map.weight.shape[:2]) for layer in wide.stages[0].layers] == [(5, 6), (8, 5), (8, 8)]
    with pytest.raises(BadSetting, match="one a layer"):
        Spec.parse(f"{stem} | stepped[widths=[5,8,3,2]](unit) 3x6 | {head}")
