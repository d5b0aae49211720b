"""ResNet-56 in integers against itself in float32, both in onnxruntime; and what integers cost in accuracy.

    python bench/int8.py                  grids from 256 training images, no healing; results/int8.json
    python bench/int8.py --blocks 5       of nine blocks a stage only the first five: latency alone, no accuracy

Both are exported by the same way, opened at level ALL and timed in turn at batch 1. The operators are counted as
onnxruntime leaves them at level EXTENDED.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from _timing import Call, show, side_by_side, write
from torch import Tensor, nn

import shoal
from shoal.anatomy import anatomy
from shoal.compressors.int8 import Int8
from shoal.core.scene import Batch, Scene
from shoal.recipe import done

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
from cifar10_resnet56 import data, model

CALIBRATION, TESTED = 256, 1000
LEVELS = onnxruntime.GraphOptimizationLevel


def opened(path: Path, threads: int, level: Any = LEVELS.ORT_ENABLE_ALL, keep: Path | None = None) -> Any:
    """A session; ``keep``: where to write the graph as it was optimised."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level, options.intra_op_num_threads = level, threads
    options.log_severity_level = 3
    if keep is not None:
        options.optimized_model_filepath = str(keep)
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def operators(path: Path) -> Counter[str]:
    """How many of each operator onnxruntime leaves."""
    kept = path.with_suffix(".optimised.onnx")
    opened(path, 1, LEVELS.ORT_ENABLE_EXTENDED, kept)
    return Counter(node.op_type for node in onnx.load(kept).graph.node)


def call(path: Path, x: Tensor, threads: int) -> Call:
    """One run of the file."""
    session, given = opened(path, threads), x.numpy()
    name = session.get_inputs()[0].name
    return lambda: session.run(None, {name: given})


def accuracy(path: Path, x: Tensor, y: Tensor) -> float:
    """Share of right answers of the file itself, in percent."""
    session = opened(path, 1)
    name = session.get_inputs()[0].name
    found = np.concatenate([session.run(None, {name: part.numpy()})[0] for part in x.split(100)])
    return float((found.argmax(1) == y.numpy()).mean() * 100)


def main() -> None:
    """Quantise, export, count, time, print, write."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    reader.add_argument("--seconds", type=float, default=20.0, help="for one case, where its interval stays wide")
    reader.add_argument("--blocks", type=int, default=9, help="of nine a stage; fewer are not healed, so only timed")
    reader.add_argument("--bits", type=int, default=7, help="of a weight")
    given = reader.parse_args()
    net, (train_x, _, test_x, test_y) = model(), data()
    for stage in (net.layer1, net.layer2, net.layer3):
        del stage[given.blocks :]  # type: ignore[union-attr]
    rows = train_x[:CALIBRATION]
    batches = tuple(Batch(part) for part in rows.split(64))
    scene = Scene(net, anatomy(net, rows[:2]), batches)
    static = next(one for one in Int8(bits=given.bits).propose(scene) if one.edits[-1].kind == "static")  # type: ignore[attr-defined]
    integers: nn.Module = done(net, static).eval()
    tests = test_x[:TESTED], test_y[:TESTED]
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder) / f"{name}.onnx" for name in ("float32", "int8")}
        shoal.export(net, rows[:1], paths["float32"], "onnx")
        shoal.export(integers, rows[:1], paths["int8"], "onnx")
        whole = {"blocks": given.blocks, "bits": given.bits}
        if given.blocks == 9:
            whole |= {f"accuracy {name}": accuracy(path, *tests) for name, path in paths.items()}
            with torch.no_grad():
                answers = torch.cat([integers(part) for part in tests[0].split(100)])
            whole["accuracy int8, eager"] = float((answers.argmax(1) == tests[1]).float().mean() * 100)
        whole["bytes"] = {name: path.stat().st_size for name, path in paths.items()}
        left = {name: dict(operators(path)) for name, path in paths.items()}
        timed = []
        for threads in given.threads:
            float32, int8 = (call(path, rows[:1], threads) for path in paths.values())
            pair = side_by_side(float32, int8, threads, seconds=given.seconds)
            row = {"blocks": given.blocks, "threads": threads, "float32 ms": pair.a_ms, "int8 ms": pair.b_ms}
            timed.append({**row, "clock": pair.clock, "int8 / float32": pair.shown})
    show("onnxruntime, batch 1", timed)
    print(whole, left, sep="\n")
    print(f"written: {write('int8', timed, **whole, operators=left).name}")


if __name__ == "__main__":
    main()
