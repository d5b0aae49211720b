"""What is left of shoal in an exported net: the native residual conv net and the same net by hand, both as ONNX.

    python bench/onnx_export.py               exports, counts the operators onnxruntime leaves, times; results/onnx.json

The demand: between the convolutions no Transpose, no batch norm left, and at batch 1 at most 1.05 of the time by hand.
Operators are counted at level EXTENDED, whose graph keeps plain layouts; the time is taken at ALL, as it is run.
(The file is not called onnx.py: run as a script it would hide the package.)
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from _by_hand import SHAPES, net_and_hand
from _timing import Call, show, side_by_side, write
from torch import nn

DEMAND = 1.05
LEVELS = onnxruntime.GraphOptimizationLevel
CONVOLUTIONS = ("Conv", "FusedConv")


def export(model: nn.Module, x: torch.Tensor, path: Path) -> None:
    """Write the model as ONNX with any number of rows."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(model, (x,), dynamo=True, dynamic_shapes=({0: "batch"},), verbose=False)
        program.save(path)


def session(path: Path, level: Any, threads: int, keep: Path | None = None) -> onnxruntime.InferenceSession:
    """The model opened at an optimisation level; ``keep``: where to write the optimised graph."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level, options.intra_op_num_threads = level, threads
    options.log_severity_level = 3
    if keep is not None:
        options.optimized_model_filepath = str(keep)
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def operators(path: Path) -> tuple[Counter[str], int]:
    """How many of each operator onnxruntime leaves, and how many Transposes lie between two convolutions."""
    kept = path.with_suffix(".optimised.onnx")
    session(path, LEVELS.ORT_ENABLE_EXTENDED, 1, kept)
    nodes = onnx.load(kept).graph.node  # in topological order
    behind: set[str] = set()  # tensors that come from some convolution
    for node in nodes:
        if node.op_type in CONVOLUTIONS or behind.intersection(node.input):
            behind.update(node.output)
    ahead: set[str] = set()  # tensors that go to some convolution
    for node in reversed(nodes):
        if node.op_type in CONVOLUTIONS or ahead.intersection(node.output):
            ahead.update(node.input)
    transposes = [node for node in nodes if node.op_type == "Transpose"]
    between = [node for node in transposes if behind.intersection(node.input) and ahead.intersection(node.output)]
    return Counter(node.op_type for node in nodes), len(between)


def runner(path: Path, x: np.ndarray[Any, Any], threads: int) -> Call:
    """One call of the optimised model."""
    opened = session(path, LEVELS.ORT_ENABLE_ALL, threads)
    given = {opened.get_inputs()[0].name: x}
    return lambda: opened.run(None, given)[0]


def cases(folder: Path) -> Iterator[tuple[str, Path, Path, torch.Tensor, torch.Tensor]]:
    """(shape, by hand, shoal, planes, x): both exported, with an input for each."""
    for index, (shape, (channels, stages, side)) in enumerate(SHAPES.items()):
        net, hand = net_and_hand(channels, stages)
        x = torch.randn(2, side, side, channels)
        planes = x.permute(0, 3, 1, 2).contiguous()
        paths = folder / f"hand{index}.onnx", folder / f"shoal{index}.onnx"
        export(hand, planes, paths[0])
        export(net, x, paths[1])
        wanted = hand(planes).detach().numpy()
        for path, given in zip(paths, (planes, x), strict=True):
            np.testing.assert_allclose(runner(path, given.numpy(), 1)(), wanted, rtol=1e-4, atol=1e-4)
        yield shape, *paths, planes[:1].contiguous(), x[:1].contiguous()


def main() -> None:
    """Export, count, time, print, write."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--threads", type=int, nargs="+", default=[2, 1])
    reader.add_argument("--seconds", type=float, default=30.0, help="for one case, where its interval stays wide")
    given = reader.parse_args()
    counts: list[dict[str, Any]] = []
    full: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    shown: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for shape, by_hand, native, planes, x in cases(Path(folder)):
            for who, path in (("hand", by_hand), ("shoal", native)):
                found, between = operators(path)
                norms = found["BatchNormalization"]
                convolutions = sum(found[name] for name in CONVOLUTIONS)
                row = {"net": shape, "graph": who, "nodes": found.total(), "convolutions": convolutions}
                row |= {"Transpose": found["Transpose"], "between": between, "batch norms": norms}
                counts.append(row | {"verdict": "MISSED" if norms or between else "ok"})
                full.append({"net": shape, "graph": who, "operators": dict(found)})
            for threads in given.threads:
                calls = (runner(by_hand, planes.numpy(), threads), runner(native, x.numpy(), threads))
                pair = side_by_side(*calls, threads, seconds=given.seconds)
                row = {"net": shape, "batch": 1, "threads": threads, "hand ms": pair.a_ms, "shoal ms": pair.b_ms}
                verdict = pair.verdict(DEMAND)
                rows.append({**row, "clock": pair.clock, "ratio": pair.ratio.to_json(), "verdict": verdict})
                shown.append({**row, "ratio": pair.shown, f"<={DEMAND}": verdict})
    show("operators left at EXTENDED; between: Transposes between convolutions", counts)
    show("onnxruntime: shoal against the same net by hand", shown)
    about = {"demand": DEMAND, "onnxruntime": onnxruntime.__version__, "graphs": counts, "operators": full}
    print(f"written: {write('onnx', rows, **about).name}")


if __name__ == "__main__":
    main()
