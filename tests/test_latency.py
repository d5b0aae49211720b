"""Latency: structure, restoration, and that a thing is not faster than itself. No timing is asserted tightly."""

import json

import pytest
import torch
from torch import nn

from shoal.core.errors import BadModel, BadSetting
from shoal.costing import latency, per_span_ms


def net(depth, width=64):
    return nn.Sequential(*[nn.Sequential(nn.Linear(width, width), nn.ReLU()) for _ in range(depth)])


X = torch.randn(8, 64)


def test_alone():
    found = latency(net(2), X, threads=1, seconds=0.02)
    assert 0 < found.p10 <= found.median <= found.p90
    assert found.n >= 12
    assert (found.runtime, found.threads, found.against, found.ratio, found.separable) == (
        "eager",
        1,
        None,
        None,
        False,
    )
    assert json.loads(json.dumps(found.to_json()))["median"] == found.median
    assert "ms" in str(found)
    assert "1 threads" in str(found)


def test_short_calls_are_timed_several_at_once():
    assert latency(nn.Identity(), X, threads=1, seconds=0.02).repeats > 1


def test_eight_layers_take_longer_than_one():
    found = latency(net(8), X, net(1), threads=1, seconds=0.1)
    assert found.separable
    assert found.ratio.low > 1
    assert found.ratio.unit == "x"
    assert found.to_json()["separable"]
    assert found.against.median < found.median
    assert "separable" not in str(found)


def test_a_net_is_not_faster_than_itself():
    same = net(4)
    found = [latency(same, X, same, threads=1, seconds=0.03) for _ in range(20)]
    assert sum(one.separable for one in found) <= 5  # at 5% each, 6 or more come once in 3000 times
    assert any("not separable" in str(one) for one in found)


def test_against_may_have_its_own_example():
    found = latency(net(1), X, (net(1, 32), {"input": torch.randn(2, 32)}), threads=1, seconds=0.02)
    assert found.against.n >= 12
    assert found.ratio.n >= 12


def test_everything_is_put_back():
    module = net(2)
    module[1].eval()
    threads, random = torch.get_num_threads(), torch.get_rng_state()
    latency(module, X, threads=1, seconds=0.01)
    per_span_ms(module, X, ["0"], threads=1, seconds=0.01)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), random)
    assert module.training
    assert module[0].training
    assert not module[1].training
    assert not module[0]._forward_hooks
    assert not module[0]._forward_pre_hooks


def test_onnxruntime():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = net(2)

        def forward(self, x, scale):
            return self.body(x) * scale

    example = {"scale": torch.ones(64), "x": X}
    found = latency(Named(), example, runtime="onnxruntime", threads=1, seconds=0.02)
    assert (found.runtime, found.threads) == ("onnxruntime", 1)


def test_compile():
    pytest.importorskip("torch._dynamo")
    found = latency(nn.Linear(64, 64), X, runtime="compile", threads=1, seconds=0.02)
    assert found.runtime == "compile"


def test_spans_add_up_to_less_than_the_whole():
    shared = net(3)
    found = per_span_ms(nn.Sequential(shared, nn.ReLU(), shared), X, ["", "0", "0.1", "1"], threads=1, seconds=0.1)
    assert found[""] > found["0"] > found["0.1"] > 0
    assert found[""] > found["0"] + found["1"]


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: latency(net(1), X, runtime="tensorrt"), BadSetting, "eager, compile, onnxruntime"),
        (lambda: latency(net(1), X, seconds=0), BadSetting, "seconds=0"),
        (lambda: latency(net(1), X, threads=0), BadSetting, "threads=0"),
        (lambda: latency(net(1), X[:, :3]), BadModel, "Sequential does not run in eager: mat1"),
        (lambda: per_span_ms(net(2), X, ["0.7"]), BadModel, "no submodule '0.7': did you mean"),
        (lambda: per_span_ms(net(2), X[:, :3], ["0"]), BadModel, "does not run on its example"),
        (lambda: per_span_ms(Unused(), X, ["spare"], seconds=0.01), BadModel, "'spare' is never called"),
        (lambda: latency(Unknown(), X, runtime="onnxruntime"), BadModel, "Unknown does not export to ONNX"),
    ],
)
def test_failures_are_one_line(call, error, says):
    with pytest.raises(error, match=says) as caught:
        call()
    assert "\n" not in str(caught.value)


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.spare = nn.Linear(2, 2)

    def forward(self, x):
        return x


class Unknown(nn.Module):
    def forward(self, x):
        return x if x.sum().item() > 0 else -x
