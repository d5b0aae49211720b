"""What the latency model of this machine is worth: predicted against measured on 60 nets that it never saw.

    shoal probe                               once, at most two minutes
    python bench/latency_model.py             about four minutes; results/latency_model.json

Every net is measured by ``shoal.latency`` and, beside a reference that runs around it, as the probe timed its nets; the
second leaves out what neighbours on a shared machine do to the clock. Multiply-adds, weights and depth stand beside the
model as predictors of the order.
"""

from __future__ import annotations

import argparse
import random
from typing import Any

import numpy as np
import torch
from _timing import show, write
from scipy.stats import spearmanr

from shoal.core.spec import Spec
from shoal.costing import cost, latency
from shoal.costing.predicting.prediction import predict_latency
from shoal.costing.predicting.probing import Clock, Probed, probe_file
from shoal.costing.timing.runtimes import runner
from shoal.net import Net

MACS = 2e9  # of a run; above, a net would take seconds
HELD_OUT = 60


def held_out(seed: int) -> list[tuple[str, tuple[int, ...]]]:
    """Specs and input shapes: three kinds, widths 8 to 256, depths 1 to 32, batches 1 and 64."""
    chance, found = random.Random(f"held out {seed}"), []
    while len(found) < HELD_OUT:
        kind = ("conv", "mlp", "attention")[len(found) % 3]
        width, depth = round(2 ** chance.uniform(3, 8)), round(2 ** chance.uniform(0, 5))
        batch = chance.choice((1, 64))
        if kind == "mlp":
            text, shape, work = f"vector[features=32] | residual(mlp) {depth}x{width} | pool[outputs=10]", (32,), 8.0
        else:
            width, side = (width, 12) if kind == "conv" else (-(-width // 4) * 4, 8)
            text = f"convolution[channels=3] | residual({kind}) {depth}x{width} | pool[outputs=10]"
            shape, work = (side, side, 3), 18.0 * side**2 if kind == "conv" else 4.0 * side**2
        if work * depth * width**2 * batch < MACS:
            found.append((text, (batch, *shape)))
    return found


def main() -> None:
    """Measure, print, write."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--threads", type=int, default=torch.get_num_threads())
    reader.add_argument("--runtime", default="eager")
    reader.add_argument("--seconds", type=float, default=1.0, help="for one net")
    reader.add_argument("--seed", type=int, default=0)
    given = reader.parse_args()
    torch.set_num_threads(given.threads)
    probed = Probed.read(probe_file(given.runtime, given.threads))
    clock, rows = Clock(), []
    for text, shape in held_out(given.seed):
        torch.manual_seed(0)
        net, x = Net(Spec.parse(text)).eval(), torch.randn(shape)
        predicted, counted = predict_latency(net.spec, x, runtime=given.runtime), cost(net, x)
        with torch.inference_mode():
            calm = clock.ratio([runner(net, x, given.runtime, given.threads)], rounds=15, budget=0.02) * probed.unit_ms
        measured = latency(net, x, runtime=given.runtime, seconds=given.seconds)
        counts = {"macs": counted.macs, "params": counted.params, "depth": counted.depth}
        times = {"predicted ms": predicted.ms, "beside ms": calm, "measured ms": measured.median}
        rows.append({"net": text.split(" | ")[1], "batch": shape[0], **times, **counts})
    show(f"{len(rows)} nets, {given.runtime}, {given.threads} threads", rows)
    found = [_worth(rows, name) for name in ("predicted ms", "macs", "params", "depth")]
    show("against what was measured", found)
    about = {"threads": given.threads, "runtime": given.runtime, "probe seconds": probed.seconds, "summary": found}
    name = "latency_model" if given.runtime == "eager" else f"latency_model_{given.runtime}"
    print(write(name, rows, **about))


def _worth(rows: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """Rank correlation with both measurements; the median and 90th percentile of the error where it is a time."""
    values = np.array([row[name] for row in rows])
    found: dict[str, Any] = {"predictor": name}
    for measured in ("measured ms", "beside ms"):
        truth = np.array([row[measured] for row in rows])
        error = np.abs(values / truth - 1)
        found[f"rank with {measured}"] = float(spearmanr(values, truth).statistic)
        found[f"error of {measured}"] = (
            f"{np.median(error):.1%}, {np.quantile(error, 0.9):.1%}" if name.endswith(" ms") else "-"
        )
    return found


if __name__ == "__main__":
    main()
