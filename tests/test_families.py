"""Families: every network that people write is compressed, saved and opened again the same, or refused with reasons.

Nothing else happens: no other exception, no warning, nothing printed, and the module that was given stays as it was.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import shoal
from families import FAMILIES, numbers
from shoal.anatomy import anatomy
from shoal.artifact import describe
from shoal.compressed import Compression
from shoal.compressors._importance import Importance, Place
from shoal.core.base import Proposal
from shoal.core.errors import BadModel, OutOfReach, ShoalError
from shoal.core.example import tensors, unmarked
from shoal.core.inputs import run_on
from shoal.core.part import Part
from shoal.core.resuming import Resumable
from shoal.core.scene import Batch, Scene, answer
from shoal.costing import Latency, per_span_ms
from shoal.costing.timing.latency import Spread
from shoal.coupling import coupled
from shoal.edits.drop import Drop
from shoal.edits.narrow import Narrow
from shoal.evidence import Evidence
from shoal.interventions.skip import Skip
from shoal.kinds import COMPRESSORS, TASKS
from shoal.recipe import edited
from shoal.shrinking.healing import blocks_for, lessons_of
from shoal.shrinking.planning import SUM, WAYS, Plan
from shoal.shrinking.program import Way
from shoal.shrinking.stages import pack, unpack
from shoal.shrinking.tracks import Track, tracked
from shoal.shrinking.warning import copied
from shoal.shrinking.weighing import Weighed
from shoal.training import TrainingRecipe
from shoal.training.checkpoint import Checkpoint
from strangers import TinyResNet

QUICK = TrainingRecipe(lr=1e-3, batch=32, epochs=1)
CASES = [(name, goal) for name, family in FAMILIES.items() for goal in family.goals]
NEAR = 1e-5


@dataclass(frozen=True, eq=False)
class Tried:
    """What came of it, whether the module that was given is as it was, and all that was printed or warned of."""

    found: Compression | ShoalError
    untouched: bool
    noise: tuple[str, ...]


@contextlib.contextmanager
def untimed() -> Iterator[None]:
    """Inside, nothing is timed: whatever is asked about takes a millisecond. And fewer ways of planning are tried."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shoal.shrinking.planning.WAYS", (SUM, WAYS[-1]))
        for place in ("compression", "shrinking.scale"):
            patch.setattr(f"shoal.{place}.latency", a_millisecond)
        for place in ("compressed", "shrinking.saving"):
            patch.setattr(f"shoal.{place}.per_span_ms", few_runs)
        yield


def few_runs(module: nn.Module, example: Any, paths: list[str], **_: Any) -> dict[str, float]:
    return per_span_ms(module, example, paths, seconds=0)


def a_millisecond(module: nn.Module, example: Any, against: nn.Module | None = None, **_: Any) -> Latency:
    other = None if against is None else Spread(1.0, 1.0, 1.0, 1, 1)
    ratio = None if against is None else Evidence(1.0, 1.0, 1.0, 1)
    return Latency(1.0, 1.0, 1.0, 1, 1, against=other, ratio=ratio)


@cache
def tried(name: str, goal: str) -> Tried:
    """Compress a family's network with all that is usual."""
    family = FAMILIES[name]
    torch.manual_seed(0)
    module, heard = family.make(), Heard()
    before = mark(module)
    printed = io.StringIO()
    logging.getLogger().addHandler(heard)
    try:
        with untimed(), warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
                found: Compression | ShoalError = compress(module, family.data(), goal)
    finally:
        logging.getLogger().removeHandler(heard)
    noise = (*heard.lines, *(str(one.message) for one in warned), *printed.getvalue().splitlines())
    return Tried(found, same(before, mark(module)), noise)


def compress(module: nn.Module, data: Any, goal: str) -> Compression | ShoalError:
    try:
        return shoal.compress(module, data, to=goal, keep=None, controls=False, recipe=QUICK)
    except ShoalError as error:
        return error


class Heard(logging.Handler):
    """Everything that is logged at all loudly."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def mark(module: nn.Module) -> list[Any]:
    """All that there is of a module: weights, statistics, flags, hooks, and what its parts note."""
    found: list[Any] = [repr(module)]
    for path, part in module.named_modules(remove_duplicate=False):
        own = {**part._parameters, **part._buffers}
        found += [path, part.training, len(part._forward_hooks), len(part._forward_pre_hooks), sorted(vars(part))]
        found += [value for value in vars(part).values() if isinstance(value, int | float | str | tuple)]
        for key, value in own.items():
            trains = value is not None and (value.requires_grad, value.grad is None)
            found += [key, None if value is None else value.detach().clone(), trains]
    return found


def same(one: list[Any], other: list[Any]) -> bool:
    """Whether two marks are equal, bit for bit."""
    return len(one) == len(other) and all(
        torch.equal(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else a == b
        for a, b in zip(one, other, strict=True)
    )


def rows_of(found: Compression, rows: int) -> Any:
    return found.dataset.test.batch(slice(0, rows))[0]


def asked(module: nn.Module, x: Any) -> list[Tensor]:
    """All that a module answers."""
    with torch.no_grad():
        return tensors(run_on(module, x))


def far(one: list[Tensor], other: list[Tensor]) -> float:
    assert [each.shape for each in one] == [each.shape for each in other]
    return max(float((a - b).abs().max()) / max(1.0, float(b.abs().max())) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(("name", "goal"), CASES)
def test_compressed_and_the_same_again_or_refused(name: str, goal: str, tmp_path: Path) -> None:
    result = tried(name, goal)
    assert result.untouched
    assert result.noise == ()
    if FAMILIES[name].refused:
        assert isinstance(result.found, ShoalError)
        assert FAMILIES[name].refused in str(result.found)
        assert "\n" not in str(result.found)
        return
    assert isinstance(result.found, Compression), result.found
    found, metric = result.found, goal.partition("<")[0]
    assert found.goals_met, found.notes
    assert getattr(found.after.cost, metric) < getattr(found.before.cost, metric)
    assert getattr(shoal.cost(found.module, found.example), metric) == getattr(found.after.cost, metric)
    fresh = found.recipe.replay(FAMILIES[name].make())
    fresh.load_state_dict(found.module.state_dict(), strict=True)
    assert far(asked(fresh.eval(), rows_of(found, 7)), asked(found.module, rows_of(found, 7))) < NEAR
    if not FAMILIES[name].exports:
        with untimed(), pytest.raises(BadModel, match="name the base") as caught:
            shoal.save(found, tmp_path / "run", onnx=False)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "run").exists()
        return
    with untimed():
        folder = shoal.save(found, tmp_path / "run", onnx=False)
    rows = describe(folder)["programs"]["model.pt2"]["batch"]
    x = rows_of(found, 7 if rows == "any" else rows)
    wanted = asked(found.module, x)
    assert far(asked(shoal.load(folder), x), wanted) < NEAR
    assert far(asked(shoal.load(folder, base=FAMILIES[name].make), x), wanted) < NEAR
    assert all(bool(each.isfinite().all()) for each in wanted)


ELSEWHERE = """
import sys, numpy, torch
for folder in sys.argv[1:]:
    net = torch.export.load(folder + "/model.pt2").module()
    numpy.save(folder + "/found.npy", net(torch.from_numpy(numpy.load(folder + "/given.npy"))).detach().numpy())
"""


def test_artefacts_open_in_another_process_with_torch_alone(tmp_path: Path) -> None:
    names = ["resnet", "lstm", "torch encoder"]
    for name in names:
        found = tried(name, "params<=70%").found
        assert isinstance(found, Compression)
        with untimed():
            folder = shoal.save(found, tmp_path / name, onnx=False)
        np.save(folder / "given.npy", rows_of(found, 7).numpy())
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, *(str(tmp_path / name) for name in names)],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name in names:
        found = tried(name, "params<=70%").found
        assert isinstance(found, Compression)
        there = torch.from_numpy(np.load(tmp_path / name / "found.npy"))
        assert far([there], asked(found.module, rows_of(found, 7))) < NEAR


def test_a_module_without_anything_to_take_is_told_why_at_every_place() -> None:
    found = tried("logistic", "params<=70%").found
    assert isinstance(found, OutOfReach)
    assert "(weight:0: it is an axis of the output; weight:1: it is an axis of the input)" in str(found)
    with untimed():
        deep = compress(FAMILIES["residual mlp"].make(), FAMILIES["residual mlp"].data(), "depth<=70%")
    assert isinstance(deep, OutOfReach)
    assert "ups.0, ups.1, ups.2, ups.3: it changes the shape, [1, 12] to [1, 24]" in str(deep)
    assert "downs.0, downs.1, downs.2, downs.3: it changes the shape" in str(deep)


def test_there_are_many_families() -> None:
    assert len(FAMILIES) - sum(bool(family.refused) for family in FAMILIES.values()) >= 40


def test_marks_see_what_changes() -> None:
    module = FAMILIES["resnet"].make()
    before = mark(module)
    assert same(before, mark(copy.deepcopy(module)))
    module.get_parameter("conv.weight").data[0] += 1
    assert not same(before, mark(module))


LONGER = TrainingRecipe(lr=3e-3, batch=16, epochs=6)
HEALED = {
    ("skip", "resnet"): "depth<=80%",
    ("skip", "encoder by hand"): "depth<=80%",
    ("flatten", "resnet"): "depth<=80%",
    ("channels", "resnet"): "params<=60%",
    ("channels", "encoder by hand"): "params<=80%",
    ("low_rank", "encoder by hand"): "params<=80%",
    ("low_rank", "resnet, bottlenecks"): "params<=80%",
    ("linear[explains=0]", "resnet"): "params<=80%",
    ("linear[explains=0]", "encoder by hand"): "params<=80%",
}


@pytest.mark.parametrize(("compressor", "name"), HEALED)
def test_healing_mends_what_each_compressor_spoilt(compressor: str, name: str) -> None:
    """The answers of the original are asked for, on which its own loss is 0; the valid part is what harm is seen on."""
    torch.manual_seed(0)
    module, data = FAMILIES[name].make(), FAMILIES[name].data()
    with untimed():
        found = shoal.compress(
            module, data[0], to=HEALED[compressor, name], keep=None, controls=False, recipe=LONGER,
            compressors=[compressor],
        )  # fmt: skip
    assert found.goals_met
    assert {step.weighed.compressor for step in found.steps} == {compressor}
    way = found.front[-1].name.removesuffix(", healed")
    (harm,) = {one.harm for one in found.front if one.name == way}
    assert harm is not None
    after = shoal.evaluate(found.module, found.dataset.valid, found.task).loss
    learned = [row["loss"] for row in found.healing.history[1:]]
    assert learned[-1] < 0.98 * learned[0]
    assert after < 1.02 * harm  # the epoch with the best cosine is kept, and its loss may be a hair above


def chained() -> nn.Module:
    """A plain net; its two square layers are spans, and each width lies in two layers."""
    sizes = [10, 16, 16, 16, 3]
    layers = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def test_spans_that_a_width_lies_in_stay_where_they_are() -> None:
    torch.manual_seed(0)
    with untimed():
        found = shoal.compress(
            chained(), numbers(10), to="params<=60%", keep=None, controls=False, recipe=QUICK, compressors=["channels"]
        )
        rows = found.report["layers"]
    assert [step.weighed.proposal.paths for step in found.steps if step.weighed.proposal.into is not None] == []
    assert all(step.weighed.proposal.stay for step in found.steps)
    assert [(track.path, track.origins) for track in found.tracks] == [("2", ("2",)), ("4", ("4",))]
    assert [row["fate"] for row in rows] == ["kept", "kept"]
    assert sum(row["after"]["params"] for row in rows) < sum(row["params"] for row in rows)


def test_what_stays_is_a_width_to_the_planner_and_to_its_stages() -> None:
    edit = Narrow(path="2", slices=(("2.weight", 0, 16, (0, 1)),))
    one = Weighed(Proposal((edit,), ("2", "4"), stay=True), "channels", 0.0, 1.0, {"params": 9.0})
    gone = Weighed(Proposal((Drop(path="2"),), ("2",)), "skip", 0.0, 1.0, {"params": 9.0})
    assert [Way("", kind="width").takes(each) for each in (one, gone)] == [True, False]
    assert [Way("", kind="depth").takes(each) for each in (one, gone)] == [False, True]
    facts, weights = pack([one, gone])
    assert [each.proposal for each in unpack(facts, Checkpoint(weights, {}))] == [one.proposal, gone.proposal]
    tracks = [Track("2", ("2",)), Track("4", ("4",))]
    assert tracked(tracks, one.proposal, chained()) == tracks
    assert tracked(tracks, gone.proposal, chained()) == tracks[1:]


def test_a_narrower_stream_is_not_taught_what_a_wider_one_does() -> None:
    """Spans that take fewer channels than the teacher's are left to the answers; the others learn block by block."""
    torch.manual_seed(0)
    net, x = TinyResNet(2).eval(), numbers(1, 8, 8)
    spans = anatomy(net, x[:2]).spans
    wide = next(one for one in coupled(net, x[:2]).widths if one.weight == "conv.weight")
    slices, settings = wide.cut(range(4))
    narrow = edited(net, Narrow(path="conv", slices=slices, settings=settings))
    tracks = [Track(span.path, (span.path,)) for span in spans]
    task = TASKS.make(Part("fidelity", {"outputs": 10}))
    lessons = lessons_of(net, tracks, spans, x[:2])
    assert any(path.startswith("layer1") for path, *_ in lessons)
    found = blocks_for(task, net, Plan(narrow, [], tracks), spans, x[:2])
    left = [] if found is None else [path for path, *_ in found.lessons]
    assert not any(path.startswith("layer1") for path in left)
    whole = blocks_for(task, net, Plan(net, [], tracks), spans, x[:2])
    assert whole is not None
    assert whole.lessons == lessons


class Written(nn.Module):
    """What the middle gives is written to, and so is what a branch gives; what they took is read again."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.branch = (nn.Linear(6, 6) for _ in range(3))
        self.last = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x), inplace=True)
        y = F.relu_(self.middle(x))
        z = self.branch(y)
        z += y
        return self.last(z * x)


def test_what_is_written_to_later_is_a_copy_of_what_passes_by() -> None:
    """Without it, a dropped span would let others write to what it read: gradients break, and answers change."""
    torch.manual_seed(0)
    net, x = Written().eval(), torch.randn(5, 6)
    spans = {span.path: span for span in anatomy(net, x).spans}
    assert {path: (span.branch, span.written) for path, span in spans.items()} == {
        "first": (False, True), "middle": (False, True), "branch": (True, True),
    }  # fmt: skip
    drops = [one.edits[0] for one in COMPRESSORS.get("skip")().propose(Scene(net, anatomy(net, x), (Batch(x),)))]
    for drop in drops:
        dropped = edited(net, drop)
        whole = copy.deepcopy(net)
        part = whole.get_submodule(drop.path)
        assert isinstance(part, nn.Linear)
        with torch.no_grad():
            part.weight.copy_(torch.zeros(6, 6) if drop.branch else torch.eye(6))
            part.bias.zero_()
        kept = x.clone()
        assert torch.allclose(dropped(x), whole(x), atol=1e-6)
        assert torch.equal(x, kept)
        dropped(x).sum().backward()
        skipped = Skip().changes((spans[drop.path],))
        with Resumable(net, spans) as runs:
            assert torch.allclose(answer(runs.resume(runs.record(x), skipped)), whole(x), atol=1e-6)


def test_nothing_is_copied_where_nobody_writes() -> None:
    net = chained()
    assert not any(span.written for span in anatomy(net, torch.randn(2, 10)).spans)
    assert not any(span.written for span in anatomy(FAMILIES["encoder by hand"].make(), torch.randn(2, 6, 4)).spans)


def test_spans_of_unlike_shapes_are_no_lesson() -> None:
    """Between the two square layers the width changes: one after another they cannot be run."""
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 8), nn.Linear(8, 8)).eval()
    x = torch.randn(5, 4)
    spans = anatomy(net, x).spans
    assert [span.path for span in spans] == ["0", "2", "4"]
    tracks = [Track("0", ("0",)), Track("4", ("4",))]
    assert lessons_of(net, tracks, spans, x) == ()


def test_complex_weights_count_by_what_the_loss_would_change() -> None:
    """To first order: what a small step towards nothing changes, both parts of the number together."""
    torch.manual_seed(0)
    net, x = FAMILIES["fno"].make().double(), torch.randn(4, 12, 2, dtype=torch.float64)
    with torch.no_grad():
        for spectral in net.get_submodule("spectral"):
            spectral.weights.data = spectral.weights.data.to(torch.complex128)
    task = TASKS.make(Part("fidelity", {"outputs": 1}))
    scene = Scene(net, anatomy(net, x), (Batch(x, net(x).detach() + 0.1),), task)
    name, step = "spectral.1.weights", 1e-6
    places = [Place(name, 1, torch.arange(8))]
    found = Importance(scene, "taylor", 4).of(places, 8)
    weight = net.get_parameter(name)

    def loss() -> float:
        with torch.no_grad():
            return float(task.loss(net(x), scene.batches[0].target))

    before, whole = loss(), weight.detach().clone()
    for unit in range(8):
        with torch.no_grad():
            weight.copy_(whole)
            weight[:, unit] *= 1 - step
        assert found[unit] == pytest.approx(abs(loss() - before) / step, rel=1e-3)


def test_what_a_run_keeps_in_a_module_is_put_back() -> None:
    net, x = FAMILIES["keeps what it saw"].make(), torch.randn(2, 10)
    with unmarked(net):
        net(x)
        assert isinstance(net.seen, Tensor)
    assert net.seen is None
    net(x)
    kept = net.seen
    with unmarked(net):
        net(x)
    assert net.seen is kept
    assert torch.equal(copied(net).get_parameter("last.weight"), net.get_parameter("last.weight"))
