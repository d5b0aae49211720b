"""Narrow: in a Net by what its blocks say, in any module by what is found; and the compressor that proposes it."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from coupled_strangers import IMAGE, FusedAttention, PlainCNN, SharedKeys, Tied, TokenModel, rows
from shoal.anatomy import anatomy
from shoal.compressors.channels import Channels
from shoal.core.base import Linear
from shoal.core.errors import BadSetting, Refused
from shoal.core.part import Part
from shoal.core.scene import Batch, Scene
from shoal.core.spec import Spec
from shoal.coupling import coupled
from shoal.edits.narrow import Narrow
from shoal.kinds import TASKS
from shoal.net import Net
from shoal.recipe import Recipe, done, edit_part, edited
from strangers import TinyResNet, randomised

EXACT = 1e-10
PATH = "stages.0.layers.1"
MIXED = "vector[features=5] | residual(mlp[hidden=6] norm=batch) 3x8 | pool[outputs=3]"
IN_NETS = [
    (MIXED, (5,), "hidden", (0, 3, 4)),
    ("vector[features=5] | residual(gated_mlp[hidden=6]) 2x8 | pool[outputs=3]", (5,), "hidden", (5,)),
    ("vector[features=5] | residual(mlp[hidden=6] linear=low_rank[rank=3]) 2x8 | pool[outputs=3]", (5,), "hidden",
     (1, 2, 3, 5)),
    ("vector[features=5] | residual(moe[experts=3,hidden=4]) 2x8 | pool[outputs=3]", (5,), "hidden", (1, 3)),
    ("convolution[channels=1] | residual(conv[hidden=6]) 2x8 | pool[outputs=3]", (8, 8, 1), "hidden", (1, 2, 5)),
    ("convolution[channels=1] | residual(basic[hidden=6]) 2x8 | pool[outputs=3]", (8, 8, 1), "hidden", (0, 5)),
    ("convolution[channels=1] | residual(bottleneck[hidden=6]) 2x8 | pool[outputs=3]", (8, 8, 1), "hidden", (0, 5)),
    ("convolution[channels=1] | residual(bottleneck[hidden=8,groups=2]) 2x8 | pool[outputs=3]", (8, 8, 1), "hidden",
     (0, 3, 5, 6)),
    ("convolution[channels=1] | residual(squeeze[hidden=6,reduced=2,branches=2]) 2x8 | pool[outputs=3]", (8, 8, 1),
     "hidden", (0, 5)),
    ("patches[channels=1,size=[4,4]] | residual(attention[heads=4,head_dim=3]) 2x8 | pool[outputs=3]", (8, 8, 1),
     "heads", (0, 2, 3)),
    ("patches[channels=1,size=[4,4]] | residual(transformer[heads=4,head_dim=3,hidden=6]) 2x8 | pool[outputs=3]",
     (8, 8, 1), "heads", (2,)),
    ("patches[channels=1,size=[4,4]] | residual(transformer[heads=4,head_dim=3,hidden=6]) 2x8 | pool[outputs=3]",
     (8, 8, 1), "hidden", (0, 1, 4)),
    ("patches[channels=1,size=[4,4]] | residual(token_mixing[places=4,hidden=6]) 2x8 | pool[outputs=3]", (8, 8, 1),
     "hidden", (0, 1, 4)),
]  # fmt: skip


def net_of(text: str) -> Net:
    net = randomised(Net(Spec.parse(text)))
    assert isinstance(net, Net)
    return net


def silent(net: Net, width: str, keep: tuple[int, ...]) -> Net:
    """The net in which nothing reads the units that go."""
    quiet = copy.deepcopy(net)
    block, spec = quiet.get_submodule(f"{PATH}.block"), net.spec.stages[0].layers[1].block
    for end in type(block).widths[width]:
        name, _, side = end.partition(":")
        part = block.get_submodule(name)
        if side == "in" and isinstance(part, Linear):
            matrix = part.matrix().detach().clone()
            within = part.inputs // part.groups
            outer = int(spec.settings["experts"]) if spec.name == "moe" else 1
            each = part.inputs // int(spec.settings[width]) // outer
            for group, rows_of in enumerate(matrix.chunk(part.groups)):
                for column in range(within):
                    at = group * within + column
                    if at // each % int(spec.settings[width]) not in keep:
                        rows_of.unflatten(1, (within, -1))[:, column] = 0
            part.fit(matrix)
    return quiet


@pytest.mark.parametrize(("text", "shape", "width", "keep"), IN_NETS)
def test_a_narrow_net_is_one_that_does_not_read_the_rest(
    text: str, shape: tuple[int, ...], width: str, keep: tuple[int, ...]
) -> None:
    net, x = net_of(text), torch.randn(3, *shape, dtype=torch.float64)
    narrow = edited(net, Narrow(path=PATH, width=width, keep=keep))
    assert isinstance(narrow, Net)
    assert narrow.spec.stages[0].layers[1].block.settings[width] == len(keep)
    assert narrow.spec.stages[0].layers[0] == net.spec.stages[0].layers[0]
    gap = narrow(x) - silent(net, width, keep)(x)
    if "low_rank" not in text:  # a fit of a matrix with zeroed columns is exact too, but silences nothing by itself
        assert not torch.equal(narrow(x), net(x))
    assert float(gap.abs().max().detach()) < EXACT


def test_experts_that_go_leave_their_share_to_the_others() -> None:
    net = net_of("vector[features=5] | residual(moe[experts=3,top=3,hidden=4]) 2x8 | pool[outputs=3]")
    with pytest.raises(Refused, match=r"stages\.0\.layers\.1: with 2 of its 3 experts it cannot be built"):
        edited(net, Narrow(path=PATH, width="experts", keep=(0, 2)))


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    (MIXED, {"width": "heads", "keep": (0,)}, r"block mlp has no width 'heads'; known: hidden"),
    (MIXED, {"width": "hidden", "keep": ()}, r"keep must name some hidden from 0 to 5"),
    (MIXED, {"width": "hidden", "keep": (2, 1)}, r"each once and in order"),
    (MIXED, {"width": "hidden", "keep": (1, 6)}, r"keep must name some hidden from 0 to 5"),
    (MIXED, {"width": "hidden", "keep": tuple(range(6))}, r"names all 6 hidden; leave some out"),
    (MIXED, {"path": "stages.0", "width": "hidden", "keep": (0,)}, r"stages\.0: in a Net, edits work on layers"),
    (MIXED, {"width": "hidden", "keep": (0,), "slices": (("w", 0, 2, (0,)),)}, r"leave slices and settings out"),
    (MIXED.replace("3x8", "2x8@0,1,0"), {"width": "hidden", "keep": (0,)}, r"visits layers several times"),
    (IN_NETS[7][0], {"width": "hidden", "keep": (0, 1, 4)}, r"with 3 of its 8 hidden it cannot be built: .*2 groups"),
    (IN_NETS[7][0], {"width": "hidden", "keep": (0, 1, 2, 4)}, r"it works in 2 groups; keep as many units of each"),
]


@pytest.mark.parametrize(("text", "said", "why"), REFUSED)
def test_refused_in_one_line(text: str, said: dict[str, Any], why: str) -> None:
    net = net_of(text)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with pytest.raises(Refused, match=why) as refused:
        edited(net, Narrow(**({"path": PATH} | said)))
    assert "\n" not in str(refused.value)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def narrowed(module: nn.Module, example: Any, weight: str, keep: tuple[int, ...]) -> Narrow:
    (width,) = (one for one in coupled(module, example).widths if one.weight == weight)
    slices, changes = width.cut(keep)
    return Narrow(path=width.path, keep=keep, slices=slices, settings=changes)


STRANGERS: list[tuple[nn.Module, Tensor, str, tuple[int, ...]]] = [
    (PlainCNN(), rows(*IMAGE), "body.0.weight", (0, 3, 6)),
    (TinyResNet(2), rows(1, 8, 8), "layer2.0.conv2.weight", (1, 3)),
    (FusedAttention("view"), rows(7, 12), "qkv.weight", (1, 2)),
    (SharedKeys(False), rows(7, 12), "q.weight", (0, 2)),
    (Tied(), rows(5), "there.weight", (0, 5, 7)),
    (TokenModel(), torch.randint(0, 11, (2, 7)), "encoder.layers.1.self_attn.in_proj_weight", (3,)),
]


@pytest.mark.parametrize(("module", "x", "weight", "keep"), STRANGERS, ids=lambda value: type(value).__name__)
def test_a_stranger_replays_from_json(module: nn.Module, x: Tensor, weight: str, keep: tuple[int, ...]) -> None:
    """The edit needs no example: on a fresh base, with the weights loaded strictly, it gives the same bit for bit."""
    module = randomised(copy.deepcopy(module))
    before = {key: value.clone() for key, value in module.state_dict().items()}
    edit = narrowed(module, x, weight, keep)
    shrunk = edited(module, edit)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    recipe = Recipe.from_json(json.loads(json.dumps(Recipe("nets.py:make", (edit,)).to_json())))
    assert recipe.edits == (edit,)
    fresh = recipe.replay(randomised(copy.deepcopy(module), seed=9))
    fresh.load_state_dict(shrunk.state_dict(), strict=True)
    assert torch.equal(fresh.eval()(x), shrunk.eval()(x))
    assert edit_part(edit).name == "narrow"


def test_tied_weights_stay_tied() -> None:
    module = randomised(Tied())
    shrunk = edited(module, narrowed(module, rows(5), "there.weight", (1, 2, 6)))
    assert isinstance(shrunk, Tied)
    assert shrunk.mid is shrunk.again
    assert shrunk.mid.weight.shape == (3, 3)
    model = randomised(TokenModel())
    ids = torch.randint(0, 11, (2, 7))
    narrow = edited(model, narrowed(model, ids, "encoder.layers.0.linear1.weight", (1, 2, 6)))
    assert isinstance(narrow, TokenModel)
    assert narrow.encoder.layers[0].linear1.out_features == 3
    assert narrow.encoder.layers[1].linear1.out_features == 20


def test_a_stranger_without_slices_is_refused() -> None:
    with pytest.raises(Refused, match=r"let shoal\.coupling find the slices"):
        edited(PlainCNN(), Narrow(path="body.0", width="hidden", keep=(0,)))
    with pytest.raises(Refused, match="there is no such weight"):
        edited(PlainCNN(), Narrow(path="body.0", slices=(("body.9.weight", 0, 8, (0,)),)))


class Dead(nn.Module):
    """A residual block and a plain one in which every other unit does nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 6))
        self.up, self.down = nn.Linear(6, 10), nn.Linear(10, 3)
        for made, read in ((self.block[0], self.block[2]), (self.up, self.down)):
            nn.init.zeros_(made.weight[1::2])
            nn.init.zeros_(made.bias[1::2])
            nn.init.zeros_(read.weight[:, 1::2])

    def forward(self, x: Tensor) -> Tensor:
        return self.down((self.up(x + self.block(x))).relu())


def scene_of(module: nn.Module, x: Tensor, labelled: bool = True) -> Scene:
    task = TASKS.make(Part("classification", {"classes": 3})) if labelled else None
    target = torch.arange(len(x)) % 3 if labelled else None
    return Scene(module, anatomy(module, x), (Batch(x, target),), task)


@pytest.mark.parametrize("by", ["magnitude", "activation", "taylor", "fisher"])
@pytest.mark.parametrize("labelled", [True, False])
def test_dead_units_go_first(by: str, labelled: bool) -> None:
    torch.manual_seed(0)
    module, x = Dead().eval(), torch.randn(12, 6)
    proposals = list(Channels(by=by).propose(scene_of(module, x, labelled)))
    assert [one.edits[0].keep for one in proposals] == [(0, 2, 4, 6, 8)] * 2
    assert [(one.paths, one.into) for one in proposals] == [(("block",), "block"), (("up", "down"), None)]
    for one in proposals:
        assert float((done(module, one)(x) - module(x)).abs().max().detach()) < 1e-5


@pytest.mark.parametrize("by", ["magnitude", "activation", "taylor", "fisher"])
def test_dead_units_of_a_net_go_first(by: str) -> None:
    torch.manual_seed(0)
    net = Net(Spec.parse("convolution[channels=1] | residual(conv[hidden=8]) 2x6 | pool[outputs=3]")).eval()
    x = torch.randn(6, 5, 5, 1)
    for layer in net.stages[0].layers:
        nn.init.zeros_(layer.block.first.weight[1::2])
        nn.init.zeros_(layer.block.inner.weight[1::2])
        nn.init.zeros_(layer.block.second.weight[:, 1::2])
    proposals = list(Channels(by=by).propose(scene_of(net, x)))
    assert [one.edits for one in proposals] == [
        (Narrow(path=f"stages.0.layers.{i}", width="hidden", keep=(0, 2, 4, 6)),) for i in range(2)
    ]
    for one in proposals:
        assert float((done(net, one)(x) - net(x)).abs().max().detach()) < 1e-5


def test_groups_of_a_net_lose_as_many_each() -> None:
    net = Net(Spec.parse("convolution[channels=1] | residual(bottleneck[hidden=8,groups=2]) 2x8 | pool[outputs=3]"))
    first = next(iter(Channels(by="magnitude", share=0.3).propose(scene_of(net, torch.randn(4, 6, 6, 1)))))
    (edit,) = first.edits
    assert isinstance(edit, Narrow)
    assert [unit // 4 for unit in edit.keep] == [0, 0, 0, 1, 1, 1]


def test_heads_and_units_of_one_layer_are_proposed_together_too() -> None:
    net = Net(Spec.parse("patches[channels=1,size=[4,4]] | residual(transformer[heads=4]) 2x16 | pool[outputs=3]"))
    x = torch.randn(4, 8, 8, 1)
    proposals = list(Channels(by="taylor").propose(scene_of(net, x)))
    assert [[edit.width for edit in one.edits] for one in proposals] == [["heads"], ["hidden"], ["heads", "hidden"]] * 2
    small = done(net, proposals[2])
    assert isinstance(small, Net)
    settings = small.spec.stages[0].layers[0].block.settings
    assert (settings["heads"], settings["hidden"]) == (2, 32)


def test_wide_widths_stay_multiples() -> None:
    module = nn.Sequential(nn.Linear(6, 50), nn.ReLU(), nn.Linear(50, 3))
    (one,) = Channels(by="magnitude", share=0.5).propose(scene_of(module, torch.randn(4, 6)))
    assert len(one.edits[0].keep) == 32
    (one,) = Channels(by="magnitude", share=0.5, multiple=1).propose(scene_of(module, torch.randn(4, 6)))
    assert len(one.edits[0].keep) == 25


@pytest.mark.parametrize("wrong", [{"by": "luck"}, {"share": 0.0}, {"share": 1.0}, {"multiple": 0}, {"rows": 0}])
def test_bad_settings(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadSetting, match="compressor channels: "):
        Channels(**wrong)


def test_proposing_changes_nothing_of_a_frozen_module() -> None:
    module = Dead().train()
    module.up.weight.requires_grad_(False)
    list(Channels().propose(scene_of(module, torch.randn(4, 6))))
    assert not module.up.weight.requires_grad
    assert all(p.grad is None for p in module.parameters())
    assert module.training


def test_a_net_narrowed_as_a_stranger_is_one_rewritten() -> None:
    net, x = net_of(MIXED), rows(5)
    (width, *_) = (one for one in coupled(net, x).widths if one.weight.startswith(PATH))
    slices, changes = width.cut((0, 2))
    applied = Narrow(path=width.path, keep=(0, 2), slices=slices, settings=changes).apply(copy.deepcopy(net))
    rewritten = edited(net, Narrow(path=PATH, width="hidden", keep=(0, 2)))
    assert torch.equal(applied(x), rewritten(x))


def test_an_edit_of_another_module_is_refused() -> None:
    edit = narrowed(PlainCNN(), torch.randn(1, *IMAGE), "body.0.weight", (0, 1))
    with pytest.raises(Refused, match="there is no such weight"):
        edited(TinyResNet(1), edit)
