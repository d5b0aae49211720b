"""Latency and memory: structure, restoration, and that a thing is not faster than itself. No timing is asserted."""

import copy
import gc
import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from shoal.core.errors import BadModel, BadSetting
from shoal.costing import alone, latency, peak_memory, per_span_ms, prepared, prepared_beside
from shoal.costing.timing import resident, runtimes
from shoal.costing.timing.bursts import PAIRS, ratio_of, timed
from shoal.costing.timing.latency import at_batch


def net(depth, width=64):
    return nn.Sequential(*[nn.Sequential(nn.Linear(width, width), nn.ReLU()) for _ in range(depth)])


X = torch.randn(8, 64)


def test_alone():
    found = latency(net(2), X, threads=1, seconds=0.02)
    assert 0 < found.p10 <= found.median <= found.p90
    assert found.n >= 1
    assert (found.runtime, found.threads, found.batch) == ("eager", 1, None)
    assert (found.against, found.ratio, found.separable) == (None, None, False)
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
    same = net(2)
    found = [latency(same, X, other, threads=1, seconds=0.02) for other in [same, copy.deepcopy(same)] * 6]
    assert sum(one.separable for one in found) <= 3  # at 2.5% each, 4 or more come once in 6000 times
    assert any("not separable" in str(one) for one in found)


def noisy(rng, times, rounds=3):
    """Bursts of two contestants, one `times` as long as the other, on a machine in a mood: by pair and round.

    Slow spells last for several rounds, each copy has a speed of its own, and lots decide which burst comes first.
    """
    found = [], []
    spells = np.exp(np.cumsum(rng.standard_t(2, 2 * PAIRS * rounds)) / 100)
    for pair in range(PAIRS):
        speeds = rng.lognormal(0, 0.05, 2)  # of the copy of the first, and of the second
        for own in found:
            own.append([])
        for k in range(2 * pair * rounds, 2 * (pair + 1) * rounds, 2):
            moods = spells[k : k + 2] if rng.random() < 0.5 else spells[k : k + 2][::-1]
            for own, mood, speed, size in zip(found, moods, speeds, (times, 1.0), strict=True):
                own[-1].append(size * mood * speed * rng.lognormal(0, 0.01, 4))
    return found


def test_the_interval_covers_whatever_the_machine_does():
    rng = np.random.default_rng(0)
    found = [ratio_of(*noisy(rng, 1.5)) for _ in range(300)]
    missed = sum(not one.low <= 1.5 <= one.high for one in found)
    assert missed <= 15  # at 2.5% each, 16 or more come once in 200 times
    assert all(one.low <= one.value <= one.high for one in found)
    assert np.median([math.log(one.high / one.low) for one in found]) < 0.2


def test_a_ratio_turns_round_and_scales():
    first, second = noisy(np.random.default_rng(1), 1.2)
    found, turned = ratio_of(first, second), ratio_of(second, first)
    assert (found.n, found.unit) == (PAIRS, "x")
    assert (turned.value, turned.low, turned.high) == pytest.approx((1 / found.value, 1 / found.high, 1 / found.low))
    twice = ratio_of([[2 * burst for burst in bursts] for bursts in first], second)
    assert (twice.value, twice.low, twice.high) == pytest.approx((2 * found.value, 2 * found.low, 2 * found.high))


def test_one_round_a_pair_is_the_sign_test():
    times = np.random.default_rng(2).lognormal(0, 0.1, PAIRS)
    found = ratio_of([[np.array([9.0, time])] for time in times], [[np.array([1.0, 7.0])]] * PAIRS)
    assert (found.low, found.value, found.high) == pytest.approx(tuple(np.sort(times)[[2, 6, 10]]))


def test_contestants_alternate_on_things_made_anew():
    calls, made = [], [0, 0]

    def maker(k):
        def make():
            made[k] += 1
            calls.append(("make", k))
            return lambda: calls.append(("run", k))

        return make

    bursts, repeats = timed([maker(0), maker(1)], 0.02, PAIRS)
    assert made == [PAIRS, PAIRS]
    assert [len(own) for own in bursts] == [PAIRS, PAIRS]
    assert [len(rounds) for rounds in bursts[0]] == [len(rounds) for rounds in bursts[1]]
    assert len({len(burst) for own in bursts for rounds in own for burst in rounds}) == 1  # else more would look faster
    assert min(repeats) > 1
    makes = [k for what, k in calls if what == "make"]
    assert {tuple(makes[i : i + 2]) for i in range(0, 2 * PAIRS, 2)} == {(0, 1), (1, 0)}  # by lot: both orders come


def test_the_module_itself_is_not_run_against_another():
    class Counts(nn.Module):
        calls = 0

        def forward(self, x):
            self.calls += 1
            return x

    one, other = Counts(), Counts()
    assert latency(one, X, other, threads=1, seconds=0.01).ratio is not None
    assert (one.calls, other.calls) == (0, 0)


def test_against_may_have_its_own_example():
    found = latency(net(1), X, (net(1, 32), {"input": torch.randn(2, 32)}), threads=1, seconds=0.02)
    assert found.against.n >= PAIRS
    assert found.ratio.n == PAIRS


@pytest.mark.parametrize("runtime", ["eager", "onnxruntime"])
def test_what_was_prepared_is_built_once_and_timed_again(runtime, monkeypatch):
    calls = []
    build = runtimes.RUNTIMES[runtime]
    monkeypatch.setitem(runtimes.RUNTIMES, runtime, lambda *given: calls.append(given[0]) or build(*given))
    old = prepared(net(8), X, runtime=runtime, threads=1)
    built = len(calls)
    for _ in range(2):
        found = latency(net(1), X, old, runtime=runtime, threads=1, seconds=0.02)
        assert found.against is not None
        assert found.ratio.low <= found.ratio.value <= found.ratio.high
    assert built == 1
    assert not any(made is calls[0] for made in calls[1:])
    with pytest.raises(BadSetting, match="prepared in"):
        latency(net(1), X, old, runtime="compile", threads=1, seconds=0.02)


def test_what_is_prepared_beside_others_is_each_by_itself():
    """Of very different lengths, and two that take the same tensor."""
    x = torch.randn(64, 512)
    small, large = nn.ReLU().eval(), nn.Sequential(*(nn.Linear(512, 512) for _ in range(8))).eval()
    built = prepared_beside([(small, x), (large, x), (nn.Sigmoid().eval(), X)], threads=1)
    times = [alone(one, 0.1).median for one in built]
    assert times[1] > 10 * max(times[0], times[2])
    itself = alone(prepared(large, x, runtime="onnxruntime", threads=1), 0.1).median
    assert 1 / 3 < times[1] / itself < 3


def test_what_one_of_several_cannot_be_exported_is_said():
    class Branches(nn.Module):
        def forward(self, x):
            return x + 1 if x.sum() > 0 else x

    with pytest.raises(BadModel, match="does not export"):
        prepared_beside([(nn.ReLU().eval(), X), (Branches().eval(), X)], threads=1)


def test_examples_are_brought_to_a_batch():
    class Sees(nn.Module):
        def forward(self, x, scale, count):
            seen.append((tuple(x.shape), tuple(scale.shape), count.ndim))
            return x * scale * count

    seen, example = [], {"scale": torch.ones(64), "x": X, "count": torch.tensor(2.0)}
    found = latency(Sees(), example, threads=1, seconds=0.01, batch=20)
    assert set(seen) == {((20, 64), (64,), 0)}
    assert found.batch == found.to_json()["batch"] == 20
    assert str(found).endswith("threads, batch 20")
    found = latency(net(1), X, (net(1), X[:3]), threads=1, seconds=0.01, batch=1)
    assert (found.batch, found.against.n > 0) == (1, True)


def test_rows_are_repeated_in_order_or_cut():
    rows, ids, other = torch.arange(6.0).reshape(3, 2), torch.tensor([7, 8, 9]), torch.ones(2, 3)
    found = at_batch((rows, {"ids": ids, "other": other}), 5)
    assert found[0].tolist() == [[0, 1], [2, 3], [4, 5], [0, 1], [2, 3]]
    assert found[1]["ids"].tolist() == [7, 8, 9, 7, 8]
    assert found[1]["other"] is other
    assert at_batch(rows, 2).tolist() == [[0, 1], [2, 3]]
    assert at_batch(ids, 1).tolist() == [7]
    assert rows.shape == (3, 2)


class Outer(nn.Module):
    """Makes one matrix of size x size floats on the way, and gives one number."""

    def __init__(self, size):
        super().__init__()
        self.size = size

    def forward(self, x):
        return torch.outer(x[: self.size], x[: self.size]).sum()


ROW = torch.randn(4096)
MB = 2**20


def test_peak_memory_is_that_of_the_intermediates():
    assert 60 * MB < peak_memory(Outer(4096), ROW) < 100 * MB
    assert peak_memory(nn.Identity(), ROW) < MB


def test_memory_that_was_freed_before_counts_again():
    keep = torch.zeros(2 * MB)  # 8 MB: from the heap, which is not given back by itself
    del keep
    assert all(7 * MB < peak_memory(Outer(1448), ROW) < 12 * MB for _ in range(3))


def test_peak_memory_leaves_no_mark():
    module = nn.Sequential(nn.BatchNorm1d(64), nn.Dropout())
    random, mean = torch.get_rng_state(), module[0].running_mean.clone()
    peak_memory(module, X)
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.equal(module[0].running_mean, mean)
    assert module.training
    assert gc.isenabled()


def test_peak_memory_says_where_it_cannot_be_read(monkeypatch, tmp_path):
    monkeypatch.setattr(resident, "_PROCESS", tmp_path / "none")
    with pytest.raises(BadSetting, match="clear_refs: No such file or directory; run where"):
        peak_memory(nn.Identity(), ROW)
    monkeypatch.setattr(resident.sys, "platform", "darwin")
    with pytest.raises(BadSetting, match="cannot be measured on darwin; measure on CUDA or"):
        peak_memory(nn.Identity(), ROW)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_peak_memory_on_cuda():
    assert 60 * MB < peak_memory(Outer(4096), ROW.cuda()) < 100 * MB


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


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # torch's own, of itself
@pytest.mark.parametrize("made", [lambda m: torch.jit.freeze(torch.jit.script(m)), lambda m: exported(m)])
def test_frozen_scripts_and_exported_programs(made):
    module = made(net(2).eval())
    found = latency(module, X, module, threads=1, seconds=0.02)
    assert found.ratio is not None


def exported(module):
    return torch.export.export(module, (X,)).module()


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
        (lambda: latency(net(1), X, batch=0), BadSetting, "batch=0 of an example with 8 rows"),
        (lambda: latency(net(1), torch.tensor(1.0), batch=2), BadSetting, "batch=2 of an example with 0 rows"),
        (lambda: latency(Rare(), X, net(1)), BadModel, "Rare cannot be copied: only one; measure it without against"),
        (lambda: peak_memory(net(1), X[:, :3]), BadModel, "does not run on its example"),
        (lambda: peak_memory(net(1).to("meta"), X.to("meta")), BadSetting, "cannot be measured on meta"),
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


class Rare(nn.Module):
    def __deepcopy__(self, memo):
        raise RuntimeError("only one")
