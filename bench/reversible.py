"""What recomputing saves: peak training memory of checkpointed and reversible nets against the plain ones.

    python bench/reversible.py                results/reversible.json; about two minutes
    python bench/reversible.py --width 64 --batch 256

The demand: at depth 64 a checkpointed net needs at most 0.25 of the memory of the residual net, with equal outputs, and
a reversible one at most 0.25 of itself without recomputing, however many columns there are. `kept` are the activations
alive at most in a forward pass in training, as counted by shoal.cost; `peak` is the most that a forward and a backward
pass had alive at once, gradients of the weights included, seen by the same lookout. `process` is how much the resident
memory of a process of its own grew in both passes: once as the C library is set up, and once (`mapped`) with
MALLOC_MMAP_THRESHOLD_=65536 in its environment. glibc as it is set up does not give the gaps that recomputing leaves
back to it, and most of what is saved is lost again on a processor.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from _timing import show, write
from torch import Tensor

from shoal.core.spec import Spec
from shoal.costing import cost
from shoal.costing.counting.lookout import Lookout, eager
from shoal.costing.counting.memory import Alive
from shoal.costing.counting.work import Call
from shoal.net import Net

STATUS = Path("/proc/self/status")
DEMAND = 0.25
LEVELS = 4
PAIRS = {  # what recomputes -> the same without
    "checkpointed": "residual",
    "reversible[columns={columns}]": "reversible[columns={columns},recompute=false]",
}


class Watching(Lookout):
    """Shows every operation to the account of what is alive."""

    def __init__(self, alive: Alive) -> None:
        super().__init__()
        self.alive = alive

    def look(self, call: Call) -> None:
        """An operation has just been run."""
        self.alive.see(call.made)


def made(wiring: str, depth: int, width: int) -> Net:
    """A net of that wiring."""
    torch.manual_seed(0)
    return Net(Spec.parse(f"vector[features=16] | {wiring}(mlp) {depth}x{width} | pool[outputs=10]"))


def grown(wiring: str, depth: int, width: int, batch: int) -> float:
    """Megabytes by which the resident memory of this process grows in a forward and a backward pass, in float32."""
    for net, x in ((made(wiring, 2, width), torch.zeros(8, 16)), (made(wiring, depth, width), torch.zeros(batch, 16))):
        before = highest()
        net(x).square().mean().backward()
    return (highest() - before) / 1e3


def highest() -> int:
    """The largest resident size of this process so far, in kB."""
    return next(int(line.split()[1]) for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))


def of_a_process(*case: object, **environment: str) -> float:
    """The same, in a process of its own."""
    command = [sys.executable, __file__, "--alone", *map(str, case)]
    given = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return float(subprocess.run(command, env=given, check=True, capture_output=True, text=True).stdout)


def measured(wiring: str, depth: int, width: int, batch: int) -> tuple[dict[str, float], Tensor, Tensor]:
    """Bytes kept and at the peak, the output, and the gradient of the stem."""
    net = made(wiring, depth, width).double()
    x = torch.randn(batch, 16, dtype=torch.float64)
    kept = cost(net, x).activation_bytes.training
    assert kept is not None
    alive = Alive(net, x)
    with eager(), Watching(alive):
        y = net.train()(x)
        y.square().mean().backward()
    gradient = next(net.stem.parameters()).grad
    assert gradient is not None
    return {"kept": kept, "peak": alive.peak}, y.detach(), gradient


def main() -> None:
    """Measure, print, write; say which cases miss the demand."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--depths", type=int, nargs="+", default=[16, 64])
    reader.add_argument("--width", type=int, default=32)
    reader.add_argument("--batch", type=int, default=512)
    reader.add_argument("--alone", nargs=4, help=argparse.SUPPRESS)
    given = reader.parse_args()
    if given.alone:
        wiring, *sizes = given.alone
        print(grown(wiring, *map(int, sizes)))
        return
    rows: list[dict[str, Any]] = []
    shown: list[dict[str, Any]] = []
    for depth in given.depths:
        for thrifty, plain in PAIRS.items():
            names = [name.format(columns=depth // LEVELS) for name in (thrifty, plain)]
            (few, y, slope), (all_, wanted, steep) = (measured(name, depth, given.width, given.batch) for name in names)
            torch.testing.assert_close(y, wanted, rtol=1e-10, atol=1e-10)
            torch.testing.assert_close(slope, steep, rtol=1e-8, atol=1e-10)
            sizes = (depth, given.width, 8 * given.batch)
            for called, environment in (("process", {}), ("mapped", {"MALLOC_MMAP_THRESHOLD_": "65536"})):
                few[called], all_[called] = (of_a_process(name, *sizes, **environment) * 1e6 for name in names)
            ratios = {f"{each} ratio": few[each] / all_[each] for each in few}
            largest = max(ratios["kept ratio"], ratios["peak ratio"])
            verdict = "" if depth != 64 else "ok" if largest <= DEMAND else "MISSED"
            columns = depth // LEVELS if "columns" in thrifty else 0
            row = {"wiring": thrifty.partition("[")[0], "columns": columns, "depth": depth}
            shown.append({**row, **ratios, f"<={DEMAND}": verdict})
            rows.append({**shown[-1], "bytes": few, "bytes of all": all_})
    show("peak training memory against the same net that keeps everything", shown)
    about = {"demand": DEMAND, "width": given.width, "batch": given.batch}
    print(f"written: {write('reversible', rows, **about).name}")


if __name__ == "__main__":
    main()
