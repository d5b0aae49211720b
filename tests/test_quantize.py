"""Quantising: what runs in floating point lies on integers' grids, learns on, and runs in integers in onnxruntime."""

from __future__ import annotations

import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import shoal
from shoal.anatomy import anatomy
from shoal.compressors._grids import calibrated, places
from shoal.compressors.int8 import Int8
from shoal.compressors.ternary import Ternary
from shoal.core.base import Proposal
from shoal.core.errors import BadSetting, Refused
from shoal.core.grids import Grid, before_ternary, by_token, grid_of, on_rows, scales_of, ternary
from shoal.core.part import Part
from shoal.core.scene import Batch, Scene
from shoal.core.spec import Spec
from shoal.edits.quantize import Quantize
from shoal.integers import in_integers
from shoal.kinds import LINEARS
from shoal.net import Net
from shoal.recipe import Recipe, done, edited
from strangers import BasicBlock, TinyResNet

ROWS = torch.randn(6, 5, generator=torch.Generator().manual_seed(1))
IMAGES = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))
TEXT = "vector[features=5] | residual(mlp) 2x8 | pool[outputs=3]"


def seeded(make: Any, *args: Any) -> Any:
    torch.manual_seed(0)
    return make(*args).eval()


def mlp() -> nn.Module:
    return seeded(lambda: nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 3)))


def resnet() -> nn.Module:
    """With norms that do something."""
    net: nn.Module = seeded(TinyResNet)
    net.train()
    for _ in range(5):
        net(torch.randn(16, 1, 8, 8))
    return net.eval()


def scene(module: nn.Module, x: Tensor) -> Scene:
    return Scene(module, anatomy(module, x), (Batch(x), Batch(x.flip(0) / 2)))


def proposals(module: nn.Module, x: Tensor) -> dict[str, Proposal]:
    """What int8 proposes, by kind."""
    return {one.edits[-1].kind: one for one in Int8().propose(scene(module, x))}  # type: ignore[attr-defined]


def exported(
    module: nn.Module, x: Tensor, folder: Path, level: Any = None
) -> tuple[np.ndarray[Any, Any], Counter[str]]:
    """What onnxruntime gives, and the operators that it runs."""
    path, kept = folder / "net.onnx", folder / "optimised.onnx"
    shoal.export(module, x, path, "onnx")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = level or onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(kept)
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
    return found, Counter(node.op_type for node in onnx.load(kept).graph.node)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 8), st.floats(1e-3, 1e3))
def test_weights_lie_on_the_grid_of_their_row(seed: int, bits: int, size: float) -> None:
    weight = size * torch.randn(4, 3, 2, generator=torch.Generator().manual_seed(seed))
    scales = scales_of(weight, bits)
    steps = on_rows(weight, scales, torch.zeros(4, dtype=torch.int32), bits) / scales[:, None, None]
    assert float((steps - steps.round()).abs().max()) < 1e-4
    assert steps.abs().flatten(1).amax(dim=1).round().tolist() == [2 ** (bits - 1) - 1] * 4
    assert bool(((steps * scales[:, None, None] - weight).abs() <= 0.501 * scales[:, None, None]).all())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.floats(-5, 5), st.floats(1e-2, 10))
def test_activations_lie_on_256_values_and_zero_is_one(seed: int, middle: float, size: float) -> None:
    x = middle + size * torch.randn(50, generator=torch.Generator().manual_seed(seed))
    grid = Grid()
    grid.scale, grid.zero = grid_of(x.min(), x.max())
    y = grid(x)
    steps = y / grid.scale + grid.zero
    assert float((steps - steps.round()).abs().max()) < 1e-3
    assert float(steps.min()) > -1e-3
    assert float(steps.max()) < 255.001
    assert float((y - x).abs().max()) <= 0.51 * float(grid.scale)
    assert float(grid(torch.zeros(1))) == 0.0


def test_zero_rows_and_empty_ranges_do_no_harm() -> None:
    weight = torch.zeros(2, 3)
    assert torch.equal(on_rows(weight, scales_of(weight, 7), torch.zeros(2, dtype=torch.int32), 7), weight)
    scale, zero = grid_of(torch.tensor(0.0), torch.tensor(0.0))
    assert float(scale) > 0
    assert int(zero) == 0


@pytest.mark.parametrize("measure", ["mean", "median"])
def test_ternary_matrices_have_three_values(measure: str) -> None:
    weight = torch.randn(9, 7, dtype=torch.float64, requires_grad=True)
    made = ternary(weight, measure)
    size = getattr(torch, measure)(weight.abs())
    values = (made / size).detach().unique()
    assert torch.allclose(values, torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64), atol=1e-12)
    assert torch.allclose(ternary(3 * weight, measure), 3 * made, atol=1e-12)
    again = ternary(before_ternary(made.detach(), measure), measure)
    assert torch.allclose(again, made, atol=1e-12)
    upstream = torch.randn_like(made)
    made.backward(upstream)
    assert torch.equal(weight.grad, upstream)  # as if it were not there


def test_the_paper_s_layer_is_the_frozen_one() -> None:
    """y = x_q w_q / (scales), by hand, and the gradient is that of the layer that is not quantised."""
    linear: Any = LINEARS.make(Part("ternary", {"tokens": True}), 6, 4, True, (), 1).double()
    with torch.no_grad():
        linear.bias.normal_()
    x = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    scale = 127 / x.abs().amax(-1, keepdim=True)
    size = linear.weight.abs().mean()
    w = (linear.weight / size).round().clamp(-1, 1)
    wanted = ((x * scale).round() @ w.T) * size / scale + linear.bias
    y = linear(x)
    assert torch.allclose(y, wanted, atol=1e-10)
    y.sum().backward()
    assert torch.allclose(linear.weight.grad, by_token(x, -1).sum(0).expand(4, 6), atol=1e-10)
    assert torch.allclose(x.grad, linear.matrix().sum(0).expand(5, 6), atol=1e-10)


@pytest.mark.parametrize("kind", ["static", "dynamic", "weights", "ternary"])
def test_a_stranger_replays_learns_and_stays_on_its_grid(kind: str) -> None:
    net = mlp()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    edit = Quantize(kind=kind, paths=("0", "2"), inputs=("0",) if kind == "static" else ())
    made = edited(net, edit)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    again = Recipe.from_json(json.loads(json.dumps(Recipe(None, (edit,)).to_json()))).replay(mlp())
    again.load_state_dict(made.state_dict(), strict=True)
    assert torch.equal(again(ROWS), made(ROWS))
    assert not torch.equal(made(ROWS), net(ROWS))
    made.train()
    optimizer = torch.optim.SGD(made.parameters(), 0.05)
    losses = []
    for _ in range(20):
        loss = F.cross_entropy(made(ROWS), torch.arange(6) % 3)
        optimizer.zero_grad()
        loss.backward()
        assert all(parameter.grad is not None for parameter in made.parameters())
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    weight = next(part.weight for part in made.modules() if isinstance(part, nn.Linear))
    values = weight.detach()[0].unique()
    assert len(values) <= (3 if kind == "ternary" else 127)
    steps = values / values.abs()[values != 0].min()
    if kind == "ternary":
        assert float((steps - steps.round()).abs().max()) < 1e-5


@pytest.mark.parametrize("kind", ["static", "dynamic", "weights", "ternary"])
def test_a_net_says_it_in_its_spec(kind: str) -> None:
    net = seeded(Net, Spec.parse(TEXT))
    made = edited(net, Quantize(kind=kind))
    assert isinstance(made, Net)
    assert ("ternary" if kind == "ternary" else "int8") in str(made.spec)
    assert Spec.parse(str(made.spec)) == made.spec
    gap = float((made(ROWS) - net(ROWS)).abs().max().detach())
    assert 0 < gap < (10 if kind == "ternary" else 0.5) * float(net(ROWS).abs().max().detach())
    with pytest.raises(Refused, match="there is no layer with a dense matrix"):
        edited(made, Quantize(kind=kind))


def test_in_a_net_a_matrix_that_only_another_reads_has_one_grid() -> None:
    made = edited(seeded(Net, Spec.parse(TEXT)), Quantize())
    assert isinstance(made, Net)
    block = made.stages[0].layers[0].block  # type: ignore[union-attr, index]
    assert isinstance(block.up.made, nn.Identity)
    assert isinstance(block.down.made, Grid)
    assert isinstance(block.down.given, Grid)


def test_grids_stand_where_integers_need_them() -> None:
    """Behind the second convolution of a block and behind its sum; before what reads from none."""
    found = places(resnet(), IMAGES)
    assert set(found.matrices) == {
        path for path, part in resnet().named_modules() if isinstance(part, nn.Conv2d | nn.Linear)
    }

    class Folded(BasicBlock):
        def __init__(self) -> None:
            super().__init__(8, 8)
            self.bn1, self.bn2 = nn.Identity(), nn.Identity()

    net = seeded(
        lambda: nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), Folded(), Folded(), nn.Flatten(), nn.Linear(512, 3))
    )
    found = places(net, IMAGES)
    assert found.matrices == ("0", "1.conv1", "1.conv2", "2.conv1", "2.conv2", "4")
    assert found.outputs == ("0", "1", "1.conv2", "2", "2.conv2")
    assert found.inputs == ("0", "1.conv2", "2.conv2")


def test_scales_come_from_what_flows() -> None:
    net = mlp()
    made = edited(net, Quantize(paths=("0", "2"), inputs=("0", "2")))
    found = calibrated(made, [Batch(ROWS), Batch(2 * ROWS)])
    assert set(found) == {f"{path}.given.{name}" for path in ("0", "2") for name in ("scale", "zero")}
    spread = 2 * float(ROWS.max() - ROWS.min())
    assert 0.3 * spread <= 255 * float(found["0.given.scale"]) <= 1.001 * spread
    assert int(found["2.given.zero"]) == 0  # behind a ReLU nothing is below zero
    assert all(value.dtype == made.state_dict()[name].dtype for name, value in found.items())


def test_what_is_written_to_later_on_is_looked_at_before() -> None:
    class Shrinking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.map = nn.Linear(5, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.map(x).mul_(1e-3)

    net, x = seeded(Shrinking), torch.rand(200, 5)
    net.map.weight.data.copy_(torch.eye(5))
    net.map.bias.data.zero_()
    made = edited(net, Quantize(paths=("map",), outputs=("map",)))
    assert 255 * float(calibrated(made, [Batch(x)])["map.made.scale"]) > 0.9


def test_int8_of_a_small_net_is_close_and_one_kernel_a_convolution(tmp_path: Path) -> None:
    net = resnet()
    both = proposals(net, IMAGES)
    made = done(net, both["static"]).eval()
    wanted = net(IMAGES).detach()
    assert float((made(IMAGES) - wanted).abs().max().detach()) < 0.1 * float(wanted.abs().max())
    found, operators = exported(made, IMAGES, tmp_path)
    assert operators["Conv"] == operators["FusedConv"] == operators["BatchNormalization"] == 0
    assert operators["QLinearConv"] == 13
    assert operators["QLinearAdd"] == 4  # all but the one with a padded shortcut, and the last, which no matrix reads
    gap = np.abs(found - made(IMAGES).detach().numpy()).max()
    assert gap < 0.02 * float(wanted.abs().max())
    stored = Counter(
        each.data_type for each in onnx.load(tmp_path / "net.onnx").graph.initializer if len(each.dims) > 1
    )
    assert stored == {onnx.TensorProto.INT8: 14}


def test_one_layer_in_onnxruntime_is_within_one_step(tmp_path: Path) -> None:
    """A single convolution on grids: what is computed in integers is what was computed on grids, to one step."""
    net = seeded(lambda: nn.Sequential(nn.Conv2d(3, 8, 3, padding=1)))
    x = torch.randn(2, 3, 9, 9)
    made = edited(net, Quantize(paths=("0",), inputs=("0",), outputs=("0",)))
    for name, value in calibrated(made, [Batch(x)]).items():
        made.state_dict()[name].copy_(value)
    found, operators = exported(made, x, tmp_path)
    assert operators["QLinearConv"] == 1
    step = float(made.state_dict()["0.made.scale"])
    assert np.abs(found - made(x).detach().numpy()).max() <= 1.01 * step


@pytest.mark.parametrize("rows", [(6,), (2, 3)])
def test_dynamic_matrices_are_products_of_integers(tmp_path: Path, rows: tuple[int, ...]) -> None:
    net, x = mlp(), torch.randn(*rows, 5)
    made = edited(net, Quantize(kind="dynamic", paths=("0", "2", "4")))
    found, operators = exported(made, x, tmp_path)
    fused = operators["DynamicQuantizeMatMul"] + operators["MatMulIntegerToFloat"] + operators["MatMulInteger"]
    assert fused == 3
    assert operators["MatMul"] == operators["Gemm"] == operators["ReduceMin"] == 0
    assert np.abs(found - made(x).detach().numpy()).max() < 0.02 * float(made(x).abs().max().detach())


def test_a_graph_without_grids_is_left_as_it_is(tmp_path: Path) -> None:
    shoal.export(mlp(), ROWS, tmp_path / "net.onnx", "onnx")
    model = onnx.load(tmp_path / "net.onnx")
    before = model.SerializeToString(deterministic=True)
    assert in_integers(model).SerializeToString(deterministic=True) == before


def test_pt2_and_folder_hold_a_quantised_stranger(tmp_path: Path) -> None:
    net = resnet()
    proposal = proposals(net, IMAGES)["static"]
    made = done(net, proposal).eval()
    shoal.save(made, tmp_path / "run", example=IMAGES)
    program = shoal.load(tmp_path / "run")
    assert torch.allclose(program(IMAGES), made(IMAGES), atol=1e-5)
    facts = json.loads((tmp_path / "run" / "shoal.json").read_text())
    assert "missing" not in facts["programs"]["model.onnx"]
    weights = sum(each.numel() for each in net.parameters())
    stored = onnx.load(tmp_path / "run" / "model.onnx").graph.initializer
    assert weights < sum(len(each.raw_data) for each in stored) < 1.5 * weights  # a byte each, and the scales


def test_ternary_is_proposed_span_by_span() -> None:
    net = resnet()
    found = list(Ternary().propose(scene(net, IMAGES)))
    assert [one.into for one in found] == [span.path for span in anatomy(net, IMAGES).spans]
    made = done(net, found[0])
    part = made.get_submodule(found[0].paths[0])
    assert all(len(conv.weight.unique()) == 3 for conv in part.modules() if isinstance(conv, nn.Conv2d))
    assert anatomy(made, IMAGES).spans[0].axis == 1  # it still is what it was


def test_what_cannot_be_quantised_is_proposed_nowhere_and_said(caplog: pytest.LogCaptureFixture) -> None:
    class Raw(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(5, 5))

        def forward(self, x: Tensor) -> Tensor:
            return x + x @ self.weight

    net = nn.Sequential(Raw()).eval()
    with caplog.at_level(logging.INFO, logger="shoal"):
        assert proposals(net, ROWS) == {}
    assert "no Linear or Conv module of torch" in caplog.text


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (Quantize(), "name the matrices"),
        (Quantize(paths=("1",)), "1: is a ReLU"),
        (Quantize(paths=("0", "0")), "0: stands in paths twice"),
        (Quantize(paths=("2",)), "2: its weight is quantised"),
    ],
)
def test_refused_in_one_line(edit: Quantize, said: str) -> None:
    net = edited(mlp(), Quantize(paths=("2",)))
    before = net(ROWS)
    with pytest.raises(Refused, match=said) as error:
        edit.apply(net)
    assert "\n" not in str(error.value)
    assert torch.equal(net(ROWS), before)


def test_a_convolution_is_not_quantised_dynamically() -> None:
    with pytest.raises(Refused, match="conv: a convolution has no fast dynamic kernel"):
        edited(TinyResNet(), Quantize(kind="dynamic", paths=("conv",)))
    with pytest.raises(Refused, match="no convolution"):
        edited(
            Net(Spec.parse("convolution[channels=1] | residual(conv) 2x8 | pool[outputs=3]")), Quantize(kind="dynamic")
        )


@pytest.mark.parametrize(
    "settings",
    [{"kind": "int4"}, {"bits": 9}, {"bits": 1}, {"measure": "max"}, {"kind": "ternary", "inputs": ("0",)}],
)
def test_settings_out_of_range_are_told_when_built(settings: dict[str, Any]) -> None:
    with pytest.raises(BadSetting):
        Quantize(**settings)
