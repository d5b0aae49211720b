"""Coupling: what has to shrink together is found in any module, and what is left computes what it should."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from coupled_strangers import IMAGE, ZOO, Grouped, Normed, PlainCNN, Recurrent, TorchAttention, rows
from shoal.core.errors import BadModel, Refused
from shoal.core.example import arguments
from shoal.coupling import Coupling, Width, coupled, cut
from shoal.coupling.heads import Heads
from shoal.coupling.labels import Labels
from shoal.coupling.views import factors
from strangers import randomised

EXACT = 1e-10
NOTHING = 1e-30  # of a weight that is normed: zeros have no direction


def ran(module: nn.Module, example: Any) -> Tensor:
    args, kwargs = arguments(example)
    with torch.no_grad():
        return module(*args, **kwargs)


def zeroed(module: nn.Module, width: Width, keep: list[int]) -> nn.Module:
    """The module with zeros in all weights of the units that go, set one by one."""
    masked = copy.deepcopy(module)
    weights = dict(masked.named_parameters(remove_duplicate=False))
    for held in width.held:
        if held.weight in weights:
            for index, unit in enumerate(held.units.tolist()):
                if unit >= 0 and unit not in keep:
                    weights[held.weight].data.select(held.axis, index).mul_(
                        NOTHING if ".original" in held.weight else 0
                    )
    return masked


def halves(units: int, seed: int) -> list[int]:
    drawn = np.random.default_rng(seed)
    return sorted(drawn.permutation(units)[: drawn.integers(1, units)].tolist())


def check(module: nn.Module, example: Any, found: Coupling, seeds: int = 2) -> None:
    """Every width, cut at random, is the module with zeros there; and it is smaller."""
    before = ran(module, example)
    for width in found.widths:
        for seed in range(seeds):
            keep = halves(width.units, seed)
            slices, changes = width.cut(keep)
            narrow = cut(copy.deepcopy(module), slices, changes)
            wanted, given = ran(zeroed(module, width, keep), example), ran(narrow, example)
            assert float((given - wanted).abs().max()) < EXACT * max(1.0, float(wanted.abs().max())), width.weight
            assert not torch.equal(wanted, before), f"{width.weight}: it made no difference, so nothing was tested"
            assert sum(p.numel() for p in narrow.parameters()) < sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("name", ZOO)
def test_cut_is_zeroed(name: str) -> None:
    torch.manual_seed(0)
    make, example, wanted = ZOO[name]
    module, x = randomised(make()), example()
    found = coupled(module, x)
    assert {width.weight: width.units for width in found.widths} == wanted, found.left
    check(module, x, found)
    for place, why in found.left.items():
        weight, _, axis = place.rpartition(":")
        assert weight in dict(module.named_parameters())
        assert axis.isdigit()
        assert why
        assert "\n" not in why


@pytest.mark.parametrize("name", ZOO)
def test_looking_leaves_no_mark(name: str) -> None:
    make, example, _ = ZOO[name]
    module, x = randomised(make()).train(), example()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    coupled(module, x)
    assert all(part.training for part in module.modules())
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


class Drawn(nn.Module):
    """A random net of convolutions: plain, side by side, added, concatenated, depthwise, pooled."""

    def __init__(self, steps: list[tuple[str, int]], pool: int) -> None:
        super().__init__()
        self.steps, self.parts, self.pool, width = steps, nn.ModuleList(), pool, 3
        for kind, size in steps:
            out = width if kind in ("add", "depth") else size
            groups = width if kind == "depth" else 1
            self.parts.append(
                nn.Sequential(nn.Conv2d(width, out, 3, padding=1, groups=groups), nn.BatchNorm2d(out), nn.Tanh())
            )
            width = width + out if kind == "cat" else out
        self.head = nn.Linear(width * pool * pool, 2)

    def forward(self, x: Tensor) -> Tensor:
        for (kind, _), part in zip(self.steps, self.parts, strict=True):
            y = part(x)
            x = x + y if kind == "add" else torch.cat([y, x], dim=1) if kind == "cat" else y
        return self.head(F.adaptive_max_pool2d(x, self.pool).flatten(1))


STEP = st.tuples(st.sampled_from(["plain", "add", "cat", "depth"]), st.integers(2, 5))


@settings(max_examples=8, deadline=None)
@given(st.lists(STEP, min_size=1, max_size=5), st.integers(1, 2), st.integers(0, 99))
def test_random_nets(steps: list[tuple[str, int]], pool: int, seed: int) -> None:
    torch.manual_seed(seed)
    module, x = randomised(Drawn([("plain", 4), *steps], pool), seed), rows(3, 4, 4)
    found = coupled(module, x)
    assert found.widths
    assert not any("computes something else" in why for why in found.left.values())
    check(module, x, found, seeds=1)


@settings(max_examples=8, deadline=None)
@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=5), st.sampled_from([nn.GELU, nn.Sigmoid, nn.Softplus, nn.Tanh])
)
def test_random_mlps(sizes: list[int], act: type[nn.Module]) -> None:
    pairs = zip([5, *sizes], [*sizes, 3], strict=True)
    module, x = randomised(nn.Sequential(*(nn.Sequential(nn.Linear(a, b), act()) for a, b in pairs))), rows(5)
    found = coupled(module, x)
    assert [width.units for width in found.widths] == [size for size in sizes if size > 1]
    check(module, x, found, seeds=1)


@pytest.mark.parametrize(
    ("way", "why"),
    [
        ("norm", "a norm runs along it in norm"),
        ("softmax", "_softmax runs along it in the module's own forward"),
        ("pick", "one of it is picked by its number in the module's own forward"),
        ("unknown", "is not known"),
    ],
)
def test_what_sees_all_units_is_left_with_a_reason(way: str, why: str) -> None:
    found = coupled(randomised(Normed(way)), rows(5))
    if way == "pick":  # a slice may also be of numbers that shrink: cut, it computes something else
        assert "up.weight:0" in found.left
        return
    assert not found.widths
    assert why in found.left["up.weight:0"]
    assert found.left["up.weight:1"] == "it is an axis of the input"
    assert found.left["down.weight:0"] == "it is an axis of the output"


def test_weights_that_did_not_run_are_said() -> None:
    module = PlainCNN()
    module.spare = nn.Linear(4, 4)
    assert coupled(module, torch.randn(2, *IMAGE)).left["spare.weight:0"] == "it was not used in the run"


def test_what_does_not_run_is_a_bad_model() -> None:
    with pytest.raises(BadModel, match="PlainCNN does not run on its example"):
        coupled(PlainCNN(), torch.randn(2, 5))


def test_a_number_in_the_code_is_a_reason() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(5, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.down(self.up(x).view(-1, 2, 4).relu().reshape(-1, 8))

    found = coupled(randomised(Fixed()), rows(5))
    assert not found.widths
    assert "narrowed it does not run" in found.left["up.weight:0"]


def test_a_branch_that_begins_at_zero_hides_nothing() -> None:
    """The check is done on weights that are moved: a wrong cut behind a zero would look right."""
    module = randomised(Grouped(2))
    nn.init.zeros_(module.down.weight)
    found = coupled(module, rows(*IMAGE))
    assert {width.weight: width.units for width in found.widths} == {"up.weight": 8, "within.weight": 8}


def test_layers_and_directions_of_an_lstm_shrink_alike() -> None:
    module = randomised(Recurrent(nn.LSTM, 2, True))
    (width,) = coupled(module, rows(6, 5)).widths
    narrow = cut(copy.deepcopy(module), *width.cut([0, 3, 4]))
    assert isinstance(narrow, Recurrent)
    assert narrow.rnn.hidden_size == 3
    assert narrow.rnn.weight_ih_l1_reverse.shape == (12, 6)
    assert narrow.head.in_features == 6


def test_one_step_learns_all_that_is_left_of_an_lstm() -> None:
    module = randomised(Recurrent(nn.LSTM))
    (width,) = coupled(module, rows(6, 5)).widths
    narrow = cut(module, *width.cut([1, 2]))
    narrow.train()(rows(6, 5)).sum().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in narrow.parameters())


@pytest.mark.parametrize("need", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_heads_are_torchs_attention(need: bool, batch_first: bool) -> None:
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(12, 4, batch_first=batch_first).double().eval()
    heads = Heads(attention)
    query, key = (torch.randn(*(2, n)[:: 1 if batch_first else -1], 12, dtype=torch.float64) for n in (5, 7))
    padding = torch.tensor([[False] * 7, [False] * 4 + [True] * 3])
    for mask in (None, torch.randn(5, 7, dtype=torch.float64), torch.rand(8, 5, 7) > 0.9):
        for each in (None, padding):
            given = {"attn_mask": mask, "key_padding_mask": each, "need_weights": need}
            if mask is not None and each is not None and mask.dtype != torch.bool:  # torch wants both alike
                given["key_padding_mask"] = torch.zeros(2, 7, dtype=torch.float64).masked_fill(each, -torch.inf)
            wanted, found = attention(query, key, key, **given), heads(query, key, key, **given)
            assert float((wanted[0] - found[0]).detach().abs().max()) < EXACT
            assert (found[1] is None) == (not need)
            if need:
                assert float((wanted[1] - found[1]).detach().abs().max()) < EXACT
    lone = attention(query[0], key[0], key[0])[0]
    assert float((lone - heads(query[0], key[0], key[0])[0]).detach().abs().max()) < EXACT


def test_an_attention_with_keys_of_its_own_keeps_its_heads() -> None:
    module = TorchAttention()
    module.attention = nn.MultiheadAttention(12, 4, batch_first=True, add_bias_kv=True)
    found = coupled(randomised(module), rows(7, 12))
    assert not found.widths
    assert found.left["attention.in_proj_weight:0"]


def test_cut_checks_before_it_changes() -> None:
    module = randomised(PlainCNN())
    (first, _) = coupled(module, rows(*IMAGE)).widths
    slices, changes = first.cut([1, 2])
    before = {key: value.clone() for key, value in module.state_dict().items()}
    wrong: list[tuple[Any, Any, str]] = [
        ([*slices, ("nobody.weight", 0, 8, (1,))], changes, "nobody.weight: there is no such weight"),
        ([*slices[:-1], (*slices[-1][:2], 9, (1,))], changes, "the edit was made for 9 at axis"),
        ([*slices[:-1], (*slices[-1][:3], (2, 1))], changes, "each once and in order"),
        (slices, [*changes, ("head", "colour", 3)], "head: it has no attribute 'colour'"),
        (slices, [*changes, ("tail", "in_features", 3)], "tail: there is no such module"),
    ]
    for cuts, sets, why in wrong:
        with pytest.raises(Refused, match=why):
            cut(module, cuts, sets)
        assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
        assert module.body[0].out_channels == 8
    once = cut(module, slices, changes)
    with pytest.raises(Refused, match="propose it anew"):
        cut(once, slices, changes)


@pytest.mark.parametrize("keep", [[], [3, 2], [0, 0], [8], [-1], list(range(8))])
def test_keep_is_checked(keep: list[int]) -> None:
    (width, _) = coupled(PlainCNN(), torch.randn(1, *IMAGE)).widths
    with pytest.raises(Refused, match=r"body\.0\.weight: keep"):
        width.cut(keep)


def test_cut_keeps_what_weights_are() -> None:
    module = randomised(PlainCNN()).to(memory_format=torch.channels_last)
    module.body[0].weight.requires_grad_(False)
    (width, _) = coupled(module, rows(*IMAGE)).widths
    narrow = cut(module, *width.cut([0, 2, 5]))
    weight = narrow.body[0].weight
    assert not weight.requires_grad
    assert weight.dtype == torch.float64
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert (narrow.body[0].out_channels, narrow.body[1].num_features, narrow.body[4].in_channels) == (3, 3, 3)
    assert isinstance(narrow.body[1].running_mean, Tensor)
    assert "running_mean" in dict(narrow.body[1].named_buffers())


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.randoms())
def test_factors_multiply_to_both_shapes(sizes: list[int], random: Any) -> None:
    def grouped() -> list[int]:
        shape, left = [], list(sizes)
        while left:
            taken = random.randint(1, len(left))
            shape.append(int(np.prod(left[:taken])))
            left = left[taken:]
        return shape

    before, after = grouped(), grouped()
    found = factors(before, after)
    if found is None:
        return
    parts, ins, outs = found
    assert [int(np.prod([parts[i] for i in held])) for held in ins] == before
    assert [int(np.prod([parts[i] for i in held])) for held in outs] == after
    assert [i for held in ins for i in held] == [i for held in outs for i in held] == list(range(len(parts)))


def test_factors_of_shapes_without_any() -> None:
    assert factors((6, 4), (8, 3)) is None
    assert factors((2, 12), (2, 3, 4)) == ([2, 3, 4], [[0], [1, 2]], [[0], [1], [2]])


def test_labels_go_together_or_stay() -> None:
    labels = Labels()
    a, b, c = labels.fresh(3), labels.fresh(3), labels.fixed(2, "it is the end")
    labels.unite(a, b)
    labels.unite(b[:2], c)
    found = labels.solve()
    assert (found.of[a] == found.of[b]).all()
    assert len(set(found.of.tolist())) == 3
    assert found.why == {int(found.of[a[0]]): "it is the end", int(found.of[a[1]]): "it is the end"}
