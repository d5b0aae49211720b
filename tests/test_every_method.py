"""The battery over everything there is: each kind, each name, each check. Adding a method adds its tests.

And the battery itself: planted faults are found, known failures are strict.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from shoal.core.errors import UnknownName
from shoal.kinds import BLOCKS, HEADS, KINDS, LINEARS, NORMS, STEMS, TASKS, WIRINGS
from shoal.testing import BATTERY, CheckFailed, check, checks, run

CASES = [
    pytest.param(kind.name, name, each, id=f"{kind.name}-{name}-{each}")
    for kind in KINDS.values()
    if kind.name in BATTERY
    for name in kind.names()
    for each, _ in checks(kind.name)
]


@pytest.mark.parametrize(("kind", "name", "each"), CASES)
def test_method(kind: str, name: str, each: str) -> None:
    reason = run(kind, name, each)
    if reason is not None:
        pytest.xfail(reason)


MLP, CONV, DENSE = BLOCKS.get("mlp"), BLOCKS.get("conv"), LINEARS.get("dense")
BATCH, RESIDUAL, GROUPED = NORMS.get("batch"), WIRINGS.get("residual"), WIRINGS.get("grouped")
POOL = HEADS.get("pool")
ATTENTION, VECTOR, CLASSES = BLOCKS.get("attention"), STEMS.get("vector"), TASKS.get("classification")


CONVOLVE = DENSE.convolve


def nodes(self: Any) -> list[set[int]]:
    return [{i} for i in range(self.depth + 1)]


ODD = torch.linalg.det  # an operation that the counter has no formula for


FAULTS: list[tuple[str, str, str, Any, str, Any]] = [
    ("block", "mlp", "zero_in_zero_out", MLP, "forward", lambda self, x: x + self.down(self.act(self.up(x)))),
    ("block", "mlp", "zero_in_zero_out", MLP, "forward", lambda self, x: self.down(self.act(self.up(x))) + 1e-30),
    ("block", "mlp", "rows_apart", MLP, "forward", lambda self, x: self.down(self.act(self.up(x - x.mean(0))))),
    ("block", "mlp", "gradients", MLP, "forward", lambda self, x: self.down(self.up(x).detach())),
    ("block", "mlp", "keeps_shape", MLP, "forward", lambda self, x: self.down(self.act(self.up(x)))[:1]),
    ("block", "mlp", "repeats", MLP, "forward", lambda self, x: self.down(F.dropout(self.up(x)))),
    ("block", "mlp", "widths_are_the_axes", MLP, "widths", {"hidden": ("up:out",)}),
    ("block", "mlp", "widths_are_the_axes", MLP, "widths", {"hidden": ("up:out", "up:in", "down:in")}),
    ("block", "conv", "widths_are_the_axes", CONV, "widths", {"hidden": ("first:out", "second:in")}),
    ("block", "mlp", "ends_are_linears", MLP, "inlets", ("down",)),
    ("block", "mlp", "ends_are_linears", MLP, "outlets", ("upper",)),
    ("block", "attention", "ends_are_linears", ATTENTION, "inlets", ("query", "key")),
    ("block", "mlp", "tiny_is_known", MLP, "tiny", {"hiden": 3}),
    ("block", "mlp", "costed", MLP, "forward", lambda self, x: self.down(self.act(self.up(x))) * ODD(torch.eye(2))),
    ("linear", "dense", "costed", DENSE, "forward", lambda self, x: F.linear(x, self.weight * ODD(torch.eye(2)))),
    ("linear", "dense", "costed", DENSE, "convolve", lambda self, x, stride=1: CONVOLVE(self, x) * ODD(torch.eye(2))),
    ("wiring", "residual", "costed", RESIDUAL, "forward", lambda self, x, layers: layers[0](x) * ODD(torch.eye(2))),
    ("head", "pool", "costed", POOL, "forward", lambda self, x: self.map(x.view(2, -1, 8).mean(1)) * ODD(torch.eye(2))),
    ("linear", "dense", "forward_is_matrix", DENSE, "forward", lambda self, x: F.linear(x, self.weight)),
    ("linear", "dense", "fit_own_matrix", DENSE, "fit", lambda self, m: self.weight.data.mul_(2)),
    ("linear", "dense", "convolve_is_matrix", DENSE, "convolve", lambda self, x, stride=1: CONVOLVE(self, x)),
    ("norm", "batch", "affine_is_said", BATCH, "affine", lambda self: (self.weight.detach(), self.bias.detach())),
    ("norm", "batch", "neutral_is_identity", BATCH, "neutral", lambda self: self.weight.data.fill_(1)),
    ("wiring", "residual", "reads_as_measured", RESIDUAL, "reads", nodes),
    ("wiring", "residual", "groups_are_sums", RESIDUAL, "groups", lambda self: [self.depth]),
    ("wiring", "grouped", "without_a_layer", GROUPED, "without", lambda self, index: {"size": 2}),
    ("wiring", "residual", "ends_and_out", RESIDUAL, "out", lambda self: self.dim + 1),
    ("stem", "vector", "reads", VECTOR, "reads", classmethod(lambda cls, places, channels, v: {"features": channels})),
    ("task", "classification", "scores_are_a_row", CLASSES, "scores", lambda self, output, target: output.double()),
    ("task", "classification", "distil_matches", CLASSES, "distil", lambda self, a, b, t: (a - b - 1).square().mean()),
]


@pytest.mark.parametrize(
    ("kind", "name", "each", "cls", "attribute", "fault"),
    FAULTS,
    ids=[f"{fault[1]}-{fault[2]}-{number}" for number, fault in enumerate(FAULTS)],
)
def test_planted_faults_are_found(
    monkeypatch: pytest.MonkeyPatch, kind: str, name: str, each: str, cls: Any, attribute: str, fault: Any
) -> None:
    assert run(kind, name, each) is None
    monkeypatch.setattr(cls, attribute, fault)
    with pytest.raises((AssertionError, RuntimeError, UserWarning)):
        run(kind, name, each)


def test_known_failures_are_strict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MLP, "known", {"repeats": "it rolls dice"})
    with pytest.raises(CheckFailed, match="passes though known to fail"):
        run("block", "mlp", "repeats")
    monkeypatch.setattr(MLP, "known", {"repeats": "  "})
    with pytest.raises(CheckFailed, match="no reason"):
        run("block", "mlp", "repeats")
    monkeypatch.setattr(MLP, "known", {"no_such_check": "because"})
    with pytest.raises(CheckFailed, match="no check of a block"):
        run("block", "mlp", "known_names_checks")
    monkeypatch.setattr(MLP, "known", {"repeats": "it rolls dice"})
    monkeypatch.setattr(MLP, "forward", lambda self, x: torch.rand_like(x))
    assert run("block", "mlp", "repeats") == "it rolls dice (CheckFailed)"


def test_one_call_checks_a_method() -> None:
    assert check("task", "regression") == {}


def test_what_there_is_not_is_said() -> None:
    with pytest.raises(UnknownName, match="did you mean 'block'"):
        checks("blocks")
    with pytest.raises(UnknownName, match="did you mean 'mlp'"):
        run("block", "mpl", "repeats")
    with pytest.raises(UnknownName, match="did you mean 'repeats'"):
        run("block", "mlp", "repeat")


def test_a_check_leaves_random_numbers_and_threads_alone() -> None:
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    run("norm", "rms", "gradients")
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads
