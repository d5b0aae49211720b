"""Blocks for images, and the frozen stem for rows: each is what its paper's formula says, exactly."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from shoal.anatomy import anatomy
from shoal.core.errors import BadModel, BadSetting, Refused
from shoal.core.makers import DENSE, norm_maker
from shoal.core.part import Part
from shoal.core.spec import LayerSpec, Spec
from shoal.costing import cost
from shoal.edits.fold import Fold
from shoal.kinds import BLOCKS, JOINS, STEMS
from shoal.net import Layer, Net, empty, load_net
from shoal.recipe import edited
from shoal.testing._exports import check_onnx, check_pt2

EXACT = 1e-10
DIM = 8


def moved(module: nn.Module, seed: int = 0) -> Any:
    """The module in float64 and eval, with all weights and statistics off their initial values."""
    torch.manual_seed(seed)
    module = module.double().eval()
    with torch.no_grad():
        floats = {name: value for name, value in module.state_dict().items() if value.is_floating_point()}
        for name, value in floats.items():
            value.copy_(torch.rand_like(value) + 0.5 if name.endswith("running_var") else torch.randn_like(value) / 2)
    return module


def block(text: str, norm: str | None = None) -> Any:
    return moved(Layer(LayerSpec(Part.parse(text), Part(norm) if norm else None), DIM, DIM)).block


def join(text: str, norm: str = "batch") -> Any:
    offered = {"linear": DENSE, "norm": norm_maker(Part(norm))}
    return moved(JOINS.make(Part.parse(text), 6, 10, dim=10, offers=offered))


def image(dim: int = DIM, height: int = 7, width: int = 6) -> Tensor:
    return torch.randn(2, height, width, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def near(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=0, atol=EXACT)


def zero(*modules: nn.Module) -> None:
    with torch.no_grad():
        for parameter in [parameter for module in modules for parameter in module.parameters()]:
            parameter.zero_()


def normed(norm: Any, x: Tensor, at: slice = slice(None)) -> Tensor:
    """A batch norm in eval on some of its channels, by its formula; x: (batch, channels, *places)."""
    mean, var, scale, shift = (
        each[at, None, None] for each in (norm.running_mean, norm.running_var, *norm.parameters())
    )
    return (x - mean) / (var + norm.eps).sqrt() * scale + shift


# ---- cardinality: a bottleneck with groups


@pytest.mark.parametrize(("count", "width"), [(1, 6), (2, 3), (3, 2), (6, 1)])
def test_cardinality_has_three_equal_forms(count: int, width: int) -> None:
    made, x = block(f"bottleneck[hidden={count * width},groups={count}]"), image().movedim(-1, 1)
    branches, summed = [], made.third.bias[:, None, None]
    for at in (slice(start, start + width) for start in range(0, count * width, width)):
        y = normed(made.before, F.conv2d(x, made.first.weight[at]), at).relu()
        y = normed(made.behind, F.conv2d(y, made.second.weight[at], padding=1), at).relu()
        branches.append(y)
        summed = summed + F.conv2d(y, made.third.weight[:, at])
    joined = F.conv2d(torch.cat(branches, dim=1), made.third.weight, made.third.bias)
    grouped = made(x.movedim(1, -1)).movedim(-1, 1)
    near(summed, joined)
    near(grouped, joined)
    weights = sum(linear.weight.numel() for linear in (made.first, made.second, made.third))
    assert weights == count * (DIM * width + 9 * width * width + width * DIM)


def test_two_matrices_a_branch_are_one_wide_block() -> None:
    parts, x = [block("conv[hidden=3]"), moved(block("conv[hidden=5]"), seed=2)], image()
    wide = block("conv[hidden=8]")
    state = {}
    for name in wide.state_dict():
        axis = 1 if name == "second.weight" else 0
        values = [part.state_dict()[name] for part in parts]
        state[name] = values[0] + values[1] if name == "second.bias" else torch.cat(values, dim=axis)
    wide.load_state_dict(state)
    near(wide(x), parts[0](x) + parts[1](x))


# ---- res2


def scales_of(made: Any) -> Any:
    """The block with its last matrix the identity: it gives its scales side by side."""
    zero(made.third)
    made.third.fit(torch.eye(made.third.outputs, dtype=torch.float64))
    return made


def test_res2_is_its_formula() -> None:
    made, x = scales_of(block("res2[scales=4,width=2]")), image().movedim(-1, 1)
    parts = normed(made.before, F.conv2d(x, made.first.weight)).relu().chunk(4, dim=1)
    wanted = [parts[0]]
    for i, (kernel, norm) in enumerate(zip(made.kernels, made.norms, strict=True), start=1):
        taken = parts[i] if i == 1 else parts[i] + wanted[-1]
        wanted.append(normed(norm, F.conv2d(taken, kernel.weight, padding=1)).relu())
    found = made(x.movedim(1, -1)).movedim(-1, 1).chunk(4, dim=1)
    assert torch.equal(found[0], made.act(made.before.planes(made.first.convolve(x))).chunk(4, dim=1)[0])
    for each, other in zip(found, wanted, strict=True):
        near(each, other)
    assert sum(p.numel() for p in made.kernels.parameters()) == 3 * 9 * 2**2


def test_each_scale_of_res2_sees_two_places_more() -> None:
    made, x = scales_of(block("res2[scales=4,width=2,act=tanh]")), image(height=9, width=9)
    other = x.clone()
    other[:, 4, 4] += 1
    changed = (made(x) != made(other)).unflatten(-1, (4, 2)).any(dim=-1).any(dim=0)
    for i in range(4):
        seen = torch.zeros(9, 9, dtype=torch.bool)
        seen[4 - i : 5 + i, 4 - i : 5 + i] = True
        assert torch.equal(changed[..., i], seen), i


def test_a_scale_of_res2_at_zero_cuts_what_is_carried() -> None:
    made, x = scales_of(block("res2[scales=4,width=2]")), image()
    last = made.kernels[2].weight.clone()
    zero(made.kernels[1], made.norms[1])
    cut = made(x)[..., 6:]
    entered = made.act(made.before.planes(made.first.convolve(x.movedim(-1, 1))))[:, 6:]
    alone = normed(made.norms[2], F.conv2d(entered, last, padding=1)).relu()
    near(cut.movedim(-1, 1), alone)


def test_res2_of_the_fifty_layer_net_and_one_scale() -> None:
    assert BLOCKS.complete(Part("res2"), 256).settings["width"] == 26
    with pytest.raises(BadSetting, match="scales=1 convolves nothing"):
        block("res2[scales=1]")


# ---- network in network


def test_network_in_network_is_an_mlp_on_each_patch() -> None:
    made, x = block("nin[hidden=5]"), image()
    patches = F.unfold(x.movedim(-1, 1), 3, padding=1).movedim(1, -1)
    mlp = nn.Sequential(nn.Linear(9 * DIM, 5), nn.ReLU(), nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, DIM), nn.ReLU())
    mlp = mlp.double()
    for mine, theirs in zip((made.first, made.second, made.third), (mlp[0], mlp[2], mlp[4]), strict=True):
        theirs.weight.data, theirs.bias.data = mine.matrix(), mine.bias
    near(made(x).flatten(1, 2), mlp(patches))


def test_network_in_network_refuses_what_is_not_zero_at_zero() -> None:
    with pytest.raises(BadSetting, match="nin: act='sigmoid' is not zero at zero"):
        block("nin[act=sigmoid]")


# ---- squeeze


def test_squeeze_with_one_branch_is_squeeze_and_excitation() -> None:
    made, x = block("squeeze[hidden=6,reduced=3,branches=1]"), image()
    plain = block("conv[hidden=6]")
    plain.load_state_dict({name: made.state_dict()[name] for name in plain.state_dict()})
    z = plain(x)
    weights = [made.reduce.matrix(), made.reduce.bias, made.excite.matrix(), made.excite.bias]
    gate = F.linear(F.linear(z.mean(dim=(1, 2)), *weights[:2]).relu(), *weights[2:]).sigmoid()
    near(made(x), z * gate[:, None, None])


def test_branches_of_squeeze_are_one_matrix() -> None:
    made, x = block("squeeze[hidden=6,reduced=2,branches=3]"), image()
    same = block("squeeze[hidden=6,reduced=6,branches=1]")
    same.load_state_dict(made.state_dict())
    assert torch.equal(made(x), same(x))
    y = made.second.convolve(made.inner.planes(made.first.convolve(x.movedim(-1, 1))).relu())
    mean = y.mean(dim=(2, 3))
    rows, biases = made.reduce.matrix().chunk(3), made.reduce.bias.chunk(3)
    reduced = [F.linear(mean, row, bias).relu() for row, bias in zip(rows, biases, strict=True)]
    gate = F.linear(torch.cat(reduced, dim=-1), made.excite.matrix(), made.excite.bias).sigmoid()
    near(made(x), (y * gate[:, :, None, None]).movedim(1, -1))


def test_an_open_gate_of_squeeze_is_the_convolutions_alone() -> None:
    made, x = block("squeeze[hidden=6]"), image()
    plain = block("conv[hidden=6]")
    plain.load_state_dict({name: made.state_dict()[name] for name in plain.state_dict()})
    zero(made.excite)
    made.excite.bias.data.fill_(60.0)
    near(made(x), plain(x))
    with pytest.raises(BadSetting, match="branches=0"):
        block("squeeze[branches=0]")


# ---- global context


def test_global_context_is_its_formula_and_the_same_everywhere() -> None:
    made, x = block("global_context[hidden=5]"), image()
    row = x.flatten(1, 2)
    weight = torch.softmax(F.linear(row, made.key.matrix()), dim=1)
    y = F.linear((weight * row).sum(dim=1), made.down.matrix(), made.down.bias)
    y = F.layer_norm(y, (5,), made.inner.weight, made.inner.bias).relu()
    wanted = F.linear(y, made.up.matrix(), made.up.bias)[:, None, None].expand_as(x)
    near(made(x), wanted)
    near(made(row[:, torch.randperm(42)]), wanted[:, :1, 0].expand(-1, 42, -1))


def test_global_context_without_a_key_reads_the_mean() -> None:
    made, x = block("global_context[hidden=5]"), image()
    zero(made.key)
    near(made(x)[:, :1, :1], made(x.mean(dim=(1, 2), keepdim=True)))


def test_a_mask_is_as_if_the_places_were_not_there() -> None:
    made, row = block("global_context[hidden=5]"), image().flatten(1, 2)
    mask = torch.arange(42).expand(2, -1) < 30
    near(made(row, mask=mask)[:, :30], made(row[:, :30]))
    with pytest.raises(BadModel, match=r"mask of shape \(2, 1, 1, 42\)"):
        made(row, mask=mask[:, None, None])


# ---- star


def test_star_without_activation_is_a_quadratic_form() -> None:
    made = block("star[hidden=5,act=identity]")
    u = torch.randn(7, DIM, 1, 1, dtype=torch.float64)
    left, right = (torch.cat((each.matrix(), each.bias[:, None]), dim=1) for each in (made.left, made.right))
    form = left[:, :, None] * right[:, None, :]  # M_k = left_k right_k^T on [u; 1]
    longer = torch.cat((u.flatten(1), torch.ones(7, 1, dtype=torch.float64)), dim=1)
    product = (made.left.convolve(u) * made.right.convolve(u)).flatten(1)
    near(product, torch.einsum("bi,kij,bj->bk", longer, form, longer))
    symmetric = (form + form.transpose(1, 2)) / 2
    near(product, torch.einsum("bi,kij,bj->bk", longer, symmetric, longer))
    assert int(symmetric[0].triu().count_nonzero()) == (DIM + 2) * (DIM + 1) // 2
    added = (made.left.convolve(u) + made.right.convolve(u)).flatten(1)
    near(added, longer @ (left + right).T)  # a sum in the star's place is one matrix


@pytest.mark.parametrize(("act", "degree"), [("identity", 2), ("relu6", 3)])
def test_star_is_of_degree_two_along_any_line(act: str, degree: int) -> None:
    made, x = block(f"star[hidden=12,act={act}]", norm="none"), image()
    v = torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    values = [made(x + step * v) for step in range(5)]
    for _ in range(3):
        values = [after - before for before, after in pairwise(values)]
    bent = values[0].abs().max() > 1e-10 * made(x).abs().max()
    assert bool(bent) == (degree > 2)


def test_star_looks_around_each_channel_alone() -> None:
    made = block("star")
    assert made.first.weight.shape == made.last.weight.shape == (DIM, 1, 7, 7)
    assert made.left.outputs == 4 * DIM
    for kernel in ("[4,4]", "[]", "[3,-1]"):
        with pytest.raises(BadSetting, match="star: kernel"):
            block(f"star[kernel={kernel}]")


# ---- rep


class Published(nn.Module):
    """The block, and with a stride the strided block, in the usual modules; channels first."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.strided = stride > 1 or inputs != outputs
        self.conv3 = nn.Conv2d(inputs, outputs, 3, stride, 1, groups=groups, bias=False)
        self.pool = nn.AvgPool2d(stride, stride)
        self.conv1 = nn.Conv2d(inputs, outputs, 1, groups=groups, bias=False)
        self.bn3, self.bn1 = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
        self.bn0 = nn.Identity() if self.strided else nn.BatchNorm2d(inputs)
        self.se = nn.Conv2d(inputs, outputs, 1, groups=groups, bias=False)
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        z = self.bn3(self.conv3(x)) + self.bn1(self.conv1(self.pool(x)))
        u = self.bn0(x)
        gate = self.se(F.adaptive_avg_pool2d(u, 1)).sigmoid()
        y = F.silu(z * (2 * gate) if self.strided else z + u * gate)
        return y.unflatten(1, (self.groups, -1)).transpose(1, 2).flatten(1, 2)

    def ours(self, made: Any) -> Any:
        """The house's block or join with these weights."""
        names = {
            "wide": "conv3",
            "behind_wide": "bn3",
            "point": "conv1",
            "behind_point": "bn1",
            "gate": "se",
            "still": "bn0",
        }
        state = self.state_dict()
        made.load_state_dict(
            {name: state[f"{names[name.split('.')[0]]}.{name.split('.')[1]}"] for name in made.state_dict()}
        )
        return made


def test_rep_is_the_published_block_in_training_and_in_eval() -> None:
    theirs, x = moved(Published(DIM, DIM)), image()
    mine = theirs.ours(block("rep"))
    for training in (False, True, False):  # the last: the running statistics have moved alike
        found, wanted = mine.train(training)(x), theirs.train(training)(x.movedim(-1, 1)).movedim(1, -1)
        near(found, wanted)


@pytest.mark.parametrize(("stride", "groups"), [(2, 1), (2, 2), (1, 2)])
def test_the_join_rep_is_the_published_strided_block(stride: int, groups: int) -> None:
    theirs, x = moved(Published(6, 10, stride, groups)), image(dim=6, height=8, width=6)
    mine = theirs.ours(join(f"rep[stride={stride},groups={groups}]"))
    for training in (False, True):
        found, wanted = mine.train(training)(x), theirs.train(training)(x.movedim(-1, 1)).movedim(1, -1)
        near(found, wanted)


def test_rep_folds_to_one_convolution_and_its_gate() -> None:
    made, x = block("rep"), image()
    part, weights = made.folded()
    flat = BLOCKS.make(part, DIM, dim=DIM, offers={"linear": DENSE}).double()
    flat.load_state_dict(weights, strict=True)
    near(flat(x), made(x))
    assert sum(p.numel() for p in flat.parameters()) == (9 * DIM**2 + DIM) + DIM**2 + 2 * DIM
    for mixing in (block("rep", norm="layer"), join("rep", norm="layer")):
        assert mixing.folded() is None


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 3), st.sampled_from([1, 3, 5]), st.sampled_from([1, 2]), st.integers(1, 8), st.integers(1, 8)
)  # fmt: skip
def test_the_join_rep_folds_at_any_size(stride: int, kernel: int, groups: int, height: int, width: int) -> None:
    made, x = join(f"rep[stride={stride},kernel=[{kernel},{kernel}],groups={groups}]"), image(6, height, width)
    part, weights = made.folded()
    flat = JOINS.make(part, 6, 10, dim=10, offers={"linear": DENSE}).double()
    flat.load_state_dict(weights, strict=True)
    near(flat(x), made(x))


def test_the_pooled_branch_is_spread_over_a_square_behind_the_middle() -> None:
    made = join("rep")
    zero(made.wide)
    _, weights = made.folded()
    kernel = weights["wide.weight"]
    assert kernel.shape[2:] == (3, 3)
    assert not kernel[:, :, 0].any()
    assert not kernel[:, :, :, 0].any()
    point = made.point.weight * made.behind_point.affine()[0][:, None, None, None] / 4
    near(kernel[:, :, 1:, 1:], point.expand(-1, -1, 2, 2))


REP_NET = (
    "convolution[channels=2] | plain(rep) 2x6 -rep- plain(rep, conv) 2x8 -rep- residual(rep) 1x8 | pool[outputs=3]"
)


@pytest.mark.parametrize("text", ["rep[stride=0]", "rep[kernel=[]]", "rep[kernel=[3,3,3,3]]", "rep_folded[stride=0]"])
def test_the_joins_refuse_what_makes_no_step(text: str) -> None:
    with pytest.raises(BadSetting, match=r"join rep.*stride="):
        join(text)


def net_of(text: str) -> Any:
    return moved(Net(Spec.parse(text)))


def test_the_edit_fold_takes_blocks_and_joins_of_a_net() -> None:
    net, x = net_of(REP_NET), image(2, 9, 7)
    before = copy.deepcopy(net.state_dict())
    folded = edited(net, Fold())
    near(folded(x), net(x))
    said = str(folded.spec)
    assert said.count("-rep_folded-") == 2
    assert "rep " not in said
    assert not any("running_mean" in name for name in folded.state_dict())
    assert Spec.parse(said) == folded.spec
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    with pytest.raises(Refused, match="no norm"):
        edited(folded, Fold())


@pytest.mark.parametrize("stage", ["dense[growth=4](rep) 2x6", "plain(rep) 2x6@0,1,0", "residual(rep norm=none) 1x6"])
def test_the_edit_fold_keeps_tails_and_shared_layers(stage: str) -> None:
    net, x = net_of(f"convolution[channels=2] | {stage} | pool[outputs=3]"), image(2)
    near(edited(net, Fold())(x), net(x))


def test_the_edit_fold_takes_the_published_block_by_pairs() -> None:
    theirs, x = moved(Published(DIM, DIM)), image().movedim(-1, 1)
    found = anatomy(theirs, x).folds
    assert set(found) == {("conv3", "bn3"), ("conv1", "bn1")}
    near(edited(theirs, Fold(pairs=found))(x), theirs(x))


@pytest.mark.parametrize("layer", ["rep norm=layer", "rep linear=low_rank", "rep linear.wide=low_rank"])
def test_rep_does_not_fold_where_that_is_not_exact(layer: str) -> None:
    with pytest.raises(Refused, match="no norm"):
        edited(net_of(f"convolution[channels=2] | plain({layer}) 2x6 | pool[outputs=3]"), Fold())


def test_a_layer_that_lends_its_norm_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = net_of("convolution[channels=2] | residual(conv) 2x6 -rep- residual(conv) 3x8 | pool[outputs=3]"), image(2)
    monkeypatch.setattr(JOINS.get("rep"), "folded", lambda self: None)
    folded = edited(net, Fold())
    near(folded(x), net(x))
    kept = [[layer.norm_part.name for layer in stage.layers] for stage in folded.spec.stages]
    assert kept == [["none", "none"], ["batch", "none", "none"]]


@pytest.mark.parametrize(
    "name", ["star[kernel=[3,3]]", "squeeze", "res2[scales=3,width=2]", "bottleneck[groups=2,hidden=4]"]
)
def test_norms_beside_matrices_fold(name: str) -> None:
    net, x = net_of(f"convolution[channels=2] | residual({name}) 2x8 | pool[outputs=3]"), image(2)
    folded = edited(net, Fold())
    near(folded(x), net(x))
    assert not any("running_mean" in key for key in folded.state_dict())


# ---- what the docstrings say that they cost, at a dim of 8 and 36 places


@pytest.mark.parametrize(
    ("text", "macs", "parameters"),
    [
        ("rep", 36 * 64 * 10 + 64, 64 * 11 + 6 * 8),
        ("rep_folded", 36 * 64 * 9 + 64, 64 * 10 + 3 * 8),
        ("nin[hidden=6]", 36 * (48 * 10 + 36), 48 * 10 + 36 + 6 + 6 + 8),
        ("squeeze[hidden=6,reduced=2]", 36 * 2 * 48 * 9 + 2 * 8 * 8, 2 * 48 * 9 + 12 + 8 + 2 * 8 * 8 + 8 + 8),
        ("res2[width=2]", 36 * (2 * 8 * 8 + 3 * 4 * 9), 2 * 8 * 8 + 3 * 4 * 9 + 16 + 12 + 8),
        ("star[hidden=12,kernel=[3,3]]", 36 * (3 * 96 + 2 * 72), 3 * 96 + 2 * 72 + 12 + 12 + 8 + 16 + 16 + 16),
        ("global_context[hidden=5]", 36 * 2 * 8 + 2 * 40, 8 + 2 * 40 + 5 + 10 + 8),
    ],
)
def test_costs_are_as_said(text: str, macs: int, parameters: int) -> None:
    found = cost(block(text).float(), torch.randn(1, 6, 6, DIM))
    assert (found.macs, found.params) == (macs, parameters)


# ---- lift and the hourglass

HOURGLASS = 'lift[features=5,seed=3] | residual(mlp[hidden=3]) 4x16 | pool[norm="none",outputs=2]'


def test_the_lift_is_its_seed() -> None:
    a, same, other = (STEMS.make(Part("lift", {"features": 5, "seed": s}), 16, dim=16) for s in (3, 3, 4))
    assert torch.equal(a.matrix, same.matrix)
    assert not torch.equal(a.matrix, other.matrix)
    drawn = [-0.7679916024208069, -0.6110492944717407, -0.3317713737487793]  # nets in files rely on these very numbers
    assert a.matrix[0, :3].tolist() == drawn
    assert not list(a.parameters())
    assert not a.state_dict()
    torch.manual_seed(0)
    first = torch.rand(1)
    torch.manual_seed(0)
    STEMS.make(Part("lift", {"features": 5}), 16, dim=16)
    assert torch.equal(torch.rand(1), first)  # the caller's random numbers stay


def test_the_lift_keeps_variance_one() -> None:
    matrix = STEMS.make(Part("lift", {"features": 40}), 2000, dim=2000).matrix.double()
    assert float(matrix.abs().max()) < (3 / 40) ** 0.5
    assert float(matrix.square().mean()) * 40 == pytest.approx(1, rel=0.02)
    assert abs(float(matrix.mean())) < 0.002


@pytest.mark.parametrize("settings", [{"features": 0}, {"features": 5, "seed": -1}, {"features": 5, "seed": 2**63}])
def test_the_lift_refuses_what_is_no_seed(settings: dict[str, int]) -> None:
    with pytest.raises(BadSetting, match="stem lift"):
        STEMS.make(Part("lift", settings), 16, dim=16)


def test_the_hourglass_has_the_weights_that_the_formula_counts() -> None:
    net = Net(Spec.parse(HOURGLASS))
    wide, narrow, depth, outputs = 16, 3, 4, 2
    norms = 2 * wide
    wanted = depth * (2 * wide * narrow + wide + narrow + norms) + wide * outputs + outputs
    assert sum(p.numel() for p in net.parameters()) == wanted
    assert all(p.requires_grad for p in net.parameters())
    net(torch.randn(4, 5)).sum().backward()
    assert net.stem.matrix.grad is None
    assert all(p.grad is not None for p in net.parameters())


def test_the_hourglass_with_closed_layers_is_linear() -> None:
    net, x = net_of(HOURGLASS), torch.randn(6, 5, dtype=torch.float64)
    zero(*(layer.block.down for layer in net.stages[0].layers))
    near(net(x), F.linear(x, net.head.map.matrix() @ net.stem.matrix, net.head.map.bias))


def test_the_lift_comes_back_from_spec_and_weights_and_moves_with_the_net() -> None:
    net = Net(Spec.parse(HOURGLASS)).eval()
    x = torch.randn(6, 5)
    assert torch.equal(load_net(net.spec, net.state_dict())(x), net(x))
    assert empty(net.spec).stem.matrix.is_meta
    assert copy.deepcopy(net).double().stem.matrix.dtype == torch.float64


@pytest.mark.parametrize("check", [check_pt2, check_onnx])
def test_exports_hold_the_lift(check: Callable[[nn.Module, Tensor], None]) -> None:
    check(Net(Spec.parse(HOURGLASS.replace("4x16", "1x16"))).eval(), torch.randn(3, 5))
