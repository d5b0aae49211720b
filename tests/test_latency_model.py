"""The latency model: learned from operations whose time is known, it tells that of whole nets."""

from __future__ import annotations

import json
import math
import random

import numpy as np
import pytest
import torch
from torch import nn

import shoal
from shoal.core.errors import BadData, BadSetting
from shoal.core.spec import Spec
from shoal.costing import cost
from shoal.costing.predicting import probing
from shoal.costing.predicting.draws import DRAWS, nets
from shoal.costing.predicting.kernels import FAMILIES, Kernels, Sample, family_of, kernels_of, sizes_of
from shoal.costing.predicting.latency_model import columns, fit
from shoal.costing.predicting.prediction import predict_latency
from shoal.costing.predicting.probing import Probed, machine_name, probe, probe_file
from shoal.costing.timing.runtimes import runner
from shoal.net import Net, empty

CONV = "convolution[channels=3] | residual(conv) 3x{} | pool[outputs=10]"
ATTENTION = "convolution[channels=3] | residual(transformer) 2x16 | pool[outputs=10]"
X = torch.zeros(1, 6, 6, 3)


def law(sizes):
    """A machine whose times are known: 1 us a call, 10 multiply-adds and 100 bytes a nanosecond."""
    return 1e-3 + sizes[0] / 1e7 + sizes[1] / 1e8


def operations(family, count, seed):
    """Operations as the probe draws them."""
    stream = DRAWS[family](random.Random(seed))
    for _ in range(count):
        with torch.device("meta"):
            function, given, _ = next(stream)
        [operation] = kernels_of(cost(Call(function), given))
        yield operation


def samples(convolutions=50, others=40, slower=lambda sizes: 1.0):
    """Operations with the times of that machine."""
    found = []
    for family in FAMILIES:
        for operation in operations(family, convolutions if family == "convolution" else others, 0):
            sizes = sizes_of(operation, 0)
            found.append(Sample(family_of(operation), operation.name, sizes, law(sizes) * slower(sizes)))
    return tuple(found)


class Call(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *args):
        return self.function(*args)


@pytest.fixture(scope="module")
def timed():
    torch.manual_seed(0)
    return samples()


@pytest.fixture(scope="module")
def kernels(timed):
    return Kernels(timed)


@pytest.fixture(scope="module")
def found_once(timed, kernels):
    """A probe of that machine."""
    chance, whole, ms = random.Random(1), [], []
    stream = nets(chance)
    for _ in range(12):
        spec, shape = next(stream)
        whole.append(cost(empty(spec), torch.empty(shape, device="meta")))
        ms.append(2 * float(columns(whole[-1], kernels)[:4].sum()) + 0.005 * whole[-1].module_calls)
    weights, errors = fit(whole, ms, kernels)
    threads = torch.get_num_threads()
    return Probed(machine_name(), torch.__version__, threads, "eager", 1.0, 0.1, timed, weights, errors)


@pytest.fixture
def probed(found_once, tmp_path, monkeypatch):
    """The probe in a cache of its own."""
    monkeypatch.setenv("SHOAL_CACHE", str(tmp_path))
    found_once.write(probe_file("eager", found_once.threads))
    return found_once


def test_every_family_is_drawn_and_known(timed):
    assert {sample.family for sample in timed} == set(FAMILIES)
    assert all(math.isfinite(x) for sample in timed for x in sample.sizes)


def test_times_of_operations_that_were_not_timed_are_near(kernels):
    for family in FAMILIES[:-1]:
        unseen = list(operations(family, 20, 5))
        errors = [abs(float(kernels.times([one], 0)[0]) / law(sizes_of(one, 0)) - 1) for one in unseen]
        assert np.median(errors) < 0.15, family


def test_a_law_of_widths_is_found():
    """On a machine that is twice as slow at widths that 8 does not divide, the model says so."""
    known = Kernels(samples(150, 10, lambda sizes: 1.0 if len(sizes) < 6 or sizes[5] % 8 == 0 else 2.0))
    narrow, wide = (cost(nn.Conv2d(32, c, 3), torch.zeros(1, 32, 16, 16)).operations for c in (44, 48))
    assert known.times(narrow, 0)[0] > 1.3 * known.times(wide, 0)[0]


@pytest.mark.parametrize("text", [CONV.format(8), ATTENTION])
def test_meta_and_real_nets_have_the_same_kernels(text):
    spec = Spec.parse(text)
    real, meta = cost(Net(spec).eval(), X), cost(empty(spec), X.to("meta"))
    for one, other in zip(kernels_of(real), kernels_of(meta), strict=True):
        assert one.name == other.name
        assert sizes_of(one, 0) == pytest.approx(sizes_of(other, 0), rel=0.05)  # some norms give more out on meta
    assert sum(one.macs for one in kernels_of(meta)) == real.macs


def test_what_kernels_weigh_within_nets_is_found(probed):
    """The nets took twice their kernels and 5 us a call of a module."""
    assert np.allclose(np.exp(probed.errors), 1, atol=0.05)
    spec = Spec.parse(CONV.format(24))
    found = cost(empty(spec), X.to("meta"))
    truth = 2 * float(columns(found, Kernels(probed.samples))[:4].sum()) + 0.005 * found.module_calls
    assert predict_latency(spec, X).ms == pytest.approx(truth, rel=0.1)


def test_spec_text_and_module_are_told_the_same(probed):
    torch.manual_seed(0)
    text = CONV.format(8)
    net = Net(Spec.parse(text)).eval()
    found = [predict_latency(target, X) for target in (text, Spec.parse(text), net)]
    assert found[0].ms == found[1].ms == pytest.approx(found[2].ms, rel=1e-9)
    assert found[0].low <= found[0].ms <= found[0].high
    assert "predicted" in str(found[0])


def test_a_stranger_with_operations_that_were_never_timed_is_not_refused(probed):
    found = predict_latency(nn.Sequential(nn.LSTM(4, 4)), torch.zeros(3, 2, 4))
    assert found.ms > 0
    assert found.faster is None


def test_a_wider_net_that_is_faster_is_proposed(tmp_path, monkeypatch):
    monkeypatch.setenv("SHOAL_CACHE", str(tmp_path))
    slow = samples(150, 10, lambda sizes: 1.0 if len(sizes) < 6 or sizes[5] % 8 == 0 else 3.0)
    threads = torch.get_num_threads()
    known = Probed(machine_name(), torch.__version__, threads, "eager", 1.0, 0.1, slow, (1.0,) * 4 + (0.0, 0.0), (0.0,))
    known.write(probe_file("eager", threads))
    found = predict_latency(CONV.format(44), X)
    assert found.faster is not None
    assert found.faster[0].stages[0].dim == 48
    assert found.faster[1] < found.ms
    assert "wider and faster" in str(found)
    assert predict_latency(CONV.format(48), X).faster is None


def test_a_probe_of_this_machine_predicts(tmp_path, monkeypatch):
    monkeypatch.setenv("SHOAL_CACHE", str(tmp_path))
    lines = []
    found = probe(threads=1, seconds=2.0, progress=lines.append)
    assert Probed.read(probe_file("eager", 1)) == found
    assert len(lines) == 5
    assert found.unit_ms > 0
    assert all(sample.ms > 0 for sample in found.samples)
    before = torch.get_num_threads()
    small, large = (predict_latency(CONV.format(width), X, threads=1).ms for width in (8, 256))
    assert 0 < small < large
    assert torch.get_num_threads() == before


def test_other_runtimes_take_the_operations_of_the_eager_probe(probed, monkeypatch):
    threads = torch.get_num_threads()
    monkeypatch.setattr(probing, "runner", lambda net, x, runtime, threads: runner(net, x, "eager", threads))
    lines = []
    found = probe("onnxruntime", threads=threads, seconds=0.5, progress=lines.append)
    assert found.samples == probed.samples
    assert lines[0].startswith(f"{len(probed.samples)} operations were timed before")
    assert Probed.read(probe_file("onnxruntime", threads)) == found


def test_what_was_written_is_read(probed):
    path = probe_file("eager", torch.get_num_threads())
    assert Probed.read(path) == probed
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 0}))
    with pytest.raises(BadData, match="another version"):
        Probed.read(path)
    path.write_text(path.read_text()[:100])
    with pytest.raises(BadData, match="run shoal probe again"):
        Probed.read(path)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: predict_latency(CONV.format(8), X, runtime="tensorrt"), BadSetting, "eager, compile, onnxruntime"),
        (
            lambda: predict_latency(CONV.format(8), X, threads=7),
            BadSetting,
            "run: shoal probe --runtime eager --threads 7",
        ),
        (lambda: probe(seconds=0), BadSetting, "at most 120"),
        (lambda: probe(seconds=121), BadSetting, "at most 120"),
        (lambda: probe("tpu"), BadSetting, "'tpu'"),
        (lambda: Kernels([]), BadData, "run shoal probe again, longer"),
    ],
)
def test_failures_are_one_line(call, error, says, tmp_path, monkeypatch):
    monkeypatch.setenv("SHOAL_CACHE", str(tmp_path))
    with pytest.raises(error, match=says) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_the_verbs_are_public():
    assert shoal.predict_latency is predict_latency
    assert shoal.probe is probe
