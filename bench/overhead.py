"""What shoal costs in plain PyTorch: a native residual conv net against the same net written by hand.

    python bench/overhead.py                  2 threads, then 1; all cases; results/overhead.json
    python bench/overhead.py --threads 1 --seconds 10

The demand: shoal takes at most 1.05 of the time of the net by hand, channels first as nets are written, in eval and in
training, at batch 1 and 128. Measured as well: the net by hand once it has been moved to channels last, which leaves
nothing between the two but shoal's own Python and views.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import torch
from _by_hand import SHAPES, net_and_hand
from _timing import Call, show, side_by_side, write
from torch import nn

DEMAND = 1.05
LAYOUTS = {"first": torch.contiguous_format, "last": torch.channels_last}


def forward(model: nn.Module, x: torch.Tensor) -> Call:
    """One call in eval."""

    def call() -> None:
        with torch.inference_mode():
            model(x)

    return call


def training(model: nn.Module, x: torch.Tensor) -> Call:
    """Forward and backward; the gradients are dropped, as an optimiser would."""

    def call() -> None:
        model.zero_grad(set_to_none=True)
        model(x).square().mean().backward()

    return call


def cases(shapes: list[str]) -> Iterator[tuple[dict[str, Any], Call, Call]]:
    """(what is timed, by hand, shoal), outputs and gradients already found equal."""
    for shape in shapes:
        channels, stages, side = SHAPES[shape]
        for batch in (1, 128):
            for layout, memory in LAYOUTS.items():
                net, hand = net_and_hand(channels, stages)
                hand.to(memory_format=memory)
                x = torch.randn(batch, side, side, channels)
                planes = x.permute(0, 3, 1, 2).contiguous(memory_format=memory)
                with torch.inference_mode():
                    torch.testing.assert_close(net(x), hand(planes), rtol=1e-4, atol=1e-4)
                case = {"net": shape, "by hand": f"channels {layout}", "batch": batch}
                yield case | {"mode": "forward"}, forward(hand, planes), forward(net, x)
                net.train(), hand.train()
                one, two = training(hand, planes), training(net, x)
                one(), two()
                torch.testing.assert_close(net.head.map.weight.grad, hand.head.weight.grad, rtol=1e-3, atol=1e-4)
                torch.testing.assert_close(net.stem.first.weight.grad, hand.stem.weight.grad, rtol=1e-2, atol=1e-3)
                yield case | {"mode": "forward+backward"}, one, two


def main() -> None:
    """Measure, print, write; say which cases miss the demand."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--threads", type=int, nargs="+", default=[2, 1])
    reader.add_argument("--nets", nargs="+", default=list(SHAPES)[:2], choices=SHAPES)
    reader.add_argument("--seconds", type=float, default=30.0, help="for one case, where its interval stays wide")
    given = reader.parse_args()
    rows: list[dict[str, Any]] = []
    shown: list[dict[str, Any]] = []
    for threads in given.threads:
        torch.set_num_threads(threads)
        for case, hand, net in cases(given.nets):
            pair = side_by_side(hand, net, threads, seconds=given.seconds)
            row = {**case, "threads": threads, "hand ms": pair.a_ms, "shoal ms": pair.b_ms}
            rows.append({**row, "clock": pair.clock, "ratio": pair.ratio.to_json(), "verdict": pair.verdict(DEMAND)})
            shown.append({**row, "ratio": pair.shown, f"<={DEMAND}": pair.verdict(DEMAND)})
            print(".", end="", flush=True)
    print()
    show("shoal against the same net by hand", shown)
    print(f"written: {write('overhead', rows, demand=DEMAND).name}")


if __name__ == "__main__":
    main()
