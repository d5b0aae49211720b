"""Edits: both sides agree, what is exact is exact, what cannot be done is refused and nothing is changed."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from shoal.anatomy import anatomy
from shoal.core.base import Edit
from shoal.core.errors import BadModel, Refused
from shoal.core.spec import Spec
from shoal.edits.drop import Drop
from shoal.edits.fold import Fold
from shoal.edits.merge import Merge
from shoal.edits.parallel import Parallel
from shoal.net import Net
from shoal.recipe import Recipe, edited, replayed
from strangers import TinyResNet, randomised

IMAGE = torch.randn(3, 1, 8, 8, dtype=torch.float64)
EXACT = 1e-10
MERGED = [
    ("vector[features=5] | residual(mlp) 4x8 | pool[outputs=3]", (5,)),
    ("vector[features=5] | residual(gated_mlp[hidden=6] norm=rms) 4x8 | pool[outputs=3]", (5,)),
    ("vector[features=5] | residual(mlp norm=batch) 4x8 | pool[outputs=3]", (5,)),
    ("vector[features=5] | residual(mlp[hidden=3], mlp[hidden=9], mlp*2) 4x8 | pool[outputs=3]", (5,)),
    ("convolution[channels=1] | residual(conv) 4x8 | pool[outputs=3]", (8, 8, 1)),
    ("convolution[channels=1] | residual(conv[kernel=[1,5],bias=true] norm=none) 4x8 | pool[outputs=3]", (8, 8, 1)),
    ("patches[channels=1,size=[8,8]] | residual(attention[heads=2]) 4x8 | pool[outputs=3]", (8, 8, 1)),
]


def net_of(text: str) -> Net:
    net = randomised(Net(Spec.parse(text)))
    assert isinstance(net, Net)
    return net


def rows(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(3, *shape, dtype=torch.float64)


def layers(*numbers: int, stage: int = 0) -> tuple[str, ...]:
    return tuple(f"stages.{stage}.layers.{number}" for number in numbers)


@pytest.mark.parametrize(("text", "shape"), MERGED)
def test_merged_is_side_by_side(text: str, shape: tuple[int, ...]) -> None:
    x = rows(shape)
    side = edited(net_of(text), Parallel(paths=layers(1, 2)))
    merged = edited(side, Merge(paths=layers(1, 2)))
    assert isinstance(merged, Net)
    assert merged.spec.stages[0].depth == 3
    assert float((merged(x) - side(x)).abs().max().detach()) < EXACT


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 6), st.integers(0, 10**6))
def test_whole_stage_becomes_one_layer(depth: int, seed: int) -> None:
    net = randomised(Net(Spec.parse(f"vector[features=5] | residual(mlp) {depth}x8 | pool[outputs=3]")), seed)
    x = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    side = edited(net, Parallel(paths=layers(*range(depth))))
    wide = edited(side, Merge(paths=layers(*range(depth))))
    assert isinstance(wide, Net)
    assert wide.spec.stages[0].layers[0].block.settings["hidden"] == 32 * depth
    assert float((wide(x) - side(x)).abs().max().detach()) < EXACT
    assert sum(p.numel() for p in wide.stages.parameters()) < sum(p.numel() for p in side.stages.parameters())


@pytest.mark.parametrize(
    ("text", "shape", "edit", "stranger"),
    [
        (MERGED[0][0], (5,), Drop(path="stages.0.layers.2", branch=True), True),
        (MERGED[4][0], (8, 8, 1), Drop(path="stages.0.layers.0", branch=True), True),
        ("vector[features=5] | plain(mlp) 3x8 | pool[outputs=3]", (5,), Drop(path="stages.0.layers.1"), True),
        ("vector[features=5] | grouped[size=2](mlp) 4x8 | pool[outputs=3]", (5,),
         Drop(path="stages.0.layers.1", branch=True), True),
        ("vector[features=5] | looped[times=3](mlp) 2x8 | pool[outputs=3]", (5,),
         Drop(path="stages.0.layers.1", branch=True), True),
    ],
)  # fmt: skip
def test_a_net_rewritten_is_a_module_edited(text: str, shape: tuple[int, ...], edit: Edit, stranger: bool) -> None:
    net, x = net_of(text), rows(shape)
    rewritten, applied = edited(net, edit), edit.apply(copy.deepcopy(net))
    assert isinstance(rewritten, Net)
    assert str(rewritten.spec) != str(net.spec)
    assert torch.equal(rewritten(x), applied(x))
    assert not torch.equal(rewritten(x), net(x))


def test_grouped_net_is_the_stranger_side_by_side() -> None:
    """A chain of modules that carry their own skip, side by side, is the grouped wiring of their branches."""
    net, x = net_of("vector[features=5] | residual(mlp) 3x8 | pool[outputs=3]"), rows((5,))

    class Skip(nn.Module):
        def __init__(self, branch: nn.Module) -> None:
            super().__init__()
            self.branch = branch

        def forward(self, x: Tensor) -> Tensor:
            return x + self.branch(x)

    chain = nn.Sequential(net.stem, *(Skip(layer) for layer in net.stages[0].layers), net.head)  # type: ignore[union-attr]
    assert torch.equal(chain(x), net(x))
    found = anatomy(chain, x)
    assert found.chains == (("1", "2", "3"),)
    side = edited(chain, Parallel(paths=("2", "3")))
    grouped = edited(net, Parallel(paths=layers(1, 2)))
    assert float((side(x) - grouped(x)).abs().max().detach()) < EXACT


def test_folded_stranger_is_exact_and_has_no_norms_left() -> None:
    net = randomised(TinyResNet())
    folds = Fold(pairs=anatomy(net, IMAGE).folds)
    folded = edited(net, folds)
    assert float((folded(IMAGE) - net(IMAGE)).abs().max().detach()) < EXACT
    assert not any(isinstance(part, nn.BatchNorm2d) for part in folded.modules())
    assert sum(isinstance(part, nn.BatchNorm2d) for part in net.modules()) == 13


def test_folded_linear_chain_is_exact() -> None:
    net = randomised(nn.Sequential(nn.Linear(5, 9, bias=False), nn.Linear(9, 4), nn.BatchNorm1d(4), nn.ReLU()))
    x = torch.randn(6, 5, dtype=torch.float64)
    found = anatomy(net, x)
    assert found.folds == (("0", "1"), ("1", "2"))
    folded = edited(net, Fold(pairs=found.folds))
    assert float((folded(x) - net(x)).abs().max().detach()) < EXACT
    assert sum(p.numel() for p in folded.parameters()) == 5 * 4 + 4


def test_folded_net_is_exact() -> None:
    for text, shape in (
        *MERGED[2:3],
        *MERGED[4:5],
        ("convolution[channels=1] | residual(bottleneck) 3x8 | pool[outputs=3]", (8, 8, 1)),
    ):
        net, x = net_of(text), rows(shape)
        folded = edited(net, Fold())
        assert isinstance(folded, Net)
        assert "norm=none" in str(folded.spec)
        assert float((folded(x) - net(x)).abs().max().detach()) < EXACT


def test_a_recipe_replays_on_a_fresh_stranger() -> None:
    edits: tuple[Edit, ...] = (
        Drop(path="layer1.1"),
        Parallel(paths=("layer2.1", "layer2.2")),
        Fold(pairs=(("conv", "bn"), ("layer1.0.conv1", "layer1.0.bn1"))),
    )
    shrunk = replayed(randomised(TinyResNet()), edits)
    recipe = Recipe.from_json(Recipe("file.py:net", edits).to_json())
    fresh = recipe.replay(TinyResNet().double())
    fresh.load_state_dict(shrunk.state_dict(), strict=True)
    assert torch.equal(fresh.eval()(IMAGE), shrunk.eval()(IMAGE))


REFUSED: list[tuple[str, Edit, str]] = [
    ("residual(mlp) 1x8", Drop(path="stages.0.layers.0"), "only layer"),
    ("dense(mlp) 3x8", Drop(path="stages.0.layers.1"), "cannot go"),
    ("residual(mlp) 2x8@0,1,0", Drop(path="stages.0.layers.1"), "several times"),
    ("residual(mlp) 3x8", Drop(path="stages.0.layers.7"), "no such layer"),
    ("residual(mlp) 3x8", Drop(path="head"), "work on layers"),
    ("plain(mlp) 3x8", Parallel(paths=layers(0, 1)), "does not add"),
    ("residual(mlp) 3x8", Parallel(paths=layers(0, 2)), "neighbouring"),
    ("grouped[size=2](mlp) 4x8", Parallel(paths=layers(1, 2)), "cut through"),
    ("residual(mlp) 3x8", Merge(paths=layers(0, 1)), "parallel first"),
    ("grouped[size=2](mlp, gated_mlp) 2x8", Merge(paths=layers(0, 1)), "unlike"),
    ("grouped[size=2](mlp[act=relu], mlp[act=tanh]) 2x8", Merge(paths=layers(0, 1)), "differ"),
    ("grouped[size=2](mlp linear=low_rank) 2x8", Merge(paths=layers(0, 1)), "dense"),
    ("residual(mlp) 3x8", Fold(), "no norm"),
]


@pytest.mark.parametrize(("text", "edit", "why"), REFUSED)
def test_refused_and_untouched(text: str, edit: Edit, why: str) -> None:
    net = net_of(f"vector[features=5] | {text} | pool[outputs=3]")
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(Refused, match=why):
        edited(net, edit)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_merge_refuses_what_is_not_exact() -> None:
    images = "convolution[channels=1] | grouped[size=2]({}) 2x8 | pool[outputs=3]"
    for layer, why in (("conv norm=layer", "mixes its channels"), ("bottleneck", "mostly zeros")):
        with pytest.raises(Refused, match=why):
            edited(net_of(images.format(layer)), Merge(paths=layers(0, 1)))


def test_a_stranger_that_fails_in_the_middle_is_untouched() -> None:
    net = randomised(TinyResNet())
    out = net(IMAGE)
    for edit in (
        Drop(path="layer9"),
        Parallel(paths=("layer1.0", "layer9")),
        Fold(pairs=(("conv", "bn"), ("layer1.0.conv1", "linear"))),
        Fold(pairs=(("conv", "nowhere"),)),
    ):
        with pytest.raises((Refused, BadModel)):
            edited(net, edit)
        assert torch.equal(net(IMAGE), out)


def test_modes_survive_editing() -> None:
    net: Any = net_of(MERGED[0][0])
    for training in (True, False):
        assert edited(net.train(training), Drop(path="stages.0.layers.1")).training is training
