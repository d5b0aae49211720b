"""Does a net come out as faster than itself? Latency of A against A, many times over; and of more work against less.

    python bench/latency_aa.py                1 and 2 threads, batch 1; results/latency_aa.json; about eight minutes

The demand: at most 5% of trials tell A from A. Every other trial is against the module itself, the others against a
copy, whose weights lie elsewhere. Power is shown beside it, with no demand: how often 22 layers are told from 20, with
one thread. The cases take turns, trial by trial, so that what else the machine does hits all of them alike.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import torch
from _timing import show, write
from torch import nn

from shoal.core.spec import Spec
from shoal.costing import Latency, latency
from shoal.evidence import proportion
from shoal.net import Net

DEMAND = 0.05
NETS = {  # what is timed -> the net with {} layers, the shape of its input
    "mlp x64": ("vector[features=20] | residual(mlp) {}x64 | pool[outputs=10]", (20,)),
    "conv x16, 16x16": ("convolution[channels=3] | residual(conv) {}x16 | pool[outputs=10]", (16, 16, 3)),
}
LAYERS, FEWER, MORE = 4, 20, 22

Trial = Callable[[str, tuple[int, ...], int, float], Iterator[tuple[str, Latency]]]


def net_of(text: str, layers: int) -> nn.Module:
    """The net with that many layers, the same every time."""
    torch.manual_seed(0)
    return Net(Spec.parse(text.format(layers))).eval()


def against_itself(text: str, shape: tuple[int, ...], threads: int, seconds: float) -> Iterator[tuple[str, Latency]]:
    """Trials without end: what it was against, and what was found."""
    x = torch.randn(1, *shape)
    while True:
        net = net_of(text, LAYERS)
        yield "itself", latency(net, x, net, threads=threads, seconds=seconds)
        yield "copy", latency(net, x, copy.deepcopy(net), threads=threads, seconds=seconds)


def against_fewer(text: str, shape: tuple[int, ...], threads: int, seconds: float) -> Iterator[tuple[str, Latency]]:
    """Trials without end of more layers against fewer."""
    x = torch.randn(1, *shape)
    while True:
        found = latency(net_of(text, MORE), x, net_of(text, FEWER), threads=threads, seconds=seconds)
        yield f"{FEWER} layers", found


def summary(trials: list[tuple[str, Latency]]) -> dict[str, Any]:
    """One row of a table: how often the two were told apart, how wide the intervals were, what the ratio was."""
    told = proportion([float(found.separable) for _, found in trials])
    ratios = [found.ratio for _, found in trials if found.ratio is not None]
    return {
        "against": " or ".join(dict.fromkeys(name for name, _ in trials)),
        "trials": len(trials),
        "told apart": sum(found.separable for _, found in trials),
        "of copies": sum(found.separable for name, found in trials if name == "copy"),
        "share": told,
        "ratio": median(ratio.value for ratio in ratios),
        "width": median(ratio.high - ratio.low for ratio in ratios),
        "ms": median(found.median for _, found in trials),
    }


def measured(trial: Trial, cells: list[tuple[str, int]], count: int, seconds: float) -> list[dict[str, Any]]:
    """A row a cell, (net, threads), of that many trials each."""
    sources = [trial(*NETS[name], threads, seconds) for name, threads in cells]
    done: list[list[tuple[str, Latency]]] = [[] for _ in cells]
    for _ in range(count):
        for own, source in zip(done, sources, strict=True):
            own.append(next(source))
        print(".", end="", flush=True)
    return [
        {"net": name, "threads": threads, "seconds": seconds, **summary(own)}
        for (name, threads), own in zip(cells, done, strict=True)
    ]


def main() -> None:
    """Measure, print, write; say whether the demand is met."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    reader.add_argument("--trials", type=int, default=200, help="of a net against itself, over all cases")
    reader.add_argument("--seconds", type=float, default=0.15, help="of each contestant in such a trial")
    reader.add_argument("--power-trials", type=int, default=12, help=f"of {MORE} layers against {FEWER}, by case")
    given = reader.parse_args()
    cells = [(name, threads) for name in NETS for threads in given.threads]
    rows = measured(against_itself, cells, given.trials // len(cells), given.seconds)
    rows += measured(against_fewer, [(name, 1) for name in NETS], given.power_trials, 1.0)
    print()
    show(
        "latency of a net against itself, and of 22 layers against 20",
        [{**row, "share": str(row["share"])} for row in rows],
    )
    own = [row for row in rows if "copy" in row["against"]]
    apart, trials = (sum(row[key] for row in own) for key in ("told apart", "trials"))
    whole = proportion([1.0] * apart + [0.0] * (trials - apart))
    verdict = "ok" if whole.value <= DEMAND else "MISSED"
    print(f"A told from A in {whole}; at most {DEMAND:.0%} is asked for: {verdict}")
    rows = [{**row, "share": row["share"].to_json()} for row in rows]
    print(f"written: {write('latency_aa', rows, demand=DEMAND, told=whole.to_json(), verdict=verdict).name}")


if __name__ == "__main__":
    main()
