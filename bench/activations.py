"""Activations: what each of them makes of the same net, in accuracy and in time.

    python bench/activations.py                                   digits, 3 seeds, 4 epochs; results/activations.json
    python bench/activations.py --data fashion_mnist --epochs 2 --acts relu gelu silu

The net is `residual(mlp[act=...])`, the recipe the default for the data; accuracy is on the test part, with Student's
interval over the seeds. The time is that of a step of training against the same net with relu, interleaved.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from _timing import show, side_by_side, write
from torch.nn import functional as F

from shoal.building import build
from shoal.core.activations import ACTIVATIONS
from shoal.core.errors import Diverged
from shoal.data import Dataset, open_data
from shoal.evidence import mean
from shoal.training import default_recipe, train

NET, AGAINST = "residual(mlp[act={}]) 4x64", "relu"


def text(act: str, data: Dataset) -> str:
    """The net; an image is read whole, as one place."""
    places, channels = data.signature.places, data.signature.channels
    if not places:
        return NET.format(act)
    size = ",".join(str(side) for side in places)
    return f"patches[channels={channels},size=[{size}],patch={places[0]}] | {NET.format(act)}"


def accuracy(act: str, data: Dataset, epochs: float, seeds: int) -> dict[str, Any]:
    """Mean accuracy on the test part with its interval; or where training left the finite numbers."""
    recipe = replace(default_recipe(data), epochs=epochs)
    try:
        runs = [train(text(act, data), data, recipe, seed=seed) for seed in range(seeds)]
    except Diverged as error:
        return {"test": None, "said": str(error)}
    return {"test": mean([run.test.quality.value for run in runs], unit="%").to_json()}


def stepper(act: str, data: Dataset) -> Callable[[], None]:
    """Forward and backward on a batch."""
    net = build(text(act, data), like=data).train()
    x, y = data.train.batch(torch.arange(128))

    def step() -> None:
        net.zero_grad()
        F.cross_entropy(net(x), y).backward()

    return step


def main() -> None:
    """Measure, print, write."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--data", default="digits")
    reader.add_argument("--epochs", type=float, default=4)
    reader.add_argument("--seeds", type=int, default=3, help="at least 2")
    reader.add_argument("--acts", nargs="+", default=list(ACTIVATIONS), choices=list(ACTIVATIONS), metavar="NAME")
    reader.add_argument("--seconds", type=float, default=1.0, help="for the timing of one")
    given = reader.parse_args()
    torch.set_num_threads(1)
    data = open_data(given.data)
    rows: list[dict[str, Any]] = []
    for act in given.acts:
        found = accuracy(act, data, given.epochs, given.seeds)
        pair = side_by_side(stepper(AGAINST, data), stepper(act, data), threads=1, seconds=given.seconds)
        rows.append({"act": act, **found, "step ms": pair.b_ms, f"of {AGAINST}": pair.ratio.to_json()})
        print(".", end="", flush=True)
    print()
    rows.sort(key=lambda row: -1.0 if row["test"] is None else row["test"]["value"], reverse=True)
    title = f"{NET.format('...')} on {given.data}, {given.epochs:g} epochs, {given.seeds} seeds"
    show(title, [shown(row) for row in rows])
    print(
        f"written: {write('activations', rows, data=given.data, net=NET, epochs=given.epochs, seeds=given.seeds).name}"
    )


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the table."""
    test, ratio = row["test"], row[f"of {AGAINST}"]
    interval = "diverged" if test is None else "{value:.1%} [{low:.1%}, {high:.1%}]".format(**test)
    times = "{value:.2f} [{low:.2f}, {high:.2f}]".format(**ratio)
    return {"act": row["act"], "test": interval, "step ms": row["step ms"], f"of {AGAINST}": times}


if __name__ == "__main__":
    main()
