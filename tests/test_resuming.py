"""Runs from the middle: bit-equal to whole runs, whatever is written in place or shared; nothing stays behind."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shoal.anatomy import anatomy
from shoal.core.errors import BadModel
from shoal.core.resuming import Resumable, cells
from shoal.core.spans import Left, Step, Visit
from shoal.core.spec import Spec
from shoal.net import Net


class Block(nn.Module):
    """A residual block that writes in place where it can."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.up, self.act, self.down = nn.Linear(dim, dim), nn.ReLU(inplace=True), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.down(self.act(self.up(x)))
        return F.relu_(x)


class Looped(nn.Module):
    """One block three times, written to in between, then another; a dict comes out."""

    def __init__(self, dim: int = 6) -> None:
        super().__init__()
        self.first, self.block, self.last = nn.Linear(dim, dim), Block(dim), nn.Linear(dim, 3)

    def forward(self, x: Tensor, scale: Tensor) -> dict[str, Tensor]:
        y = self.first(x)
        for _ in range(3):
            y = self.block(y)
            y += 0.1
        return {"logits": self.last(y) * scale}


def encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.1)
    return nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)


def net() -> nn.Module:
    return Net(Spec.parse("vector[features=5] | residual(mlp) 4x8 - grouped(mlp) 2x6 | pool[outputs=3]"))


def plain() -> nn.Module:
    parts = [nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True)) for _ in range(3)]
    return nn.Sequential(*parts, nn.Flatten(), nn.Linear(4 * 25, 2))


CASES: list[tuple[Any, Any]] = [
    (net, torch.randn(4, 5)),
    (Looped, {"x": torch.randn(4, 6), "scale": torch.ones(3)}),
    (encoder, torch.randn(2, 5, 8)),
    (plain, torch.randn(2, 4, 5, 5)),
]


def tensor_of(output: Any) -> Tensor:
    found: Tensor = output["logits"] if isinstance(output, dict) else output
    return found


def whole(module: nn.Module, example: Any) -> Tensor:
    with torch.no_grad():
        return tensor_of(module(**example) if isinstance(example, dict) else module(example))


@pytest.mark.parametrize(("make", "example"), CASES)
def test_a_run_with_nothing_changed_is_the_run(make: Any, example: Any) -> None:
    module = make().eval()
    wanted = whole(module, example)
    paths = {span.path for span in anatomy(module, example).visits}
    assert paths
    with Resumable(module, paths) as runs:
        tape = runs.record(example)
        assert torch.equal(tensor_of(tape.output), wanted)
        assert torch.equal(tensor_of(runs.resume(tape, {})), wanted)
        for visit in tape.visits:
            same = runs.resume(tape, {visit: lambda step: step.give(step.run(step.main))})
            assert torch.equal(tensor_of(same), wanted), visit
    assert torch.equal(whole(module, example), wanted)


@pytest.mark.parametrize(("make", "example"), CASES)
def test_what_comes_before_the_change_is_not_computed(make: Any, example: Any) -> None:
    module = make().eval()
    spans = anatomy(module, example).visits
    runs_of: list[str] = []
    watched = {span.path for span in spans}
    for path in watched:
        part = module.get_submodule(path)
        forward = part.forward

        def counted(*args: Any, _forward: Any = forward, _path: str = path, **kwargs: Any) -> Any:
            runs_of.append(_path)
            return _forward(*args, **kwargs)

        part.forward = counted
    with Resumable(module, watched) as runs:
        tape = runs.record(example)
        for index, span in enumerate(spans):
            runs_of.clear()
            runs.resume(tape, {Visit(span.path, span.visit): lambda step: step.main.clone()})
            assert runs_of == [later.path for later in spans[index + 1 :]]


@pytest.mark.parametrize(("make", "example"), CASES)
def test_a_changed_run_that_is_kept_is_gone_on_from(make: Any, example: Any) -> None:
    """Whichever of two changes comes first, and wherever it is."""
    module = make().eval()
    spans = anatomy(module, example).visits
    changes = {span.at: lambda step: step.give(0.5 * step.run(step.main)) for span in spans}
    with Resumable(module, {span.path for span in spans}) as runs:
        tape = runs.record(example)
        for first in changes:
            kept = runs.branch(tape, {first: changes[first]})
            assert torch.equal(tensor_of(kept.output), tensor_of(runs.resume(tape, {first: changes[first]})))
            for second in changes.keys() - {first}:
                both = runs.resume(tape, {visit: changes[visit] for visit in (first, second)})
                assert torch.equal(tensor_of(runs.resume(kept, {second: changes[second]})), tensor_of(both))
                more = runs.branch(kept, {second: changes[second]})
                assert torch.equal(tensor_of(more.output), tensor_of(both))
        assert torch.equal(tensor_of(runs.resume(tape, {})), whole(module, example))


def test_a_skip_that_hands_on_what_is_kept_does_not_let_it_be_written_to() -> None:
    """Without the second map, the ReLU behind it writes to what the first gave."""
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 3)).eval()
    x, skip, same = torch.randn(8, 4), lambda step: step.main, lambda step: step.run(step.main)
    wanted = whole(module, x)
    with torch.no_grad():
        without = module[3](module[0](x).relu())
    for kept in (False, True):
        with Resumable(module, ["0", "1"]) as runs:
            tape = runs.record(x)
            for _ in range(2):
                found = runs.branch(tape, {Visit("1"): skip}).output if kept else runs.resume(tape, {Visit("1"): skip})
                assert torch.equal(found, without)
                assert torch.equal(runs.resume(tape, {Visit("1"): same}), wanted)
            gone = runs.branch(tape, {Visit("1"): skip})
            assert torch.equal(runs.resume(gone, {}), without)
            assert torch.equal(runs.resume(gone, {Visit("0"): same}), without)


def test_a_run_that_was_left_is_not_kept() -> None:
    module = net().eval()

    def leave(step: Step) -> Any:
        raise Left(torch.ones(1))

    with Resumable(module, ["stages.0.layers.0"]) as runs, pytest.raises(BadModel, match="leaves the run"):
        runs.branch(runs.record(torch.randn(2, 5)), {Visit("stages.0.layers.0"): leave})


def test_a_skipped_layer_is_a_dropped_layer() -> None:
    module, x = net().eval(), torch.randn(4, 5)
    with Resumable(module, ["stages.0.layers.2"]) as runs:
        found = runs.resume(runs.record(x), {Visit("stages.0.layers.2"): lambda step: torch.zeros_like(step.main)})
    stilled = net().eval()
    stilled.load_state_dict(module.state_dict())
    with torch.no_grad():
        for parameter in stilled.stages[0].layers[2].block.down.parameters():
            parameter.zero_()
    assert torch.equal(found, whole(stilled, x))


def test_one_visit_of_a_shared_module_is_changed_alone() -> None:
    module = Looped().eval()
    x = torch.randn(4, 6)
    example = {"x": x, "scale": torch.ones(3)}
    with Resumable(module, ["block"]) as runs:
        tape = runs.record(example)
        found = runs.resume(tape, {Visit("block", 1): lambda step: step.main})["logits"]
    with torch.no_grad():
        y = module.block(module.first(x)) + 0.1
        wanted = module.last(module.block(y + 0.1) + 0.1)
    assert torch.equal(found, wanted)


def test_the_module_is_left_as_it_was_whatever_happens() -> None:
    module = net().train()
    fast = torch.backends.mha.get_fastpath_enabled()

    def fails(step: Step) -> Any:
        raise RuntimeError("on purpose")

    with pytest.raises(BadModel, match="on purpose"), Resumable(module, ["stages.0.layers.0"]) as runs:
        runs.resume(runs.record(torch.randn(2, 5)), {Visit("stages.0.layers.0"): fails})
    assert module.training
    assert torch.backends.mha.get_fastpath_enabled() is fast
    assert all("forward" not in part.__dict__ for part in module.modules())


def test_a_run_can_be_left_with_an_answer() -> None:
    module = net().eval()

    def leave(step: Step) -> Any:
        raise Left(torch.ones(1))

    with Resumable(module, ["stages.0.layers.0"]) as runs:
        found = runs.resume(runs.record(torch.randn(2, 5)), {Visit("stages.0.layers.0"): leave})
    assert torch.equal(found, torch.ones(1))


def test_a_visit_that_no_run_makes_is_an_error() -> None:
    module = net()
    with Resumable(module, ["stages.0.layers.0"]) as runs:
        tape = runs.record(torch.randn(2, 5))
        with pytest.raises(BadModel, match=r"stages\.0\.layers\.0, visit 1: no run comes there"):
            runs.resume(tape, {Visit("stages.0.layers.0", 1): lambda step: step.main})


def test_cells_hold_everything_once() -> None:
    assert cells(Looped(), ["block"]) == ("first", "block", "last")
    assert cells(Looped(), ["block.up"]) == ("first", "block.up", "block.act", "block.down", "last")
    with pytest.raises(BadModel, match="within another span"):
        cells(Looped(), ["block", "block.up"])
