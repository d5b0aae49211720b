"""Chains: another order of the same layers is what its spec says, prefixes are run once, the search finds no worse."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from shoal.chains import Chains, Found, base_chain, chain, changed, random_chain, search_chain, tally, ucb
from shoal.core.errors import BadSetting, Refused, ShoalError
from shoal.core.spec import Spec
from shoal.net import Net, Place, load_net
from strangers import randomised

NETS = [
    "vector[features=5] | residual(mlp) 4x8 | pool[outputs=3]",
    "vector[features=5] | plain(mlp) 4x8 | pool[outputs=3]",
    "vector[features=5] | residual(mlp norm=batch) 2x8-2x6 | pool[outputs=3]",
    "vector[features=5] | residual(mlp) 2x8@0,1,0 - plain(mlp) 2x6 | pool[outputs=3]",
]
STAGES = [(0, 0, 0, 0), (0, 0, 0, 0), (0, 0, 1, 1), (0, 0, 1, 1)]


def net_of(text: str, seed: int = 0) -> Net:
    net = randomised(Net(Spec.parse(text)), seed)
    assert isinstance(net, Net)
    return net


def rows(count: int = 3, seed: int = 0) -> Tensor:
    return torch.randn(count, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# ---- one chain


@pytest.mark.parametrize("text", NETS)
def test_the_base_chain_is_the_net(text: str) -> None:
    net, x = net_of(text), rows()
    again = chain(net, base_chain(net))
    assert again.spec == net.spec
    assert torch.equal(again(x), net(x))
    assert torch.equal(Chains(net, x)(base_chain(net)), net(x))


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(range(len(NETS))), st.data())
def test_a_planned_chain_is_the_chain_run_by_itself(which: int, data: st.DataObject) -> None:
    """Chains one after another, with all they have in common cached: each is what a net of that order gives."""
    net, x = net_of(NETS[which]), rows()
    planned = Chains(net, x)
    layers = st.lists(st.integers(0, 3), min_size=1, max_size=7).map(
        lambda found: sorted(found, key=STAGES[which].__getitem__)
    )
    for order in data.draw(st.lists(layers, min_size=1, max_size=4)):
        given_ = planned(order)
        if {STAGES[which][layer] for layer in order} == set(STAGES[which]):
            assert torch.equal(given_, chain(net, order)(x))
        else:
            with pytest.raises(Refused, match="without layers"):
                chain(net, order)


def test_what_chains_share_is_run_once() -> None:
    planned = Chains(net_of(NETS[0]), rows())
    for order, ran in (((0, 1, 2, 3), 4), ((0, 1, 3), 5), ((0, 1, 3, 3), 6), ((0, 1, 2, 3), 6), ((0, 1), 6), ((1,), 7)):
        planned(order)
        assert planned.ran == ran


def test_the_empty_chain_is_stem_and_head() -> None:
    for text in (NETS[0], NETS[2]):
        net, x = net_of(text), rows()
        stream = net.stem(x)
        for stage in net.stages:
            stream = stream if stage.join is None else stage.join(stream)  # type: ignore[union-attr,operator]
        assert torch.equal(Chains(net, x)(()), net.head(stream))


def test_a_layer_left_out_is_one_that_adds_nothing() -> None:
    net, x = net_of(NETS[0]), rows()
    zero = net(x, see=lambda place, y: torch.zeros_like(y) if place == Place(0, 1, "out", 0) else None)
    assert torch.equal(chain(net, (0, 2, 3))(x), zero)


def test_a_chain_holds_the_very_weights() -> None:
    net = net_of(NETS[2])
    other = chain(net, (1, 1, 3, 2))
    own = {id(parameter) for parameter in net.parameters()}
    assert all(id(parameter) in own for parameter in other.parameters())
    assert str(other.spec) == "vector[features=5] | residual(mlp norm=batch) 1x8@0,0-2x6@1,0 | pool[outputs=3]"
    with torch.no_grad():
        next(net.stages[0].layers[1].parameters()).mul_(2)  # type: ignore[union-attr,index]
    again = chain(net, (1, 1, 3, 2))
    assert torch.equal(other(rows()), again(rows()))
    loaded = load_net(other.spec, other.state_dict())
    assert torch.equal(loaded(rows()), other(rows()))
    assert not any(tensor.is_meta for tensor in copy.deepcopy(other).state_dict().values())


def test_the_net_and_its_modes_are_left_alone() -> None:
    net, x = net_of(NETS[2]).train(), rows()
    net.stages[1].eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    modes = [module.training for module in net.modules()]
    chain(net, (0, 3))
    Chains(net, x)((0, 0, 2))
    search_chain(net, x, lambda y: float(y[0, 0]), trials=5)
    assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize(
    ("text", "order", "error", "says"),
    [
        ("dense[growth=3](mlp) 3x8", (0, 1), Refused, "cannot be run one by one"),
        ("grouped[size=2](mlp) 4x8", (0, 1), Refused, "wirings such as residual and plain can"),
        ("grouped[size=[1,1]](mlp) 2x8", (0, 1), Refused, "one by one"),
        ("looped[times=2](mlp) 3x8", (0, 1), Refused, "one by one"),
        ("residual(mlp) 2x8@0,1,0*", (0, 1), Refused, "norms of their own"),
        ("residual(mlp) 3x8-2x6", (0, 1), Refused, "stage 1 would be left without layers"),
        ("residual(mlp) 3x8", (0, 3), BadSetting, "no layer 3; they are numbered 0 to 2"),
        ("residual(mlp) 3x8", (0, -1), BadSetting, "no layer -1"),
        ("residual(mlp) 3x8-2x6", (3, 0), BadSetting, "keep the stages in their order"),
    ],
)
def test_what_is_no_row_of_steps_is_refused(
    text: str, order: tuple[int, ...], error: type[ShoalError], says: str
) -> None:
    net = net_of(f"vector[features=5] | {text} | pool[outputs=3]")
    with pytest.raises(error, match=says) as caught:
        chain(net, order)
    assert "\n" not in str(caught.value)


def test_a_net_with_exits_is_refused() -> None:
    with pytest.raises(Refused, match="exits"):
        chain(net_of(NETS[0] + " | 0.2: pool"), (0, 1))


@pytest.mark.parametrize("wiring", ["residual[act=relu]", "grouped[size=1]"])
def test_a_row_of_steps_is_known_by_what_it_does(wiring: str) -> None:
    net, x = net_of(f"vector[features=5] | {wiring}(mlp) 4x8 | pool[outputs=3]"), rows()
    assert torch.equal(Chains(net, x)((0, 2, 2)), chain(net, (0, 2, 2))(x))


# ---- changes and search


def test_changes_are_runs_left_out_or_run_again() -> None:
    found = changed((0, 1, 2), (0, 1, 2), (0, 0, 1), 2, 2)
    assert sorted(found) == sorted(
        [(1, 2), (0, 2), (0, 1), (2,), (0, 0, 1, 2), (0, 1, 1, 2), (0, 1, 2, 2), (0, 1, 0, 1, 2)]
    )
    assert (0, 1, 1, 1, 2) in changed((0, 1, 2), (0, 1, 2), (0, 0, 0), 1, 3)
    assert all(len(order) <= 6 for order in changed((0, 1, 2), (0, 0, 0, 1, 2), (0, 0, 0), 3, 2))
    assert changed((0, 1), (), (0, 0), 2, 2) == []


def test_ucb_is_the_formula_and_greedy_without_its_terms() -> None:
    worth = ucb(3.0, 4, (0, 1, 2), 10, 8, 1.5, 0.2)
    assert worth == pytest.approx(0.75 + 1.5 * math.sqrt(math.log(10) / 4) - 0.2 * 3 / 8, abs=1e-12)
    children = [(2.0, 3, (0,)), (5.0, 6, (0, 1, 2, 3)), (1.0, 2, ())]
    greedy = [ucb(*child, 11, 4, 0.0, 0.0) for child in children]
    assert greedy == [total / visits for total, visits, _ in children]


@pytest.mark.parametrize("search", [search_chain, random_chain])
@pytest.mark.parametrize("text", NETS)
def test_what_is_found_is_no_worse_and_true(search: object, text: str) -> None:
    net, x = net_of(text), rows(1)

    def reward(y: Tensor) -> float:
        return float(y[0, 0].detach())

    found = search(net, x, reward, trials=40, seed=3)  # type: ignore[operator]
    assert isinstance(found, Found)
    assert found.base == base_chain(net)
    assert found.base_reward == reward(net(x))
    assert found.reward >= found.base_reward
    assert found.reward == reward(Chains(net, x)(found.chain))
    assert found.tried == 41
    assert found == search(net, x, reward, trials=40, seed=3)  # type: ignore[operator]


def test_no_reward_to_gain_leaves_a_shortest_chain() -> None:
    net, x = net_of(NETS[0]), rows(1)
    found = search_chain(net, x, lambda y: 1.0, trials=60)
    assert len(found.chain) < 4
    assert found.reward == found.base_reward == 1.0
    assert found.chain == ()  # 3 changes of up to 4 layers reach it
    none = search_chain(net, x, lambda y: 0.0, trials=60, run=1, times=1, edits=1)
    assert len(none.chain) == 3
    assert none.tried == 5  # the base, and each layer left out


def test_the_search_finds_a_planted_chain() -> None:
    """One chain of two changes is rewarded, and what is one change away from it a little: the tree goes there."""
    net, x = net_of("vector[features=5] | residual(mlp) 6x8 | pool[outputs=3]"), rows(1)
    planned = Chains(net, x)
    wanted, near = planned((0, 1, 1, 2, 3, 5)), planned((0, 1, 1, 2, 3, 4, 5))

    def reward(y: Tensor) -> float:
        return float(torch.equal(y, wanted)) + 0.5 * float(torch.equal(y, near))

    found = search_chain(net, x, reward, trials=200, edits=2, run=2, times=2, explore=0.5, penalty=0.1, seed=0)
    assert found.chain == (0, 1, 1, 2, 3, 5)
    assert found.base_reward == 0.0
    assert found.ran < 6 * found.tried


def test_wrong_settings_are_refused() -> None:
    net, x = net_of(NETS[0]), rows(1)
    for name in ("trials", "edits", "run", "times"):
        for search in (search_chain, random_chain):
            with pytest.raises(BadSetting, match=f"{name}=0 must be at least 1"):
                search(net, x, lambda y: 0.0, **{name: 0})
    with pytest.raises(BadSetting, match="nothing was found yet"):
        tally([])


def test_the_tally_counts() -> None:
    base = (0, 1, 2)
    found = [
        Found((0, 2), 1.0, base, 1.0, 9, 9),  # shorter, and still right
        Found(base, 1.0, base, 1.0, 9, 9),
        Found((0, 1, 1, 2), 1.0, base, 0.0, 9, 9),  # put right
        Found(base, 0.0, base, 0.0, 9, 9),
    ]
    sums = tally(found)
    assert (sums.shorter, sums.fixed, sums.layers) == (0.5, 0.5, 3.0)
    assert sums.skipped == (0.0, 0.25, 0.0)
    assert sums.repeated == (0.0, 0.25, 0.0)
    assert math.isnan(tally(found[:2]).fixed)
