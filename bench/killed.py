"""Is anything lost when a compression is killed? SIGKILL at random moments, then on with --resume, to the same weights.

    python bench/killed.py                    20 moments; results/killed.json; about five minutes
    python bench/killed.py --times 5 --seed 1

A network of 12 layers on digits is compressed by depth, with short healings and both controls, in a process of its own
that is killed behind a moment drawn evenly over the time that an undisturbed one takes, and once more while it goes on.
The demand: what is left goes on to the weights and test scores of the undisturbed run, bit for bit, every time.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from _timing import show, write

import shoal
from shoal.compressed import Compression
from shoal.data import open_data
from shoal.shrinking.stages import mark
from shoal.training import TrainingRecipe, train

TRAINED = TrainingRecipe(lr=3e-3, batch=64, epochs=2)
HEALING = TrainingRecipe(lr=1e-3, batch=64, epochs=2)


def compressed(folder: Path | None) -> Compression:
    """The compression that is killed; it goes on where it was begun."""
    torch.set_num_threads(1)
    data = open_data("digits")
    net = train("residual(conv) 12x8", data, TRAINED).net
    return shoal.compress(
        net,
        data,
        to="depth<=50%",
        recipe=HEALING,
        compressors=("skip", "flatten"),
        checkpoint=folder,
        resume=folder is not None,
    )


def result(found: Compression) -> tuple[str, ...]:
    """What must be the same: the weights, and the scores of the controls."""
    return (mark(found.module), *(str(control.result.quality) for control in found.controls))


def killed(folder: Path, wait: float) -> bool:
    """Begin or go on in another process, and kill it; whether it was still at work."""
    words = [sys.executable, __file__, "--work", str(folder)]
    with subprocess.Popen(words) as process:
        try:
            process.wait(wait)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            return True
        return False


def main() -> None:
    """Kill, go on, compare."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--times", type=int, default=20)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    asked = options.parse_args()
    if asked.work is not None:
        compressed(asked.work)
        return
    chance = random.Random(asked.seed)
    began = time.perf_counter()
    wanted, whole = result(compressed(None)), time.perf_counter() - began
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as place:
        for number in range(asked.times):
            folder = Path(place) / str(number)
            waits = [chance.uniform(0, 1.2 * whole) for _ in range(2)]
            at_work = [killed(folder, wait) for wait in waits]
            there = sorted(path.parent.name for path in folder.glob("*/checkpoint.safetensors"))
            equal = result(compressed(folder)) == wanted
            rows.append({"killed after, s": waits, "at work": at_work, "finished": there, "equal": equal})
            print(f"{number}: {', '.join(f'{wait:.1f} s' for wait in waits)}, {len(there)} stages, equal {equal}")
    lost = sum(not row["equal"] for row in rows)
    show("killed and gone on", [{"times": len(rows), "whole run, s": whole, "not equal": lost}])
    print("written:", write("killed", rows, seed=asked.seed, seconds=whole, lost=lost))


if __name__ == "__main__":
    main()
