"""Factor, mask, linearize, share, loop, replace and exit: what each says it does, on Nets and on strangers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from shoal.anatomy import anatomy
from shoal.artifact.weights import fill, read_weights, write_weights
from shoal.compressors.linear import Linear as LinearCompressor
from shoal.compressors.low_rank import LowRank
from shoal.compressors.repeat import Repeat
from shoal.core.base import Edit, Proposal
from shoal.core.errors import BadSetting, BadSpec, Refused, UnknownName
from shoal.core.part import Part
from shoal.core.scene import Batch, Scene
from shoal.core.spec import Spec
from shoal.edits.drop import Drop
from shoal.edits.exit import Exit
from shoal.edits.factor import Factor
from shoal.edits.fold import Fold
from shoal.edits.linearize import Linearize
from shoal.edits.loop import Loop
from shoal.edits.mask import Mask
from shoal.edits.replace import Replace
from shoal.edits.share import Share
from shoal.kinds import LINEARS
from shoal.linears._cuts import split, tucker
from shoal.linears._masks import mask_of
from shoal.net import Net
from shoal.recipe import Recipe, done, edited, replayed
from shoal.testing._exports import check_onnx
from strangers import Encoder, TinyResNet, randomised

EXACT = 1e-10
ROWS = "vector[features=5] | {} | pool[outputs=3]"
IMAGES = "convolution[channels=1] | {} | pool[outputs=3]"
IMAGE = torch.randn(3, 1, 8, 8, dtype=torch.float64)


def net_of(text: str, seed: int = 0) -> Net:
    net = randomised(Net(Spec.parse(text)), seed)
    assert isinstance(net, Net)
    return net


def rows(*shape: int) -> Tensor:
    return torch.randn(4, *(shape or (5,)), dtype=torch.float64)


def images() -> Tensor:
    return rows(6, 5, 1)


def layer(number: int, stage: int = 0) -> str:
    return f"stages.{stage}.layers.{number}"


def gap(one: nn.Module, other: nn.Module, x: Tensor) -> float:
    return float((one(x) - other(x)).abs().max().detach())


def step(module: nn.Module, x: Tensor) -> None:
    """A step of training that moves every weight that it may move."""
    module.train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1, weight_decay=0.1)
    module(x).square().mean().backward()
    optimizer.step()
    module.eval()


# factor


@pytest.mark.parametrize(
    "edit",
    [
        Factor(path=layer(1), rank=99),
        Factor(path=f"{layer(1)}.block.up", rank=99),
        Factor(path=layer(1), kind="tensor_train", rank=999, cores=3),
    ],
)
def test_factored_at_full_rank_a_net_is_exact(edit: Factor) -> None:
    net, x = net_of(ROWS.format("residual(mlp) 3x8")), rows()
    assert gap(edited(net, edit), net, x) < EXACT


@pytest.mark.parametrize("kind", ["svd", "tucker", "tensor_train"])
def test_factored_at_full_rank_convolutions_are_exact(kind: str) -> None:
    net, x = net_of(IMAGES.format("residual(conv[bias=true]) 2x6")), images()
    edit = Factor(path=layer(1), kind=kind, rank=999)  # type: ignore[arg-type]  # from the list above
    assert gap(edited(net, edit), net, x) < EXACT


CONVOLUTIONS: list[Callable[[], nn.Module]] = [
    lambda: nn.Conv2d(6, 10, 3, stride=2, padding=1),
    lambda: nn.Conv2d(6, 10, (3, 5), padding=(0, 2), dilation=(2, 1), bias=False),
    lambda: nn.Conv2d(6, 10, 3, padding=1, padding_mode="reflect"),
    lambda: nn.Conv2d(6, 10, 3, padding="same"),
    lambda: nn.Conv2d(6, 10, 1),
]


@pytest.mark.parametrize("make", CONVOLUTIONS)
@pytest.mark.parametrize("kind", ["svd", "tucker"])
def test_factored_at_full_rank_a_strangers_convolution_is_exact(make: Callable[[], nn.Module], kind: str) -> None:
    module, x = randomised(nn.Sequential(make(), nn.ReLU())), rows(6, 9, 8)
    thin = edited(module, Factor(path="0", kind=kind, rank=99))  # type: ignore[arg-type]
    assert thin[0].weight.shape == module[0].weight.shape  # type: ignore[index]
    assert float((thin[0].weight - module[0].weight).abs().max().detach()) < EXACT  # type: ignore[index]
    assert gap(thin, module, x) < EXACT


@pytest.mark.parametrize("edit", [Factor(path="0", rank=99), Factor(path="0", kind="tensor_train", rank=99)])
def test_factored_at_full_rank_a_strangers_matrix_is_exact(edit: Factor) -> None:
    module = randomised(nn.Sequential(nn.Linear(5, 9), nn.Tanh(), nn.Linear(9, 2, bias=False)))
    thin = edited(module, edit)
    assert gap(thin, module, rows()) < EXACT
    assert float((thin[0].weight - module[0].weight).abs().max().detach()) < EXACT  # type: ignore[index]
    assert thin[0].bias.equal(module[0].bias)  # type: ignore[index]


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 9), st.integers(2, 9), st.integers(1, 5), st.integers(0, 10**6))
def test_a_cut_matrix_is_the_nearest_of_its_rank(outputs: int, inputs: int, rank: int, seed: int) -> None:
    """Eckart and Young: the error is what is left of the singular values, on both sides alike."""
    module = randomised(nn.Sequential(nn.Linear(inputs, outputs)), seed)
    weight = module[0].weight.detach()  # type: ignore[index]
    left = torch.linalg.svdvals(weight)[rank:].square().sum().sqrt()
    thin = edited(module, Factor(path="0", rank=rank))
    assert float(((thin[0].weight - weight).norm() - left).abs().detach()) < EXACT  # type: ignore[index]
    own = LINEARS.make(Part("low_rank", {"rank": rank}), inputs, outputs, False, (), 1).double()
    own.fit(weight)
    assert float((own.matrix() - thin[0].weight).abs().max().detach()) < 1e-9  # type: ignore[index]


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 10**6))
def test_a_cut_kernel_is_within_its_bounds(of_outputs: int, of_inputs: int, seed: int) -> None:
    """No axis can lose less than what its own singular values leave, and both together no more than the sum."""
    kernel = torch.randn(6, 5, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    own = LINEARS.make(Part("tucker", {"ranks": (of_outputs, of_inputs)}), 5, 6, False, (3, 3), 1).double()
    own.fit(kernel.flatten(1))
    error = float((own.matrix() - kernel.flatten(1)).square().sum().detach())
    flat = (kernel.flatten(1), kernel.transpose(0, 1).flatten(1))
    lost = [float(torch.linalg.svdvals(f)[r:].square().sum()) for f, r in zip(flat, own.ranks, strict=True)]
    assert max(lost) - EXACT <= error <= sum(lost) + EXACT
    up, core, down = tucker(kernel, own.ranks)
    eye = torch.eye(up.shape[1], dtype=torch.float64)
    assert float((up.T @ up - eye).abs().max()) < EXACT
    made = torch.einsum("oa,abhw,bi->oihw", up, core, down).flatten(1)
    assert float((made - own.matrix()).abs().max().detach()) < EXACT


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 6), st.integers(2, 3), st.integers(0, 10**6))
def test_a_cut_train_is_within_its_bounds(rank: int, cores: int, seed: int) -> None:
    """The error is at most what all cuts leave, and what the first cut leaves at least."""
    matrix = torch.randn(12, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    own = LINEARS.make(Part("tensor_train", {"rank": rank, "cores": cores}), 8, 12, False, (), 1).double()
    own.fit(matrix)
    error = float((own.matrix() - matrix).square().sum().detach())
    axes = [at for pair in zip(range(cores), range(cores, 2 * cores), strict=True) for at in pair]
    full = matrix.reshape(*own.rows, *own.parts).permute(axes)
    cuts = [full.flatten(0, 2 * at - 1).flatten(1) for at in range(1, cores)]
    lost = [
        float(torch.linalg.svdvals(cut)[bond:].square().sum()) for cut, bond in zip(cuts, own.bonds[1:-1], strict=True)
    ]
    assert max(lost) - EXACT <= error <= sum(lost) + EXACT


def test_sizes_are_split_evenly() -> None:
    assert [split(size, 2) for size in (1, 7, 12, 36, 64)] == [(1, 1), (7, 1), (4, 3), (6, 6), (8, 8)]
    assert split(30, 3) == (5, 3, 2)


def test_a_net_and_a_stranger_are_cut_alike() -> None:
    net, x = net_of(ROWS.format("residual(mlp) 3x8")), rows()
    wanted = copy.deepcopy(net)
    for name in ("up", "down"):
        part = wanted.get_submodule(f"{layer(1)}.block.{name}")
        part.fit((lambda u, s, v: u[:, :2] * s[:2] @ v[:2])(*torch.linalg.svd(part.matrix().detach(), False)))  # type: ignore[operator]
    thin = edited(net, Factor(path=layer(1), rank=2))
    assert isinstance(thin, Net)
    assert "linear=low_rank[rank=2]" in str(thin.spec)
    assert gap(thin, wanted, x) < EXACT


def test_thin_matrices_are_not_folded_back() -> None:
    thin = edited(randomised(nn.Sequential(nn.Linear(5, 9), nn.Tanh(), nn.Linear(9, 4))), Factor(path="0", rank=2))
    assert anatomy(thin, rows()).folds == ()


def test_attention_that_reads_its_weights_goes_on() -> None:
    """A parent that asks for ``weight`` is given the matrix that the thin ones make."""
    stack = randomised(nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True))
    x = rows(6, 8)
    thin = edited(stack, Factor(path="linear1", rank=99))
    with torch.no_grad():  # the fused path of torch reads linear1.weight
        assert gap(thin, stack, x) < EXACT


# mask


def test_masks_keep_the_largest() -> None:
    worth = torch.tensor([[3.0, 1, 2, 5, 4, 0], [1, 1.5, 1.2, 1.1, 9, 8]])
    assert mask_of(worth, 0.5).int().tolist() == [[1, 0, 1, 1, 1, 0], [0, 0, 0, 0, 1, 1]]
    assert mask_of(worth, 0.5, 4).int().tolist() == [[1, 0, 0, 1, 1, 1], [0, 1, 1, 0, 1, 1]]
    assert mask_of(worth, 0.01).sum() == 1


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.integers(1, 11), st.integers(1, 4), st.integers(2, 5), st.integers(0, 10**6))
def test_every_run_keeps_so_many(outputs: int, inputs: int, keep: int, of: int, seed: int) -> None:
    keep = min(keep, of)
    worth = torch.rand(outputs, inputs, 3, generator=torch.Generator().manual_seed(seed))
    mask = mask_of(worth, keep / of, of)
    for start in range(0, inputs, of):
        run = mask[:, start : start + of]
        assert bool((run.sum(dim=1) == min(keep, run.shape[1])).all())
        least = torch.where(run, worth[:, start : start + of], torch.inf).amin(dim=1)
        most = torch.where(run, -torch.inf, worth[:, start : start + of]).amax(dim=1)
        assert bool((least >= most).all())


@pytest.mark.parametrize("path", ["stages.0.layers.1", "stages.0.layers.1.block.first"])
def test_the_pattern_holds_when_a_net_is_trained(path: str) -> None:
    net, x = net_of(IMAGES.format("residual(conv) 2x8")), images()
    masked = edited(net, Mask(path=path, of=4))
    before = masked.get_submodule(f"{layer(1)}.block.first").matrix().detach().clone()  # type: ignore[operator]
    step(masked, x)
    after = masked.get_submodule(f"{layer(1)}.block.first").matrix().detach()  # type: ignore[operator]
    assert not torch.equal(before, after)
    kept = (after.view(8, 2, 4, 9) != 0).sum(dim=2)
    assert bool((kept == 2).all())
    assert torch.equal(after != 0, before != 0)


def test_the_pattern_holds_when_a_stranger_is_trained() -> None:
    masked = edited(randomised(TinyResNet()), Mask(path="layer2.1", of=4))
    step(masked, IMAGE)
    for name in ("conv1", "conv2"):
        weight = masked.get_parameter(f"layer2.1.{name}.weight")
        assert bool(((weight.view(16, 4, 4, 3, 3) != 0).sum(dim=2) == 2).all())
    assert bool((masked.get_parameter("layer2.2.conv1.weight") != 0).all())


def test_a_masked_stranger_folds_and_is_made_afresh_with_its_mask() -> None:
    masked = edited(randomised(TinyResNet()), Mask(path="layer1.0.conv1", density=0.3))
    folded = edited(masked, Fold(pairs=(("layer1.0.conv1", "layer1.0.bn1"),)))
    assert gap(folded, masked, IMAGE) < EXACT
    mask = folded.get_buffer("layer1.0.conv1.mask")
    assert int(mask.sum()) == round(0.3 * mask.numel())
    folded.get_submodule("layer1.0.conv1").reset_parameters()  # type: ignore[operator]
    assert torch.equal(folded.get_buffer("layer1.0.conv1.mask"), mask)


def test_a_net_is_masked_again_and_further() -> None:
    net = net_of(ROWS.format("residual(mlp) 2x8"))
    twice = replayed(net, (Mask(path=layer(0), density=0.5), Mask(path=layer(0), density=0.25)))
    once = edited(net, Mask(path=layer(0), density=0.25))
    assert gap(twice, once, rows()) == 0
    assert int(twice.get_buffer(f"{layer(0)}.block.up.mask").sum()) == 64


def test_norms_fold_into_masked_and_tucker_and_not_into_trains() -> None:
    """Scaled rows leave a mask and two ranks what they are, and a train not: there the norm stays."""
    net, x = net_of(IMAGES.format("residual(conv) 2x6")), images()
    for edit, left in (
        (Mask(path=layer(0), density=0.5), 0),
        (Factor(path=layer(0), kind="tucker", rank=3), 0),
        (Factor(path=layer(0), kind="tensor_train", rank=3), 1),
    ):
        thin = edited(net, edit)
        folded = edited(thin, Fold())
        assert isinstance(folded, Net)
        assert gap(folded, thin, x) < EXACT
        assert sum(layer.norm_part.name == "batch" for layer in folded.spec.stages[0].layers) == left


# linearize


def scene_of(module: nn.Module, x: Tensor) -> Scene:
    return Scene(module, anatomy(module, x), (Batch(x[: len(x) // 2]), Batch(x[len(x) // 2 :])))


@pytest.mark.parametrize(
    "text",
    [
        ROWS.format("residual(mlp[act=identity]) 3x8"),
        ROWS.format("plain(mlp[act=identity] norm=none) 3x8"),
        ROWS.format("grouped[size=[1,2,1,1]](mlp[act=identity] norm=none) 5x8"),
        ROWS.format("residual(mlp[act=identity] norm=batch) 3x8"),
    ],
)
def test_linear_layers_become_their_maps_exactly(text: str) -> None:
    net, x = net_of(text), torch.randn(64, 5, dtype=torch.float64)
    proposals = list(LinearCompressor(ridge=0.0, explains=0.0).propose(scene_of(net, x)))
    depth = net.spec.stages[0].depth
    singles, runs = ([p for p in proposals if len(p.paths) == size] for size in (1, 2))
    assert len(singles) == depth
    assert len(runs) == (depth - 1 if "grouped" not in text else 1)
    exact = "norm=none" in text or "batch" in text  # a layer norm before it makes it no linear map
    for one in proposals:
        linear = done(net, one)
        assert isinstance(linear, Net)
        assert linear.spec.stages[0].depth == depth + 1 - len(one.paths)
        assert (gap(linear, net, x) < 1e-7) == exact


def test_linear_spans_of_a_stranger_become_their_maps_exactly() -> None:
    class Skip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down, self.up = nn.Conv2d(6, 3, 1), nn.Conv2d(3, 6, 1)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.up(self.down(x))

    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.steps = nn.ModuleList(nn.Sequential(nn.Linear(5, 9), nn.Linear(9, 5)) for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            for one in self.steps:
                x = x + one(x)
            return x

    chain = randomised(nn.Sequential(Skip(), Skip(), nn.Conv2d(6, 2, 3)))
    for module, x, count in (
        (chain, torch.randn(6, 6, 5, 4, dtype=torch.float64), 3),
        (randomised(Branches()), torch.randn(32, 5, dtype=torch.float64), 2),
    ):
        proposals = list(LinearCompressor(ridge=0.0).propose(scene_of(module, x)))
        assert len(proposals) == count
        for one in proposals:
            assert gap(done(module, one), module, x) < 1e-7


def test_a_map_of_nothing_is_a_layer_dropped() -> None:
    net, x = net_of(ROWS.format("residual(mlp) 3x8")), rows()
    assert gap(edited(net, Linearize(paths=(layer(1),))), edited(net, Drop(path=layer(1), branch=True)), x) == 0
    run = edited(net, Linearize(paths=(layer(0), layer(1))))
    assert isinstance(run, Net)
    assert run.spec.stages[0].depth == 2
    module = randomised(TinyResNet())
    flat = edited(module, Linearize(paths=("layer1.1",), channels=8, places=2))
    assert gap(flat, edited(module, Drop(path="layer1.1")), IMAGE) == 0
    assert anatomy(flat, IMAGE).spans[0].path == "layer1.0"


def test_the_best_map_is_the_least_squares_one() -> None:
    net, x = net_of(ROWS.format("residual(mlp) 2x8")), torch.randn(96, 5, dtype=torch.float64)
    one = next(iter(LinearCompressor(ridge=0.0, explains=0.0).propose(scene_of(net, x))))
    flows: dict[str, Tensor] = {}
    net(x, see=lambda place, stream: flows.update({f"{place.layer}{place.end}": stream.detach()}))
    best = torch.linalg.lstsq(torch.cat((flows["0in"], torch.ones(96, 1).double()), 1), flows["0out"]).solution
    assert float((one.weights[f"{layer(0)}.block.map.weight"] - best[:-1].T).abs().max()) < 1e-7
    assert float((one.weights[f"{layer(0)}.block.map.bias"] - best[-1]).abs().max()) < 1e-7


def test_a_map_is_proposed_where_it_explains_enough() -> None:
    net, x = net_of(ROWS.format("residual(mlp) 3x8")), torch.randn(96, 5, dtype=torch.float64)
    flows: dict[str, Tensor] = {}
    net(x, see=lambda place, stream: flows.update({f"{place.layer}{place.end}": stream.detach()}))
    ones = torch.ones(96, 1, dtype=torch.float64)
    explained: dict[str, float] = {}
    for at in range(3):
        given, made = torch.cat((flows[f"{at}in"], ones), 1), flows[f"{at}out"]
        rest = made - given @ torch.linalg.lstsq(given, made).solution
        explained[layer(at)] = 1 - float(rest.var(dim=0).sum() / made.var(dim=0).sum())
    order = sorted(explained.values())
    for asked in (0.0, *((a + b) / 2 for a, b in pairwise(order)), 1.0):
        found = LinearCompressor(ridge=0.0, explains=asked).propose(scene_of(net, x))
        single = {one.paths[0] for one in found if len(one.paths) == 1}
        assert single == {path for path, share in explained.items() if share >= asked}
    with pytest.raises(BadSetting, match="explains=2 must be a share"):
        LinearCompressor(explains=2)


def test_stacks_of_torch_take_linear_spans_and_loops() -> None:
    torch.manual_seed(0)
    made = nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True)
    stack, x = randomised(nn.TransformerEncoder(made, 3)), rows(6, 8)
    for edit in (
        Linearize(paths=("layers.0",), channels=8),
        Linearize(paths=("layers.1", "layers.2"), channels=8),
        Loop(paths=("layers.0", "layers.1")),
        Share(paths=("layers.0", "layers.2")),
    ):
        with torch.no_grad():
            assert bool(edited(stack, edit)(x).isfinite().all())


# share and loop


def alike(text: str, *numbers: int) -> Net:
    """A net some of whose layers have the same weights as the first of them, norms apart."""
    net = net_of(text)
    state = net.state_dict()
    for name, value in state.items():
        for number in numbers[1:]:
            if name.startswith(f"{layer(number)}.") and "block" in name and not name.startswith(_norms(number)):
                value.copy_(state[name.replace(f"{layer(number)}.", f"{layer(numbers[0])}.")])
    return net


def _norms(number: int) -> tuple[str, ...]:
    return (f"{layer(number)}.norm", f"{layer(number)}.block.inner", f"{layer(number)}.block.before")


@pytest.mark.parametrize(
    ("body", "x"), [(IMAGES, images()), (ROWS.replace("vector[features=5]", "vector[features=5]"), rows())]
)
def test_shared_layers_of_one_weight_are_exact_with_their_own_norms(body: str, x: Tensor) -> None:
    block = "conv" if body is IMAGES else "mlp norm=batch"
    net = alike(body.format(f"residual({block}) 4x8"), 2, 0, 3)
    shared = edited(net, Share(paths=(layer(2), layer(0), layer(3)), own_norms=True))
    assert isinstance(shared, Net)
    assert shared.spec.stages[0].shape_text() == "2x8@0,1,0,0*"
    assert gap(shared, net, x) < EXACT
    again = edited(shared, Share(paths=(layer(0), layer(1)), own_norms=True))
    assert isinstance(again, Net)
    assert again.spec.stages[0].shape_text() == "1x8@0,0,0,0*"
    norms = [key for key in again.state_dict() if key.endswith("each.3.running_var")]
    assert norms
    for key in norms:
        was = key.replace(f"{layer(0)}.", f"{layer(3)}.").replace("each.3.", "")
        assert torch.equal(again.state_dict()[key], net.state_dict()[was])


def test_shared_layers_stay_tied_in_training() -> None:
    net, x = net_of(ROWS.format("residual(mlp) 4x8")), rows()
    shared = edited(net, Share(paths=(layer(1), layer(3))))
    assert isinstance(shared, Net)
    step(shared, x)
    assert len(shared.stages[0].layers) == 3  # type: ignore[arg-type, union-attr]
    assert str(shared.spec.stages[0].shape_text()) == "3x8@0,1,2,1"
    assert sum(p.numel() for p in shared.parameters()) < sum(p.numel() for p in net.parameters())
    module = edited(randomised(TinyResNet()), Share(paths=("layer1.1", "layer1.0", "layer1.2")))
    statistics = module.get_buffer("layer1.0.bn1.running_var").clone()
    step(module, IMAGE)
    for name, parameter in module.get_submodule("layer1.1").named_parameters():
        for path in ("layer1.0", "layer1.2"):
            assert module.get_parameter(f"{path}.{name}") is parameter
    assert not torch.equal(statistics, module.get_buffer("layer1.0.bn1.running_var"))
    assert not torch.equal(module.get_buffer("layer1.0.bn1.running_var"), module.get_buffer("layer1.1.bn1.running_var"))


def test_shared_recurrent_layers_run_with_the_shared_weights() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = (nn.GRU(5, 5, batch_first=True) for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x)[0])[0]

    module, x = randomised(Twice()), rows(6, 5)
    shared = edited(module, Share(paths=("first", "second")))
    assert torch.equal(shared(x), shared.first(shared.first(x)[0])[0])  # type: ignore[operator]


def test_tied_weights_are_written_once_and_come_back(tmp_path: Path) -> None:
    edit = Share(paths=("layer1.1", "layer1.0"))
    shared = edited(randomised(TinyResNet()), edit)
    same = write_weights(shared, tmp_path / "w.safetensors")
    assert len(same) == len(list(shared.get_submodule("layer1.0").parameters()))
    fresh = fill(edited(TinyResNet(), edit), read_weights(tmp_path / "w.safetensors", same), "test").eval()
    assert torch.equal(fresh(IMAGE), shared(IMAGE))
    assert fresh.get_parameter("layer1.0.conv1.weight") is fresh.get_parameter("layer1.1.conv1.weight")


@pytest.mark.parametrize("wiring", ["residual", "plain", "grouped[size=2]"])
@pytest.mark.parametrize("times", [2, 3, 4])
def test_a_loop_is_the_same_layer_unrolled(wiring: str, times: int) -> None:
    net, x = net_of(ROWS.format(f"{wiring}(mlp) 4x8")), rows()
    looped = edited(net, Loop(paths=(layer(2), layer(3)), keep=1, times=times))
    assert isinstance(looped, Net)
    assert len(looped.spec.stages[0].layers) == 3
    state = net.state_dict()
    unrolled = Net(Spec.parse(ROWS.format(f"{'plain' if wiring == 'plain' else 'residual'}(mlp) {2 + times}x8")))
    if "grouped" in wiring:
        sizes = ",".join(["2", *["1"] * times])
        unrolled = Net(Spec.parse(ROWS.format(f"grouped[size=[{sizes}]](mlp) {2 + times}x8")))
    unrolled.double().eval().load_state_dict(
        {
            key: state[key] if not key.startswith("stages.0.layers.") else state[_source(key)]
            for key in unrolled.state_dict()
        }
    )
    assert gap(looped, unrolled, x) == 0


def _source(key: str) -> str:
    number = int(key.split(".")[3])
    return key.replace(layer(number), layer(min(number, 3) if number != 2 else 3))


def test_a_strangers_loop_is_the_same_span_unrolled() -> None:
    module = randomised(TinyResNet())
    looped = edited(module, Loop(paths=("layer2.1", "layer2.2"), keep=1, times=3))
    unrolled = copy.deepcopy(module)
    span = unrolled.get_submodule("layer2.2")
    unrolled.set_submodule("layer2.1", nn.Sequential(span, span))
    assert gap(looped, unrolled, IMAGE) == 0
    net, x = net_of(ROWS.format("residual(mlp) 3x8")), rows()
    edit = Loop(paths=(layer(1), layer(2)), branch=True)
    assert gap(edited(net, edit), edit.apply(copy.deepcopy(net)), x) < EXACT


# replace


def test_a_replaced_stage_leaves_the_others() -> None:
    net, x = net_of(ROWS.format("residual(mlp) 2x8-2x12-1x6")), rows()
    new = edited(net, Replace(path="stages.1", spec="plain(mlp[hidden=5]) 1x12 - residual(gated_mlp) 3x12"))
    assert isinstance(new, Net)
    assert [stage.depth for stage in new.spec.stages] == [2, 1, 3, 1]
    state, old = new.state_dict(), net.state_dict()
    assert all(torch.equal(state[key], old[key]) for key in old if key.startswith(("stem", "head", "stages.0")))
    assert all(torch.equal(state[key.replace("s.2", "s.3")], old[key]) for key in old if key.startswith("stages.2"))
    assert torch.equal(state["stages.1.join.map.weight"], old["stages.1.join.map.weight"])
    assert new(x).shape == (4, 3)


def test_a_replaced_layer_is_drawn_from_the_seed() -> None:
    net, x = net_of(ROWS.format("residual(mlp) 3x8")), rows()
    one, same, other = (
        edited(net, Replace(path=layer(1), spec="plain(gated_mlp[hidden=4] norm=rms) 1x8", seed=seed))
        for seed in (1, 1, 2)
    )
    assert gap(one, same, x) == 0
    assert gap(one, other, x) > 0
    assert isinstance(one, Net)
    assert one.spec.stages[0].layers[1].block.name == "gated_mlp"
    assert torch.equal(one.state_dict()[f"{layer(2)}.block.up.weight"], net.state_dict()[f"{layer(2)}.block.up.weight"])


def test_a_whole_net_is_replaced() -> None:
    net = net_of(ROWS.format("residual(mlp) 3x8"))
    student = edited(net, Replace(path="", spec="residual(gated_mlp) 1x4"))
    assert isinstance(student, Net)
    assert str(student.spec) == "vector[features=5] | residual(gated_mlp) 1x4 | pool[outputs=3]"
    assert student.state_dict()["head.map.weight"].dtype == torch.float64


def test_a_strangers_span_is_replaced_by_a_net() -> None:
    module = randomised(TinyResNet())
    spec = "convolution[channels=8] | residual(conv) 1x6 | every[outputs=8]"
    student = edited(module, Replace(path="layer1.1", spec=spec, channels_first=True))
    assert student(IMAGE).shape == (3, 10)
    whole = edited(module, Replace(path="", spec=spec.replace("8", "1").replace("every[outputs=1]", "pool[outputs=10]"),
                                   channels_first=True))  # fmt: skip
    assert whole(IMAGE).shape == (3, 10)
    assert type(whole) is not Net


# exit


def test_an_exit_that_was_trained_is_taken() -> None:
    text = "vector[features=5] | residual(mlp) 3x8-3x12 | pool[outputs=3] | 0.2: pool, 1.1: pool[norm=rms]"
    net, x = net_of(text), rows()
    first, second, last = net.answers(x)
    for path, wanted, exits in ((layer(1), first, 0), (layer(0, 1), second, 1)):
        early = edited(net, Exit(path=path))
        assert isinstance(early, Net)
        assert float((early(x) - wanted).abs().max().detach()) < EXACT
        assert len(early.spec.exits) == exits
    assert last.shape == first.shape


def test_an_exit_with_another_kind_of_norm_is_not_taken() -> None:
    text = "vector[features=5] | residual(mlp norm={}, mlp) 2x8 | pool[outputs=3] | 0.1: joined[width=6]"
    for norm, head in (("layer", "joined"), ("rms", "pool")):
        early = edited(net_of(text.format(norm)), Exit(path=layer(0)))
        assert isinstance(early, Net)
        assert early.spec.head is not None
        assert early.spec.head.name == head


def test_the_head_is_kept_where_its_width_fits() -> None:
    net, x = net_of(ROWS.format("residual(mlp) 4x8")), rows()
    early = edited(net, Exit(path=layer(1)))
    drops = (Drop(path=layer(3), branch=True), Drop(path=layer(2), branch=True))
    assert gap(early, replayed(net, drops), x) == 0
    cut = edited(net_of(ROWS.format("residual(mlp) 2x8-2x12")), Exit(path=layer(1)))
    assert isinstance(cut, Net)
    assert len(cut.spec.stages) == 1
    assert cut.head.map.weight.shape == (3, 8)  # type: ignore[union-attr]
    other = edited(net, Exit(path=layer(0), head="pool[norm=rms]"))
    assert isinstance(other, Net)
    assert str(other.spec).endswith("pool[norm=rms,outputs=3]")


# what cannot be


REFUSED: list[tuple[str, Edit, str]] = [
    (ROWS.format("residual(mlp) 3x8"), Factor(path="stem"), "name a layer"),
    (ROWS.format("residual(mlp) 3x8"), Factor(path=f"{layer(1)}.block.side"), "no matrix of that name"),
    (ROWS.format("residual(mlp) 3x8"), Factor(path=layer(9)), "no such layer"),
    (ROWS.format("residual(mlp) 3x8"), Factor(path=layer(1), kind="tucker"), "give kind svd"),
    (IMAGES.format("residual(bottleneck[hidden=4,groups=2]) 2x8"), Factor(path=layer(1)), "2 groups"),
    (ROWS.format("residual(mlp linear=low_rank) 3x8"), Mask(path=layer(1)), "only the weights of a dense"),
    (ROWS.format("residual(mlp linear=masked) 3x8"), Factor(path=layer(1)), "lose its mask"),
    (ROWS.format("residual(mlp) 2x8@0,1,0"), Linearize(paths=(layer(1),)), "several times"),
    (ROWS.format("residual(mlp) 3x8"), Linearize(paths=(layer(0), layer(2))), "neighbouring"),
    (ROWS.format("layer_scale(mlp) 3x8"), Linearize(paths=(layer(0), layer(1))), "learned scales"),
    (ROWS.format("residual(mlp) 2x8-2x8"), Share(paths=(layer(0), layer(0, 1))), "one stage"),
    (ROWS.format("residual(mlp, gated_mlp) 2x8"), Share(paths=(layer(0), layer(1))), "unlike"),
    (ROWS.format("grouped[size=2](mlp) 4x8"), Loop(paths=(layer(1), layer(2))), "cut through"),
    (ROWS.format("layer_scale(mlp) 3x8"), Loop(paths=(layer(0), layer(1)), times=3), "another depth"),
    ("vector[features=5] | residual(mlp) 3x8 | pool[outputs=3] | 0.2: pool", Loop(paths=(layer(0),), times=2), "exits"),
    (ROWS.format("residual(mlp) 3x8"), Exit(path=layer(2)), "nothing stands behind"),
    (ROWS.format("layer_scale(mlp) 3x8"), Exit(path=layer(0)), "learned scales"),
    (ROWS.format("residual(mlp) 2x8-2x8"), Replace(path="stages.2", spec="residual(mlp) 1x8"), "no such stage"),
    (ROWS.format("residual(mlp) 2x8-2x8"), Replace(path="stages.0", spec="residual(mlp) 1x6"), "another width"),
    (ROWS.format("residual(mlp) 2x8"), Replace(path="", spec="vector[features=4] | plain(mlp) 1x8"), "features is 4"),
    (ROWS.format("residual(mlp) 2x8"), Replace(path=layer(0), spec="residual(mlp) 2x8"), "not one layer"),
    (ROWS.format("residual(mlp) 2x8"), Replace(path="head", spec="residual(mlp) 1x8"), "work on layers"),
]


@pytest.mark.parametrize(("text", "edit", "why"), REFUSED)
def test_refused_and_untouched(text: str, edit: Edit, why: str) -> None:
    net = net_of(text)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(Refused, match=why) as caught:
        edited(net, edit)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


class _Attentive(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.embed, self.out = nn.Embedding(5, 8), nn.Linear(8, 5, bias=False)
        self.out.weight = self.embed.weight
        self.grouped, self.hooked = nn.Conv1d(8, 8, 3, groups=2), nn.Linear(8, 8)
        self.hooked.register_forward_hook(lambda *_: None)
        self.cached = nn.Linear(8, 8)
        self.cached.layer_idx = 3


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (Factor(path="attention.out_proj"), "reads its weights itself"),
        (Mask(path="attention"), "reads its weights itself"),
        (Factor(path="out"), "those of embed"),
        (Factor(path="grouped"), "2 groups"),
        (Mask(path="hooked"), "a hook"),
        (Mask(path="embed"), "no nn.Linear"),
        (Factor(path="cached", kind="tucker"), "give kind svd"),
        (Factor(path="grouped", kind="tensor_train"), "2 groups"),
        (Loop(paths=("cached", "hooked")), "layer_idx"),
        (Share(paths=("cached", "grouped")), "cached"),
        (Share(paths=("cached", "out")), "another shape"),
        (Share(paths=("attention", "attention.out_proj")), "cannot have"),
        (Linearize(paths=("cached",)), "how many channels"),
        (Replace(path="cached", spec="residual(mlp) 1x8"), "no stem"),
        (Exit(path="cached"), "drop the spans"),
    ],
)
def test_refused_of_a_stranger(edit: Edit, why: str) -> None:
    module = _Attentive()
    state = {name: value.clone() for name, value in module.state_dict().items()}
    parts = dict(module.named_modules())
    with pytest.raises(Refused, match=why):
        edit.apply(module)
    assert dict(module.named_modules()) == parts
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize(
    "make",
    [
        lambda: Factor(path="a", rank=0),
        lambda: Factor(path="a", ranks=(3, 3)),
        lambda: Factor(path="a", kind="tucker", ranks=(3,)),
        lambda: Mask(path="a", density=0.0),
        lambda: Mask(path="a", of=-1),
        lambda: Linearize(paths=()),
        lambda: Share(paths=("a", "a")),
        lambda: Loop(paths=("a",)),
        lambda: Loop(paths=("a", "b"), keep=2),
        lambda: Replace(path="a", spec="no_such_net"),
        lambda: Replace(path="a", spec="residual(mlp"),
        lambda: Exit(path="a", head="no_such_head"),
    ],
)
def test_settings_out_of_range_are_refused_when_made(make: Callable[[], Edit]) -> None:
    with pytest.raises((BadSetting, BadSpec, UnknownName)):
        make()


# all of them


STRANGE: list[tuple[Edit, ...]] = [
    (Factor(path="layer1.0", kind="tucker", rank=3), Factor(path="linear", rank=2)),
    (Factor(path="layer1.0", kind="svd", rank=3), Factor(path="linear", kind="tensor_train", rank=2)),
    (Mask(path="layer2", of=4), Mask(path="linear", density=0.3)),
    (Linearize(paths=("layer1.1", "layer1.2"), channels=8, places=2),),
    (Share(paths=("layer2.1", "layer2.2")), Loop(paths=("layer1.1", "layer1.2"))),
    (
        Replace(
            path="layer1.1", spec="convolution[channels=8] | plain(unit) 1x4 | every[outputs=8]", channels_first=True
        ),
    ),
]


@pytest.mark.parametrize("edits", STRANGE)
def test_a_strangers_recipe_replays_bit_for_bit_and_exports(edits: tuple[Edit, ...]) -> None:
    base = randomised(TinyResNet())
    before = {name: value.clone() for name, value in base.state_dict().items()}
    shrunk = replayed(base, edits)
    assert all(torch.equal(value, before[name]) for name, value in base.state_dict().items())
    recipe = Recipe.from_json(Recipe("file.py:net", edits).to_json())
    fresh = recipe.replay(TinyResNet().double())
    fresh.load_state_dict(shrunk.state_dict(), strict=True)
    assert torch.equal(fresh.eval()(IMAGE), shrunk.eval()(IMAGE))
    step(shrunk, IMAGE)
    assert bool(shrunk(IMAGE).isfinite().all())
    program = torch.export.export(shrunk, (IMAGE,))
    assert float((program.module()(IMAGE) - shrunk(IMAGE)).abs().max().detach()) < 1e-8


@pytest.mark.parametrize("linear", ["tucker[ranks=[3,4]]", "tensor_train[rank=3,cores=3]", "masked[of=4]"])
def test_nets_of_every_linear_translate_to_onnx(linear: str) -> None:
    net = net_of(IMAGES.format(f"residual(conv linear={linear}) 1x6")).float()
    check_onnx(net, images().float())


def test_low_rank_leaves_what_attention_reads_itself() -> None:
    layer = randomised(nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True))
    module, x = nn.Sequential(layer, nn.Flatten(), nn.Linear(48, 2).double()).eval(), rows(6, 8)
    (one,) = LowRank(shares=(0.5,)).propose(scene_of(module, x))
    assert [edit.path for edit in one.edits if isinstance(edit, Factor)] == ["0.linear1", "0.linear2"]
    assert bool(done(module, one)(x).isfinite().all())


def test_frozen_weights_stay_frozen() -> None:
    module = randomised(TinyResNet()).requires_grad_(False)
    for edits in STRANGE[:4]:
        assert not any(p.requires_grad for p in replayed(module, edits).parameters())


# the compressors


def test_low_rank_finds_the_layer_that_has_little_rank() -> None:
    net, x = net_of(ROWS.format("residual(mlp) 3x16")), rows()
    with torch.no_grad():
        for name in ("up", "down"):
            part = net.get_submodule(f"{layer(1)}.block.{name}")
            low = torch.randn(part.outputs, 2, dtype=torch.float64) @ torch.randn(2, part.inputs, dtype=torch.float64)  # type: ignore[call-overload]
            part.fit(low / 4)  # type: ignore[operator]
    found = {one.paths[0]: gap(done(net, one), net, x) for one in LowRank(shares=(0.4,)).propose(scene_of(net, x))}
    assert list(found) == [layer(0), layer(1), layer(2)]
    assert found[layer(1)] < EXACT < min(found[layer(0)], found[layer(2)])


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_low_rank_keeps_its_share_of_the_weights(share: float) -> None:
    module = randomised(TinyResNet())
    proposals = list(LowRank(shares=(share,)).propose(scene_of(module, IMAGE)))
    assert proposals
    for one in proposals:
        before, after = (
            sum(p.numel() for p in each.get_submodule(one.paths[0]).parameters() if p.dim() > 1)
            for each in (module, done(module, one))
        )
        assert 0.5 * share * before < after <= share * before


def test_repeat_proposes_likes_both_ways_and_not_what_is_tied() -> None:
    module = randomised(TinyResNet())
    proposals = list(Repeat().propose(scene_of(module, IMAGE)))
    shared = [one.edits[0].paths for one in proposals if isinstance(one.edits[0], Share)]
    assert ("layer1.0", "layer1.1") in shared
    assert ("layer1.1", "layer1.0") in shared
    assert not any({path.split(".")[0] for path in paths} == {"layer1", "layer2"} for paths in shared)
    tied = done(module, proposals[0])
    again = [one.paths for one in Repeat().propose(scene_of(tied, IMAGE))]
    assert ("layer1.0", "layer1.1") not in again


def test_compressors_work_on_transformers_as_strangers_write_them() -> None:
    module, x = randomised(nn.Sequential(Encoder(), Encoder(), Encoder())), rows(6, 16)
    scene = scene_of(module, x)
    for compressor in (LowRank(), LinearCompressor(explains=0.0), Repeat()):
        proposals: list[Proposal] = list(compressor.propose(scene))
        assert proposals
        for one in proposals[:4]:
            assert bool(done(module, one)(x).isfinite().all())
