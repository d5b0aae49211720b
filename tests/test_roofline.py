"""The roof and what stands under it: exact on machines that are made up; of this one only that it is sane."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
import torch
from torch import nn

from shoal.core.errors import BadModel, BadSetting
from shoal.costing.timing import own_times
from shoal.costing.timing.own_times import own_ms
from shoal.costing.timing.roofline import Bound, Roof, bound_of, measure_roof

ROOF = Roof(macs_per_s=1e9, bytes_per_s=1e6, threads=1, call_s=1e-4, caches=((100, 1e8), (1000, 1e7), (10_000, 1e6)))


def test_the_roof_is_the_longer_of_two_times():
    plain = Roof(1e9, 1e8, 1)
    assert plain.bound(10**6, 10**4) == 1e-3
    assert plain.bound(10**4, 10**6) == 1e-2
    assert plain.bound(0, 0) == 0


@pytest.mark.parametrize(
    ("moved", "rate"), [(1, 1e8), (100, 1e8), (999, 1e8), (1000, 1e7), (9999, 1e7), (10_000, 1e6), (10**9, 1e6)]
)
def test_what_is_small_is_moved_as_fast_as_the_cache_that_may_hold_it(moved, rate):
    assert ROOF.memory(moved) == moved / rate


@pytest.mark.parametrize(
    ("operations", "seconds", "by"),
    [
        ([(10**6, 10)], 1e-3, "compute"),
        ([(10, 10**6)], 1.0, "memory"),
        ([(10, 10)], 1e-7, "overhead"),
        ([(10**5, 10)] * 9, 9e-4, "overhead"),
        ([(10**6, 10), (0, 10**4), (0, 10)], 1e-3 + 1e-2 + 1e-7, "memory"),
        ([], 0.0, "overhead"),
    ],
)
def test_a_layer_is_bound_by_what_takes_the_most_time(operations, seconds, by):
    found = bound_of(ROOF, operations)
    assert found == Bound(pytest.approx(seconds, rel=1e-12), by)


def test_this_machine():
    threads = torch.get_num_threads()
    found = measure_roof(1, seconds=0.05)
    assert torch.get_num_threads() == threads
    assert found.threads == 1
    assert found.macs_per_s > 1e8
    assert found.bytes_per_s > 1e8
    assert 0 < found.call_s < 0.1
    assert all(small < large and fast >= slow for (small, fast), (large, slow) in pairwise(found.caches))
    assert found.caches[-1][1] == found.bytes_per_s
    assert json.loads(json.dumps(found.to_json()))["bytes_per_s"] == found.bytes_per_s


@pytest.mark.parametrize(("words", "says"), [({"seconds": 0}, "seconds=0"), ({"threads": 0}, "threads=0")])
def test_settings_out_of_range(words, says):
    with pytest.raises(BadSetting, match=says):
        measure_roof(**words)


class Clock:
    """Time that passes only when somebody works."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


class Works(nn.Module):
    """Takes so many nanoseconds, then calls what it is handed."""

    def __init__(self, clock, takes):
        super().__init__()
        self.clock, self.takes = clock, takes

    def forward(self, x, others=()):
        self.clock.now += self.takes
        for other in others:
            x = other(x)
        return x


class Handed(nn.Module):
    """Calls its layers through another submodule, and one of them a second time by itself."""

    def __init__(self, clock):
        super().__init__()
        self.clock = clock
        self.wiring, self.layers = Works(clock, 10), nn.ModuleList([Works(clock, 100), Works(clock, 1000)])
        self.layers[1].inner = Works(clock, 5)

    def forward(self, x):
        self.clock.now += 1
        return self.layers[0](self.wiring(x, [*self.layers, self.layers[1].inner]))


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(own_times, "perf_counter_ns", made)
    return made


def test_each_is_charged_for_itself_only(clock):
    net = Handed(clock)
    paths = ["", "wiring", "layers.0", "layers.1", "layers.1.inner"]
    found = own_ms(net, torch.zeros(1), paths, seconds=1e-9)
    assert found == {
        "": 1e-6,
        "wiring": 1e-5,
        "layers.0": pytest.approx(2e-4),
        "layers.1": 1e-3,
        "layers.1.inner": 5e-6,
    }
    assert own_ms(net, torch.zeros(1), ["wiring"], seconds=1e-9) == {"wiring": pytest.approx(1.115e-3)}
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in net.modules())


def test_what_is_not_called_takes_no_time(clock):
    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.spare = nn.Linear(2, 2)

        def forward(self, x):
            clock.now += 1
            return x

    assert own_ms(Idle(), torch.zeros(1), ["spare"], seconds=1e-9) == {"spare": 0.0}


def test_failures_of_own_times_are_one_line():
    net = nn.Sequential(nn.Linear(3, 4))
    with pytest.raises(BadModel, match="has no submodule '7'"):
        own_ms(net, torch.zeros(1, 3), ["7"])
    with pytest.raises(BadModel, match="does not run on its example") as caught:
        own_ms(net, torch.zeros(1, 5), ["0"])
    assert "\n" not in str(caught.value)
    assert not net[0]._forward_hooks
