"""What shoal costs in plain PyTorch: a native residual conv net against the same net written by hand, channels first.

    python bench/overhead.py                  2 threads, then 1; all cases; results/overhead.json
    python bench/overhead.py --threads 1 --blocks 20

The demand: shoal takes at most 1.05 of the time by hand, in eval and in training, at batch 1 and 128.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import torch
from _by_hand import net_and_hand
from _timing import Call, show, side_by_side, write
from torch import Tensor, nn

DEMAND = 1.05
SHAPES = {"24x16, 8x8x1": (1, 24, 16, 8), "12x32, 32x32x3": (3, 12, 32, 32)}  # channels, depth, dim, side


def forward(model: nn.Module, x: Tensor) -> Call:
    """One call in eval."""

    def call() -> None:
        with torch.inference_mode():
            model(x)

    return call


def training(model: nn.Module, x: Tensor) -> Call:
    """Forward and backward; the gradients are dropped, as an optimiser would."""

    def call() -> None:
        model.zero_grad(set_to_none=True)
        model(x).square().mean().backward()

    return call


def cases() -> Iterator[tuple[str, str, int, Call, Call]]:
    """(shape, mode, batch, by hand, shoal), outputs and gradients already found equal."""
    for shape, (channels, depth, dim, side) in SHAPES.items():
        for batch in (1, 128):
            net, hand = net_and_hand(channels, depth, dim)
            first = torch.randn(batch, channels, side, side)
            last = first.permute(0, 2, 3, 1).contiguous()
            with torch.inference_mode():
                torch.testing.assert_close(net(last), hand(first), rtol=1e-4, atol=1e-4)
            yield shape, "forward", batch, forward(hand, first), forward(net, last)
            net.train(), hand.train()
            one, two = training(hand, first), training(net, last)
            one(), two()
            torch.testing.assert_close(net.head.map.weight.grad, hand.head.weight.grad, rtol=1e-3, atol=1e-4)
            torch.testing.assert_close(net.stem.first.weight.grad, hand.stem.weight.grad, rtol=1e-2, atol=1e-3)
            yield shape, "forward+backward", batch, one, two


def main() -> None:
    """Measure, print, write; say which cases miss the demand."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--threads", type=int, nargs="+", default=[2, 1])
    reader.add_argument("--blocks", type=int, default=40)
    reader.add_argument("--seconds", type=float, default=20.0, help="at most, for one case")
    given = reader.parse_args()
    rows: list[dict[str, Any]] = []
    shown: list[dict[str, Any]] = []
    for threads in given.threads:
        torch.set_num_threads(threads)
        for shape, mode, batch, hand, net in cases():
            pair = side_by_side(hand, net, blocks=given.blocks, seconds=given.seconds)
            case = {"net": shape, "mode": mode, "batch": batch, "threads": threads}
            verdict = "ok" if pair.ratio.high <= DEMAND else "MISSED" if pair.ratio.low > DEMAND else "unclear"
            rows.append({**case, "hand_ms": pair.a_ms, "shoal_ms": pair.b_ms, "ratio": pair.ratio.to_json()})
            shown.append({**case, "hand ms": pair.a_ms, "shoal ms": pair.b_ms, "ratio": pair.shown, "<=1.05": verdict})
    show("shoal against the same net by hand", shown)
    print(f"written: {write('overhead', rows, demand=DEMAND, blocks=given.blocks, threads=given.threads).name}")


if __name__ == "__main__":
    main()
