"""Bursts: contestants timed in turns and on fresh copies, and the interval of their ratio that follows from the lots.

    pair 1: A A A A | B B B B    B B B B | A A A A    ...    pair 2, new copies: B B B B | A A A A    ...

Within a pair of copies the contestants alternate in short bursts. Lots decide who is copied first, and who goes first
in a round. Copies are made anew since a net's speed hangs on where its weights happen to lie: copies of one net differ
by 0.2% (4 linears of width 64) to 1% (8 of width 512) for as long as they live, which no longer timing takes away.

A round gives one ratio, of the fastest call in each burst: what else runs on a machine only ever adds. If A takes t
times as long as B, lots alone decide which round ratios lie above t and which below, and to swap the names in a whole
pair would have been as likely. So t is believed unless the balance, rounds above t less rounds below, is as large in at
most 2.5% of all ways to swap names in thirteen pairs; the interval holds every t that is believed. This asks nothing of
the machine's noise but that it does not know the names: spells, drift and outliers may be as they like. An interval at
95% might leave out the truth in 5%; half of that is aimed for, so that a count of false alarms stays below.
"""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Sequence
from itertools import product
from statistics import median
from time import perf_counter_ns

import numpy as np
from numpy.typing import NDArray

from shoal.costing.timing.runtimes import Run
from shoal.evidence import Evidence

Bursts = list[NDArray[np.float64]]  # ns a call, one array a burst

PAIRS = 13  # of copies, where two are compared
_ROUNDS = 208  # at most, over all pairs: slow spells last some 20 ms, bursts less
_SHORTEST = 50_000  # ns: calls below this are timed several at once
_CHANCE = 0.025
_SWAPS = np.array(list(product((1.0, -1.0), repeat=PAIRS - 1)))  # of names, in all pairs but the first


def timed(makers: Sequence[Callable[[], Run]], seconds: float, pairs: int) -> tuple[list[list[Bursts]], list[int]]:
    """The bursts, by contestant and pair, and how many calls one sample holds, by contestant.

    Each maker is asked `pairs` times for something to time, `seconds` in all; warming up takes up to half of that
    again. In every pair there is one burst of each at the least, however long it takes.
    """
    lots, order = random.Random(), list(range(len(makers)))
    bursts: list[list[Bursts]] = [[] for _ in makers]
    repeats: list[int] = []
    for _ in range(pairs):
        lots.shuffle(order)
        runs = {k: makers[k]() for k in order}
        if not repeats:
            spent = [_warm(runs[k], seconds / 2) for k in range(len(makers))]
            repeats = [max(1, round(_SHORTEST / one)) for one in spent]
            length = _length(max(one * count for one, count in zip(spent, repeats, strict=True)) / 1e9, seconds, pairs)
        for own in bursts:
            own.append([])
        end = perf_counter_ns() + seconds / pairs * len(makers) * 1e9
        for done in range(_ROUNDS // pairs):
            if done and perf_counter_ns() > end:
                break
            lots.shuffle(order)
            for k in order:
                bursts[k][-1].append(np.array([_time(runs[k], repeats[k]) for _ in range(length)]))
        runs.clear()
        gc.collect(0)  # copies that a cycle holds would stay: the collector is off
    return bursts, repeats


def ratio_of(first: Sequence[Bursts], second: Sequence[Bursts]) -> Evidence:
    """How many times as long the first takes as the second: the median over rounds; n counts pairs."""
    pairs = [
        np.log([a.min() / b.min() for a, b in zip(*pair, strict=True)]) for pair in zip(first, second, strict=True)
    ]
    every = np.sort(np.concatenate(pairs))
    tried = (every[1:] + every[:-1]) / 2
    balance = np.array([np.sign(own[:, None] - tried).sum(axis=0) for own in pairs])
    swapped = balance[0] + _SWAPS @ balance[1:]
    believed = np.flatnonzero((abs(swapped) >= abs(balance.sum(axis=0))).mean(axis=0) > _CHANCE)
    value, low, high = np.exp([np.median(every), every[believed[0]], every[believed[-1] + 1]]).tolist()
    return Evidence(value, low, high, len(pairs), unit="x")


def _length(slowest: float, seconds: float, pairs: int) -> int:
    """Samples a burst, as many for all: the fastest of more would be faster. Two at the least where there is time for
    it, since the first may find the caches cold.
    """
    return max(1, min(2, int(seconds / pairs / slowest)), round(seconds / _ROUNDS / slowest))


def _warm(run: Run, seconds: float) -> float:
    """Run until five calls take no less than the five before, within 5%, or until the time is up; ns a call."""
    end, before = perf_counter_ns() + seconds * 1e9, float("inf")
    while True:
        now = median(_time(run, 1) for _ in range(5))
        if now > 0.95 * before or perf_counter_ns() > end:
            return max(now, 1.0)
        before = now


def _time(run: Run, repeats: int) -> float:
    start = perf_counter_ns()
    for _ in range(repeats):
        run()
    return (perf_counter_ns() - start) / repeats
