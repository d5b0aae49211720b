"""What merging buys: four layers in a row, the same four side by side, and the one wide layer that they become.

    python bench/merge.py                     2 threads, then 1, batch 1; results/merge.json

The demand: merged is faster than side by side, which it equals exactly. In a row is shown beside it: that is what depth
costs. The nets are folded first, as a compression leaves them.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from _timing import Call, show, side_by_side, write
from torch import nn

from shoal.core.errors import Refused
from shoal.core.spec import Spec
from shoal.edits.fold import Fold
from shoal.edits.merge import Merge
from shoal.edits.parallel import Parallel
from shoal.net import Net
from shoal.recipe import edited

GROUP = tuple(f"stages.0.layers.{index}" for index in range(4))
NETS = {  # what is timed -> the net in a row, the shape of its input
    "conv 4x16, 8x8": ("convolution[channels=1] | residual(conv) 4x16 | pool[outputs=10]", (8, 8, 1)),
    "conv 4x32, 16x16": ("convolution[channels=3] | residual(conv) 4x32 | pool[outputs=10]", (16, 16, 3)),
    "mlp 4x64": ("vector[features=20] | residual(mlp) 4x64 | pool[outputs=10]", (20,)),
    "mlp 4x256": ("vector[features=20] | residual(mlp) 4x256 | pool[outputs=10]", (20,)),
    "attention 4x64": ("patches[channels=1,size=[32,32]] | residual(attention) 4x64 | pool[outputs=10]", (32, 32, 1)),
}


def folded(net: nn.Module) -> nn.Module:
    """The net without the norms that fold; as it is where none does (layer norms stay)."""
    try:
        return edited(net, Fold())
    except Refused:
        return net


def call(net: nn.Module, x: torch.Tensor) -> Call:
    """One forward pass in eval."""

    def run() -> None:
        with torch.inference_mode():
            net(x)

    return run


def main() -> None:
    """Measure, print, write; say which cases miss the demand."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--threads", type=int, nargs="+", default=[2, 1])
    reader.add_argument("--seconds", type=float, default=20.0, help="for one case, where its interval stays wide")
    given = reader.parse_args()
    rows: list[dict[str, Any]] = []
    shown: list[dict[str, Any]] = []
    for threads in given.threads:
        torch.set_num_threads(threads)
        for name, (text, shape) in NETS.items():
            torch.manual_seed(0)
            row_net = Net(Spec.parse(text)).eval()
            side = edited(row_net, Parallel(paths=GROUP))
            wide = edited(side, Merge(paths=GROUP))
            x = torch.randn(1, *shape)
            with torch.inference_mode():
                torch.testing.assert_close(wide(x), side(x), rtol=1e-4, atol=1e-5)
            in_a_row, beside, merged = (call(folded(net), x) for net in (row_net, side, wide))
            for base, other in (("side by side", beside), ("in a row", in_a_row)):
                pair = side_by_side(other, merged, threads, width=0.05, seconds=given.seconds)
                row = {
                    "layers": name,
                    "threads": threads,
                    "against": base,
                    "base ms": pair.a_ms,
                    "merged ms": pair.b_ms,
                }
                verdict = pair.verdict(1.0) if base == "side by side" else ""
                rows.append({**row, "clock": pair.clock, "ratio": pair.ratio.to_json(), "verdict": verdict})
                shown.append({**row, "ratio": pair.shown, "<1": verdict})
                print(".", end="", flush=True)
    print()
    show("one wide layer against the four it was merged from, batch 1", shown)
    print(f"written: {write('merge', rows, demand=1.0).name}")


if __name__ == "__main__":
    main()
