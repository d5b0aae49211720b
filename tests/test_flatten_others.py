"""Flattening modules of other people: what is merged is the sum of the branches, exactly; what cannot be is left."""

from __future__ import annotations

import copy
import itertools
import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shoal.anatomy import anatomy
from shoal.compressors.flatten import Flatten
from shoal.core.base import Proposal
from shoal.core.errors import BadSetting, Refused
from shoal.core.part import Part
from shoal.core.scene import Batch, Scene
from shoal.edits.merge import Merge
from shoal.kinds import TASKS
from shoal.recipe import Recipe, done, edited, replayed


class Block(nn.Module):
    """Two convolutions with norms, a skip, and a ReLU behind the sum, as in a ResNet."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, inner, 3, 1, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv2, self.bn2 = nn.Conv2d(inner, width, 3, 1, 1), nn.BatchNorm2d(width)

    def branch(self, x: Tensor) -> Tensor:
        return self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.branch(x))


class Simple(nn.Module):
    """A residual MLP with biases and a depth of its own kind of activation."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.up, self.act, self.down = nn.Linear(width, inner), nn.PReLU(inner), nn.Linear(inner, width)

    def branch(self, x: Tensor) -> Tensor:
        return self.down(self.act(self.up(x)))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class Bottleneck(nn.Module):
    """A matrix within reads inner units and gives inner units."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.up, self.mid, self.down = nn.Linear(width, inner), nn.Linear(inner, inner), nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(torch.relu(self.mid(torch.relu(self.up(x)))))


class Normed(Simple):
    """A norm of its own before the branch."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__(width, inner)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(self.norm(x))


class Stack(nn.Module):
    """Blocks of a kind, between a stem and a head."""

    def __init__(self, kind: Any, inner: tuple[int, ...], image: bool) -> None:
        super().__init__()
        self.stem: nn.Module = nn.Conv2d(3, 6, 3, padding=1) if image else nn.Linear(5, 6)
        self.blocks = nn.Sequential(*(kind(6, size) for size in inner))
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.blocks(F.relu(self.stem(x)))
        return self.head(y.mean(dim=(2, 3)) if y.dim() == 4 else y)


def shaken(kind: Any, inner: tuple[int, ...], image: bool, rows: int = 7) -> tuple[Stack, Tensor]:
    """In float64, all weights and statistics at random."""
    torch.manual_seed(0)
    net = Stack(kind, inner, image).double().eval()
    with torch.no_grad():
        for name, value in [*net.named_parameters(), *net.named_buffers()]:
            if value.is_floating_point():
                value.copy_(torch.rand_like(value) + 0.5 if "var" in name else 0.5 * torch.randn_like(value))
    shape = (rows, 3, 8, 8) if image else (rows, 5)
    return net, torch.randn(shape, dtype=torch.float64)


def proposals(net: nn.Module, x: Tensor, **settings: Any) -> list[Proposal]:
    task = TASKS.make(Part("classification", {"classes": 4}))
    scene = Scene(net, anatomy(net, x), (Batch(x, torch.arange(len(x)) % 4),), task)
    return list(Flatten(**settings).propose(scene))


CASES = [(Block, (8, 8, 8, 8), True), (Block, (8, 4, 6, 3), True), (Simple, (9, 9, 5, 9), False)]


@pytest.mark.parametrize(("kind", "inner", "image"), CASES)
@pytest.mark.parametrize("size", [2, 3, 4])
def test_merged_is_the_sum_of_the_branches(kind: Any, inner: tuple[int, ...], image: bool, size: int) -> None:
    net, x = shaken(kind, inner, image)
    whole = [one for one in proposals(net, x, together=(size,), wide=()) if len(one.edits) == 1]
    assert len(whole) == len(inner) - size + 1
    for one in whole:
        merged = replayed(net, one.edits)
        first = int(one.paths[0].rpartition(".")[2])
        blocks = net.blocks[first : first + size]
        given = torch.rand_like(net.stem(x))  # not negative, as behind a ReLU
        total = given + sum(block.branch(given) for block in blocks)  # type: ignore[operator, arg-type]
        wanted = F.relu(total) if kind is Block else total
        found = merged.get_submodule(one.paths[0])(given)
        assert float((found - wanted).abs().max().detach()) < 1e-10
        for path in one.paths[1:]:
            assert torch.equal(merged.get_submodule(path)(given), given)
        assert len(anatomy(merged, x).spans) == len(anatomy(net, x).spans) - size + 1


@pytest.mark.parametrize(("kind", "inner", "image"), CASES)
def test_narrowed_is_merged_with_zeros(kind: Any, inner: tuple[int, ...], image: bool) -> None:
    """Units that are cut away may as well have given nothing; and as many stay as were asked for."""
    net, x = shaken(kind, inner, image)
    found = proposals(net, x, together=(3,), wide=(1,))
    pairs = [(a, b) for a, b in itertools.pairwise(found) if len(a.edits) == 1 and len(b.edits) == 2]
    assert len(pairs) == len(inner) - 2
    for merge, narrow in pairs:
        slices = {(name, axis): kept for name, axis, _, kept in narrow.edits[1].slices}  # type: ignore[attr-defined]
        wide, thin = replayed(net, merge.edits), replayed(net, narrow.edits)
        reader = "conv2" if kind is Block else "down"
        weight = wide.get_submodule(f"{merge.into}.{reader}").weight
        kept = slices[f"{merge.into}.{reader}.weight", 1]
        start = int(merge.paths[0].rpartition(".")[2])
        assert len(kept) == max(inner[start : start + 3])
        gone = [i for i in range(weight.shape[1]) if i not in kept]  # type: ignore[index, arg-type]
        with torch.no_grad():
            weight[:, gone] = 0  # type: ignore[operator]
        assert float((wide(x) - thin(x)).abs().max().detach()) < 1e-10


def test_the_units_that_matter_stay() -> None:
    """Units that give nothing are the first to go, whichever layer they were in."""
    net, x = shaken(Simple, (6, 6), False)
    with torch.no_grad():
        net.blocks[0].down.weight[:, ::2] = 0  # type: ignore[union-attr, index]
        net.blocks[1].down.weight[:, 1:4] = 0  # type: ignore[union-attr, index]
    merge, narrow = proposals(net, x, together=(2,), wide=(1,))
    kept = {(name, axis): kept for name, axis, _, kept in narrow.edits[1].slices}  # type: ignore[attr-defined]
    assert kept["blocks.0.down.weight", 1] == (1, 3, 5, 6, 10, 11)
    assert float((replayed(net, merge.edits)(x) - replayed(net, narrow.edits)(x)).abs().max().detach()) < 1e-10


@pytest.mark.parametrize(("kind", "why"), [(Bottleneck, "mostly zeros"), (Normed, "each has its own")])
def test_what_cannot_be_joined_is_left(kind: Any, why: str, caplog: pytest.LogCaptureFixture) -> None:
    net, x = shaken(kind, (6, 6, 6), False)
    with caplog.at_level("INFO", logger="shoal"):
        assert not proposals(net, x)
    assert why in caplog.text


def test_norms_before_the_branches_may_stand_where_they_are_the_same() -> None:
    net, x = shaken(Normed, (6, 6), False)
    net.blocks[1].norm.load_state_dict(net.blocks[0].norm.state_dict())  # type: ignore[union-attr]
    merge, *_ = proposals(net, x)
    given = torch.randn(7, 6, dtype=torch.float64)
    wanted = given + sum(block.branch(block.norm(given)) for block in net.blocks)  # type: ignore[operator, arg-type]
    found = replayed(net, merge.edits).get_submodule("blocks.0")(given)
    assert float((found - wanted).abs().max().detach()) < 1e-10


def test_a_merge_survives_json_and_is_done_again_on_a_fresh_base() -> None:
    net, x = shaken(Block, (8, 4, 6, 3), True)
    one = proposals(net, x, together=(3,), wide=(1,))[1]
    before = copy.deepcopy(net.state_dict())
    merged = replayed(net, one.edits)
    recipe = Recipe.from_json(json.loads(json.dumps(Recipe("file.py:net", one.edits).to_json())))
    fresh = recipe.replay(shaken(Block, (8, 4, 6, 3), True)[0])
    with torch.no_grad():
        for value in fresh.parameters():
            value.zero_()
    fresh.load_state_dict(merged.state_dict(), strict=True)
    assert torch.equal(fresh.eval()(x), merged.eval()(x))
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in before.items())


@pytest.mark.parametrize(("kind", "inner", "image"), CASES)
def test_what_takes_their_place_comes_near_what_they_gave(kind: Any, inner: tuple[int, ...], image: bool) -> None:
    """The last matrix is fitted to what all of them gave one after another; on rows that nobody looked at, too."""
    net, x = shaken(kind, inner, image, rows=96)
    fresh = torch.randn_like(x)
    found = proposals(net, x, together=(2, 3), wide=(1,), rows=96)
    gaps = []
    for one in found:
        first, last = (int(path.rpartition(".")[2]) for path in (one.paths[0], one.paths[-1]))
        given = net.blocks[:first](F.relu(net.stem(fresh)))
        wanted = net.blocks[first : last + 1](given)
        plain, drawn = (made.get_submodule(one.paths[0])(given) for made in (replayed(net, one.edits), done(net, one)))
        gaps.append(float((drawn - wanted).square().sum().detach() / (plain - wanted).square().sum().detach()))
    assert max(gaps) < 1.02
    assert sum(gap < 0.7 for gap in gaps) >= len(gaps) / 2


def test_a_fit_that_can_be_exact_is() -> None:
    """Where the later branch is linear, what the earlier one adds to it is a linear map of the earlier one's units."""
    net, x = shaken(Simple, (9, 9), False, rows=192)
    with torch.no_grad():
        net.blocks[1].act.weight.fill_(1.0)  # type: ignore[union-attr, operator]
    merge = proposals(net, x, together=(2,), wide=(), rows=192)[0]
    wanted = net(x)
    plain, drawn = replayed(net, merge.edits)(x) - wanted, done(net, merge)(x) - wanted
    assert float(drawn.abs().max().detach()) < 0.01 * float(plain.abs().max().detach())


def test_unlike_modules_are_refused_by_the_edit() -> None:
    net, _ = shaken(Simple, (6, 6), False)
    edit = Merge(paths=("blocks.0", "stem"), joins=(("up.weight", 0), ("down.weight", 1)))
    with pytest.raises(Refused, match="not built alike"):
        edited(net, edit)
    with pytest.raises(Refused, match="compressor flatten finds it"):
        edited(net, Merge(paths=("blocks.0", "blocks.1")))


@pytest.mark.parametrize("settings", [{"together": (1,)}, {"together": ()}, {"wide": (0,)}, {"rows": 0}])
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(BadSetting, match="compressor flatten"):
        Flatten(**settings)
