"""Interventions: each is the module that one gets by building it so; nothing of the module changes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from planted import Deep, Row, identity
from shoal.anatomy import anatomy
from shoal.core.base import Intervention
from shoal.core.errors import BadSetting
from shoal.core.resuming import Resumable
from shoal.core.scene import Batch, Scene, answer
from shoal.core.spans import Anatomy, Change, Span, Visit
from shoal.core.spec import Spec
from shoal.edits.drop import Drop
from shoal.edits.parallel import Parallel as ParallelEdit
from shoal.intervening import placed
from shoal.interventions.exit import Exit
from shoal.interventions.linear_map import LinearMap
from shoal.interventions.loop import Loop
from shoal.interventions.noise import Noise
from shoal.interventions.parallel import Parallel
from shoal.interventions.reverse import Reverse
from shoal.interventions.skip import Skip
from shoal.interventions.swap import Swap
from shoal.net import Net
from shoal.recipe import edited
from shoal.testing import run
from strangers import Encoder, TinyResNet, randomised
from test_anatomy_any import bert, gpt2, llama, t5, tuple_out

MEMORY = 1 << 30


def scene_of(module: nn.Module, example: Any) -> Scene:
    return Scene(module, anatomy(module, example), (Batch(example),))


def at_every_place(one: Intervention, module: nn.Module, example: Any) -> list[tuple[tuple[Span, ...], Tensor]]:
    """What the module answers with the intervention, at each of its places."""
    scene = scene_of(module, example)
    done = placed(scene, {"it": one}, MEMORY)
    with scene.runs() as runs:
        tape = runs.record(example)
        return [(spans, answer(runs.resume(tape, changes))) for _, spans, changes in done]


def whole(module: nn.Module, example: Any) -> Tensor:
    with Resumable(module, ()) as runs:
        return answer(runs.record(example).output)


def net(order: str = "") -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    module = Net(Spec.parse(f"vector[features=5] | residual(mlp norm=batch) 4x8{order} | pool[outputs=3]"))
    return randomised(module), torch.randn(7, 5, dtype=torch.float64)


def resnet() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return randomised(TinyResNet()), torch.randn(3, 1, 8, 8, dtype=torch.float64)


def encoder() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    module = nn.Sequential(*(Encoder(8) for _ in range(3)), nn.Linear(8, 3))
    return randomised(module), torch.randn(2, 5, 8, dtype=torch.float64)


def torch_encoder() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    layers = [nn.TransformerEncoderLayer(8, 2, 16, batch_first=True) for _ in range(3)]
    return randomised(nn.Sequential(*layers)), torch.randn(2, 5, 8, dtype=torch.float64)


FAMILIES = [net, resnet, encoder, torch_encoder]
Family = Callable[[], tuple[nn.Module, Tensor]]


def rebuilt(module: nn.Module, spans: tuple[Span, ...], order: list[int]) -> nn.Module:
    """A copy with the parts at these spans in another order."""
    made = copy.deepcopy(module)
    parts = [made.get_submodule(span.path) for span in spans]
    for span, index in zip(spans, order, strict=True):
        made.set_submodule(span.path, parts[index])
    return made


@pytest.mark.parametrize("family", FAMILIES)
def test_skip_is_the_edit_drop(family: Family) -> None:
    module, x = family()
    found = at_every_place(Skip(), module, x)
    assert [spans[0] for spans, _ in found] == list(anatomy(module, x).visits)
    for (span,), given in found:
        torch.testing.assert_close(given, whole(edited(module, Drop(path=span.path, branch=span.branch)), x))


def test_runs_are_skipped_together() -> None:
    module, x = resnet()
    for spans, given in at_every_place(Skip(run=2), module, x):
        shrunk = module
        for span in spans:
            shrunk = edited(shrunk, Drop(path=span.path, branch=span.branch))
        torch.testing.assert_close(given, whole(shrunk, x))


@pytest.mark.parametrize("family", [net, resnet, torch_encoder])
@pytest.mark.parametrize("run", [2, 3])
def test_parallel_is_the_edit_parallel(family: Family, run: int) -> None:
    module, x = family()
    found = at_every_place(Parallel(run=run), module, x)
    assert found
    for spans, given in found:
        wanted = whole(edited(module, ParallelEdit(paths=tuple(span.path for span in spans))), x)
        torch.testing.assert_close(given, wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize("family", [net, resnet, torch_encoder])
def test_swap_and_reverse_are_the_net_in_that_order(family: Family) -> None:
    module, x = family()
    for one, order in ((Swap(), [1, 0]), (Reverse(), [2, 1, 0])):
        found = at_every_place(one, module, x)
        assert found
        for spans, given in found:
            assert torch.equal(given, whole(rebuilt(module, spans, order), x))


def test_loop_is_the_looped_net() -> None:
    module, x = net()
    for times in (2, 3):
        for number, (_, given) in enumerate(at_every_place(Loop(times=times), module, x)):
            visits = [layer for layer in range(4) for _ in range(times if layer == number else 1)]
            looped, _ = net("@" + ",".join(map(str, visits)))
            looped.load_state_dict(module.state_dict())
            torch.testing.assert_close(given, whole(looped, x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("family", [resnet, torch_encoder])
def test_loop_of_a_stream_is_the_span_behind_itself(family: Family) -> None:
    module, x = family()
    for (span,), given in at_every_place(Loop(), module, x):
        looped = copy.deepcopy(module)
        part = looped.get_submodule(span.path)
        looped.set_submodule(span.path, nn.Sequential(part, part))
        assert torch.equal(given, whole(looped, x))


def test_a_linear_map_is_a_linear_span() -> None:
    torch.manual_seed(0)
    rows = Deep(nn.Linear(5, 8), [Row(8, F.relu), Row(8, identity)], nn.Linear(8, 3)).double()
    x = torch.randn(60, 5, dtype=torch.float64)
    bent, straight = (given for _, given in at_every_place(LinearMap(ridge=0.0), rows, x))
    torch.testing.assert_close(straight, whole(rows, x), rtol=0, atol=1e-9)
    assert float((bent - whole(rows, x)).abs().max().detach()) > 1e-3
    images = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 3)).double()
    x = torch.randn(3, 4, 5, 5, dtype=torch.float64)
    for _, given in at_every_place(LinearMap(ridge=0.0), images, x):
        torch.testing.assert_close(given, whole(images, x), rtol=0, atol=1e-9)


def test_a_linear_map_is_the_best_there_is() -> None:
    """Its error is at right angles to what goes in."""
    torch.manual_seed(0)
    module = nn.Sequential(Row(6, torch.tanh), nn.Identity()).double()
    x = torch.randn(40, 6, dtype=torch.float64)
    ((_, given),) = at_every_place(LinearMap(ridge=0.0), module, x)
    off = whole(module, x) - given
    assert float((x.T @ off).abs().max().detach()) < 1e-9
    assert float(off.sum(dim=0).abs().max().detach()) < 1e-9


def test_an_exit_is_exact_where_what_follows_is_linear() -> None:
    torch.manual_seed(0)
    module = Deep(nn.Linear(5, 8), [Row(8, F.relu), Row(8, identity)], nn.Linear(8, 3)).double()
    x = torch.randn(50, 6, 5, dtype=torch.float64)
    for _, given in at_every_place(Exit(ridge=0.0), module, x):
        torch.testing.assert_close(given, whole(module, x), rtol=0, atol=1e-8)
    words = nn.Sequential(Row(8, F.relu), Row(8, identity), nn.Linear(8, 3)).double()  # an answer at each place
    x = torch.randn(20, 6, 8, dtype=torch.float64)
    for _, given in at_every_place(Exit(ridge=0.0), words, x):
        torch.testing.assert_close(given, whole(words, x), rtol=0, atol=1e-8)


def test_an_exit_behind_a_branch_reads_the_stream() -> None:
    torch.manual_seed(0)
    module = randomised(Net(Spec.parse('vector[features=5] | residual(mlp) 3x8 | pool[norm="none",outputs=3]')))
    x = torch.randn(40, 5, dtype=torch.float64)
    *_, (_, last) = at_every_place(Exit(ridge=0.0), module, x)
    torch.testing.assert_close(last, whole(module, x), rtol=0, atol=1e-8)


def test_noise_is_as_large_as_said_and_the_same_for_a_seed() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(Row(6, torch.tanh), nn.Identity()).double()
    x = torch.randn(50, 6, dtype=torch.float64)
    y = whole(module, x)

    def off(seed: int) -> Tensor:
        ((_, given),) = at_every_place(Noise(share=0.2, seed=seed), module, x)
        return (given - y).detach()

    size = 0.2 * float(y.square().mean().sqrt().detach())
    assert torch.equal(off(3), off(3))
    assert not torch.equal(off(3), off(4))
    drawn = torch.stack([off(seed) for seed in range(40)])
    assert float(drawn.square().mean().sqrt()) == pytest.approx(size, rel=0.03)
    assert abs(float(drawn.mean())) < 5 * size / drawn.numel() ** 0.5


ORDERS: list[Intervention] = [Swap(), Reverse(run=2)]
EACH: list[Intervention] = [Skip(), Loop(), Parallel(), LinearMap(), Exit(), Noise()]
CASES = [
    pytest.param(family, one, id=f"{family.__name__}-{type(one).__name__}", marks=marks)
    for families, ones, marks in (
        ((bert, gpt2, llama, t5, tuple_out), EACH, ()),
        ((bert, gpt2, llama, t5, tuple_out), ORDERS, ()),
    )
    for family in families
    for one in ones
]


@pytest.mark.parametrize(("family", "one"), CASES)
def test_tuples_keywords_and_caches_are_no_matter(
    family: Callable[[], tuple[nn.Module, Any]], one: Intervention
) -> None:
    module, example = family()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    wanted = whole(module, example)
    for spans, given in at_every_place(one, module, example):
        assert given.shape == wanted.shape, spans
        assert given.isfinite().all()
        assert not torch.equal(given, wanted), spans
    assert torch.equal(whole(module, example), wanted)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all("forward" not in part.__dict__ for part in module.modules())


@pytest.mark.parametrize("family", [bert, gpt2, llama])
def test_skip_of_a_sublayer_is_its_last_matrix_at_zero(family: Callable[[], tuple[nn.Module, Any]]) -> None:
    module, example = family()
    for (span,), given in at_every_place(Skip(), module, example):
        if not span.branch:
            continue
        stilled = copy.deepcopy(module)
        part: Any = stilled.get_submodule(span.path)
        last = [one for one in part.modules() if any(w.dim() > 1 for w in one.parameters(recurse=False))][-1]
        with torch.no_grad():
            for parameter in last.parameters():
                parameter.zero_()
        torch.testing.assert_close(given, whole(stilled, example), rtol=0, atol=1e-6)


def test_what_is_out_of_range_is_refused() -> None:
    for make in (
        lambda: Skip(run=0),
        lambda: Loop(times=1),
        lambda: Parallel(run=1),
        lambda: Reverse(run=1),
        lambda: LinearMap(ridge=-1.0),
        lambda: Exit(ridge=-1.0),
        lambda: Noise(share=0.0),
    ):
        with pytest.raises(BadSetting, match="give"):
            make()


# ---- the battery of interventions


def nowhere(self: Skip, anatomy: Anatomy) -> Iterator[tuple[Span, ...]]:
    return iter(())


def backwards(self: Skip, anatomy: Anatomy) -> Iterator[tuple[Span, ...]]:
    yield anatomy.visits[1::-1]


def twice(self: Skip, anatomy: Anatomy) -> Iterator[tuple[Span, ...]]:
    yield anatomy.visits[:1]
    yield anatomy.visits[:1]


def no_change(self: Skip, spans: tuple[Span, ...]) -> Mapping[Visit, Change]:
    return {}


def elsewhere(self: Skip, spans: tuple[Span, ...]) -> Mapping[Visit, Change]:
    return {Visit("somewhere"): lambda step: step.out}


def one_more(self: Skip, spans: tuple[Span, ...]) -> Mapping[Visit, Change]:
    return {spans[0].at: lambda step: step.give(step.run(step.main) + 1)}


def dice(self: Skip, spans: tuple[Span, ...]) -> Mapping[Visit, Change]:
    return {spans[0].at: lambda step: step.give(torch.rand_like(step.main))}


def endless(self: Skip, spans: tuple[Span, ...]) -> Mapping[Visit, Change]:
    return {spans[0].at: lambda step: step.give(step.main * float("inf"))}


def learned(self: Skip, spans: tuple[Span, ...], given: Tensor, made: Tensor, wanted: Tensor) -> None:
    """It says nothing of this."""


@pytest.mark.parametrize(
    ("check", "attribute", "fault"),
    [
        ("places_are_spans", "places", nowhere),
        ("places_are_spans", "places", backwards),
        ("places_are_spans", "places", twice),
        ("changes_are_at_its_places", "changes", no_change),
        ("changes_are_at_its_places", "changes", elsewhere),
        ("answers_are_answers", "changes", dice),
        ("answers_are_answers", "changes", endless),
        ("leaves_the_module_alone", "changes", dice),
        ("learns_as_said", "learn", learned),
        ("nothing_where_nothing_is_added", "changes", one_more),
    ],
)
def test_planted_faults_are_found(monkeypatch: pytest.MonkeyPatch, check: str, attribute: str, fault: Any) -> None:
    monkeypatch.setattr(Skip, attribute, fault)
    with pytest.raises(AssertionError):
        run("intervention", "skip", check)
