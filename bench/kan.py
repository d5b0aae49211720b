"""KANs: a training step of shoal's block against the same functions in pykan and in the form of efficient-kan.

    python bench/kan.py                     1 thread; results/kan.json; two minutes; needs the extra: ".[bench]"

The demand: at least 10 times as fast as pykan and 1.2 times as fast as efficient-kan, at equal grid, degree and
accuracy. All begin as the same function (asserted), and the toy is trained by each, so that accuracy is measured too.
pykan is timed as its own `fit` runs it without regularisation: no symbolic branch, nothing kept for plots; and, on the
toy, as it is built: on wider nets that takes seconds a step.
efficient-kan is in no package index; its published idea, all functions by the recursion of Cox and de Boor, then one
product of matrices, and a scale on every edge, is written out below.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from _timing import show, side_by_side, write
from torch import Tensor, nn
from torch.nn import functional as F

from shoal.core.makers import DENSE
from shoal.core.part import Part
from shoal.kinds import BLOCKS

GRID, DEGREE, REACH = 5, 3, 1.0
CASES: dict[str, tuple[tuple[int, ...], int]] = {  # what is timed -> widths, batch
    "2-5-1": ((2, 5, 1), 1000),
    "64-64-10": ((64, 64, 10), 256),
    "128-128-10": ((128, 128, 10), 256),
}
AS_BUILT = "pykan as built"
DEMANDS = {AS_BUILT: 10.0, "pykan in its fit": 10.0, "efficient-kan's form": 1.2}
LEARNED, SEEDS = "2-5-1", 3


def native(widths: Sequence[int]) -> nn.Sequential:
    """Shoal's blocks, one behind the other."""
    settings = {"grid": GRID, "degree": DEGREE, "reach": REACH}
    ends = pairwise(widths)
    return nn.Sequential(
        *(BLOCKS.make(Part("kan", settings), a, dim=b, offers={"linear": DENSE, "out": b}) for a, b in ends)
    )


class Recursive(nn.Module):
    """One layer as efficient-kan computes it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        knots = torch.arange(-DEGREE, GRID + DEGREE + 1) * (2 * REACH / GRID) - REACH
        self.register_buffer("knots", knots.expand(inputs, -1).contiguous())
        self.base = nn.Parameter(torch.empty(outputs, inputs))
        self.spline = nn.Parameter(torch.empty(outputs, inputs, GRID + DEGREE))
        self.scale = nn.Parameter(torch.ones(outputs, inputs))

    def functions(self, x: Tensor) -> Tensor:
        """All functions of all inputs, degree by degree."""
        x, knots = x.unsqueeze(-1), self.knots
        found = ((x >= knots[:, :-1]) & (x < knots[:, 1:])).to(x.dtype)
        for k in range(1, DEGREE + 1):
            rising = (x - knots[:, : -(k + 1)]) / (knots[:, k:-1] - knots[:, : -(k + 1)])
            falling = (knots[:, k + 1 :] - x) / (knots[:, k + 1 :] - knots[:, 1:-k])
            found = rising * found[..., :-1] + falling * found[..., 1:]
        return found

    def forward(self, x: Tensor) -> Tensor:
        weight = self.spline * self.scale.unsqueeze(-1)
        return F.linear(F.silu(x), self.base) + F.linear(self.functions(x).flatten(1), weight.flatten(1))


def recursive(net: nn.Sequential) -> nn.Sequential:
    """The net in efficient-kan's form."""
    made = nn.Sequential(*(Recursive(block.base.inputs, block.base.outputs) for block in net))
    with torch.no_grad():
        for layer, block in zip(made, net, strict=True):
            layer.base.copy_(block.base.weight)
            layer.spline.copy_(block.spline.weight.view_as(layer.spline))
    return made


def peer() -> ModuleType:
    """The package of pykan. It is called as this file is, so it is looked for everywhere but in this folder."""
    here = str(Path(__file__).parent)
    sys.path[:] = [each for each in sys.path if each != here]
    return importlib.import_module("kan")


def pykan(net: nn.Sequential, widths: Sequence[int], lean: bool) -> nn.Module:
    """The net in pykan; lean: without what its fit switches off."""
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as silence, contextlib.redirect_stdout(silence):
        options: dict[str, Any] = {"symbolic_enabled": not lean, "save_act": not lean, "auto_save": False}
        made = peer().KAN(
            width=list(widths), grid=GRID, k=DEGREE, grid_range=[-REACH, REACH], ckpt_path=folder, **options
        )
    with torch.no_grad():
        for layer, block in zip(made.act_fun, net, strict=True):
            layer.scale_base.copy_(block.base.weight.T)
            layer.scale_sp.fill_(1)
            layer.coef.copy_(block.spline.weight.unflatten(1, (-1, GRID + DEGREE)).transpose(0, 1))
    return made


def stepper(net: nn.Module, x: Tensor, y: Tensor) -> Callable[[], float]:
    """A step of training: forward, backward, Adam. It gives the loss before it."""
    optimizer = torch.optim.Adam([each for each in net.parameters() if each.requires_grad], lr=0.03)

    def step() -> float:
        optimizer.zero_grad()
        loss = F.mse_loss(net(x), y)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


def sample(widths: Sequence[int], batch: int) -> tuple[Tensor, Tensor]:
    """Inputs within the grid, and a function of the first two of them for each output."""
    x = torch.rand(batch, widths[0]) * 2 - 1
    y = torch.exp(torch.sin(torch.pi * x[:, :1]) + x[:, 1:2] ** 2)
    return x, y.expand(-1, widths[-1])


def nets(widths: Sequence[int], seed: int) -> dict[str, nn.Module]:
    """The same function in each."""
    torch.manual_seed(seed)
    net = native(widths)
    made = {
        "shoal": net,
        AS_BUILT: pykan(net, widths, lean=False),
        "pykan in its fit": pykan(net, widths, lean=True),
        "efficient-kan's form": recursive(net),
    }
    x = torch.rand(32, widths[0]) * 2 - 1
    for other in made.values():
        torch.testing.assert_close(other(x), net(x), rtol=1e-3, atol=1e-4)
    return made


def learned(widths: Sequence[int], steps: int) -> dict[str, list[float]]:
    """The root mean square error on fresh inputs after so many steps, a seed each."""
    errors: dict[str, list[float]] = {}
    for seed in range(SEEDS):
        made = nets(widths, seed)
        del made[AS_BUILT]  # it learns what it does in its fit
        for name, net in made.items():
            torch.manual_seed(seed + 100)
            (x, y), (fresh, wanted) = sample(widths, 1000), sample(widths, 1000)
            step = stepper(net, x, y)
            for _ in range(steps):
                step()
            with torch.no_grad():
                errors.setdefault(name, []).append(float(F.mse_loss(net(fresh), wanted).sqrt()))
    return errors


def main() -> None:
    """Measure, print, write; say which cases miss the demand."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--threads", type=int, nargs="+", default=[1])
    reader.add_argument("--seconds", type=float, default=15.0, help="for one case, where its interval stays wide")
    reader.add_argument("--steps", type=int, default=600, help="of the training that shows the accuracy")
    given = reader.parse_args()
    rows: list[dict[str, Any]] = []
    shown: list[dict[str, Any]] = []
    for threads in given.threads:
        torch.set_num_threads(threads)
        for name, (widths, batch) in CASES.items():
            made, (x, y) = nets(widths, 0), sample(widths, batch)
            for peer, demand in DEMANDS.items():
                if peer == AS_BUILT and name != LEARNED:
                    continue
                own, other = (stepper(made[which], x, y) for which in ("shoal", peer))
                pair = side_by_side(own, other, threads, width=0.05 * demand, seconds=given.seconds)
                faster = pair.ratio
                word = "ok" if faster.low >= demand else "MISSED" if faster.high < demand else "unclear"
                row = {"widths": name, "batch": batch, "threads": threads, "peer": peer}
                row |= {"shoal ms": pair.a_ms, "peer ms": pair.b_ms}
                rows.append({**row, "clock": pair.clock, "faster": faster.to_json(), "demand": demand, "verdict": word})
                shown.append({**row, "times as fast": pair.shown, "demand": f"{demand:g} {word}"})
                print(f"{name} against {peer}: {pair.shown}", flush=True)
    show(f"a training step, grid {GRID}, degree {DEGREE}", shown)
    errors = learned(CASES[LEARNED][0], given.steps)
    show(
        f"root mean square error after {given.steps} steps of {LEARNED}, {SEEDS} seeds",
        [{"net": name, **{f"seed {seed}": value for seed, value in enumerate(each)}} for name, each in errors.items()],
    )
    path = write("kan", rows, demands=DEMANDS, grid=GRID, degree=DEGREE, steps=given.steps, errors=errors)
    print(f"written: {path.name}")


if __name__ == "__main__":
    main()
