"""What a wiring costs in shoal: each of them over conv layers, against the same written by hand in plain PyTorch.

    python bench/wirings.py                   1 thread, batch 1 and 64, forward and backward; results/wirings.json
    python bench/wirings.py --only dense fractal --seconds 30

The demand: at most 1.1 of the time by hand, which is channels first. Outputs are found equal before anything is timed.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import torch
from _timing import Call, show, side_by_side, write
from _wirings_by_hand import BY_HAND, HandStage
from torch import nn

from shoal.core.spec import Spec
from shoal.net import Net, StageNet

DEMAND = 1.1
DEPTH, DIM, SIDE = 7, 16, 16


def forward(stage: nn.Module, *given: Any) -> Call:
    """One call in eval."""

    def call() -> None:
        with torch.inference_mode():
            stage(*given)

    return call


def training(stage: nn.Module, x: torch.Tensor, *given: Any) -> Call:
    """Forward and backward; the gradients are dropped, as an optimiser would."""

    def call() -> None:
        stage.zero_grad(set_to_none=True)
        stage(x, *given).square().mean().backward()

    return call


def cases(names: list[str]) -> Iterator[tuple[dict[str, Any], Call, Call]]:
    """(what is timed, by hand, shoal), outputs already found equal."""
    for name in names:
        torch.manual_seed(0)
        net = Net(Spec.parse(f"convolution[channels=3] | {name}(conv norm=batch) {DEPTH}x{DIM} | pool[outputs=10]"))
        stage: StageNet = net.stages[0].eval()  # type: ignore[assignment]
        hand = HandStage(stage, BY_HAND[name]).eval()
        rest = (None, 0, None)  # no context, the first stage, nobody looks
        for batch in (1, 64):
            x = torch.randn(batch, SIDE, SIDE, DIM)
            planes = x.movedim(-1, 1).contiguous()
            with torch.inference_mode():
                torch.testing.assert_close(stage(x, *rest), hand(planes).movedim(1, -1), rtol=1e-4, atol=1e-4)
            case = {"wiring": name, "batch": batch}
            yield case | {"mode": "forward"}, forward(hand, planes), forward(stage, x, *rest)
            hand.train(), stage.train()
            yield case | {"mode": "training"}, training(hand, planes), training(stage, x, *rest)
            hand.eval(), stage.eval()


def main() -> None:
    """Measure, print, write."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--threads", type=int, default=1)
    reader.add_argument("--seconds", type=float, default=6.0, help="at most, for one comparison")
    reader.add_argument("--only", nargs="+", default=[""], help="wirings whose names begin so")
    given = reader.parse_args()
    torch.set_num_threads(given.threads)
    names = [name for name in BY_HAND if any(name.startswith(only) for only in given.only)]
    rows = []
    for case, hand, shoal in cases(names):
        pair = side_by_side(hand, shoal, given.threads, seconds=given.seconds)
        times = {"by hand ms": pair.a_ms, "shoal ms": pair.b_ms, "ratio": pair.shown}
        rows.append({**case, **times, "verdict": pair.verdict(DEMAND), "clock": pair.clock})
        print(*rows[-1].values(), flush=True)
    show(f"shoal / by hand, at most {DEMAND}", rows)
    print(write("wirings", rows, demand=DEMAND, threads=given.threads))


if __name__ == "__main__":
    main()
