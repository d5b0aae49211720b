"""What the cases of compress.py share: teachers that are kept, a compression as a row, results merged by case."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from _timing import RESULTS, show, write
from safetensors.torch import load_file, save_file
from torch import nn

import shoal
from shoal.compressed import Compression
from shoal.costing import cost
from shoal.costing.timing.roofline import bound_of, measure_roof
from shoal.data import Dataset
from shoal.training import TrainingRecipe

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("SHOAL_DATA", ROOT.parent / "shared" / "data"))
TEACHERS = ROOT / "runs" / "teachers"
RUNTIMES = ("eager", "onnxruntime")
UNSHOWN = ("report", "peak", "yardsticks", "runtime", "rows", "native")  # in the table of a terminal
Row = dict[str, Any]


def taught(name: str, make: Callable[[], nn.Module], data: Dataset, recipe: TrainingRecipe) -> nn.Module:
    """A module trained on data by seed 0, in eval; its weights are kept for the next time."""
    torch.manual_seed(0)
    module = make()
    order = json.dumps([str(module), data.fingerprint, recipe.to_json()])
    file = TEACHERS / f"{name}-{hashlib.sha256(order.encode()).hexdigest()[:12]}.safetensors"
    if not file.exists():
        run = shoal.train(module, data, recipe)
        print(f"teacher {name}: {run.test.quality} on the test part, after {run.seconds:.0f} s", flush=True)
        TEACHERS.mkdir(parents=True, exist_ok=True)
        save_file({key: value.contiguous() for key, value in run.net.state_dict().items()}, file)
    module.load_state_dict(load_file(file), strict=True)
    return module.eval()


def row_of(case: str, found: Compression, most: float) -> Row:
    """What a compression came to. ``most``: the points that it may lose."""
    before, after = (one.result.quality for one in (found.before, found.after))
    lost, ratio = 100 * (before.value - after.value), found.ratio
    return {
        "case": case,
        "goal": ", ".join(map(str, found.goals)),
        "before": f"{100 * before.value:.2f}",
        "after": f"{100 * after.value:.2f}",
        "lost": lost,
        "floor": found.floor.word,
        "ms": f"{found.before.latency.median:.3f} => {found.after.latency.median:.3f}",
        "latency": f"{ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]",
        "seconds": round(found.environment["seconds"]),
        "met": found.goals_met and lost <= most,
        "runtime": found.after.latency.runtime,
        "rows": after.n,
    }


def told(title: str, found: Compression) -> None:
    """Print all networks that were seen on the way, and what was taken."""
    rows: list[Row] = []
    for one in found.front:
        row: Row = {"network": one.name, "stage": one.stage}
        row |= {name: f"{value:.4g}" for name, value in one.values.items() if name in ("latency", "params", "depth")}
        row |= {"edits": one.edits, "goal": "met" if one.met else "-"}
        row["loss before healing"] = "-" if one.harm is None else f"{one.harm:+.4f}"
        rows.append({**row, "valid part": str(one.quality or "-")})
    show(f"{title}: all that was seen", rows)
    for row in found.report["edits"]:
        print(f"  round {row['round']}: {row['text']}, harm {row['harm']:+.4f}")
    for control in found.controls:
        print(f"  control, {control.name}: {control.result.quality}; the compressed network is {control.verdict.word}")
    for note in found.notes:
        print(f"  note: {note}")


def at_peak(modules: Mapping[str, tuple[nn.Module, Any, float]], threads: int) -> list[Row]:
    """How far each (module, example, milliseconds) is from what the machine can do at its measured peak."""
    roof, rows = measure_roof(threads, seconds=3.0), []
    for name, (module, example, ms) in modules.items():
        counted = cost(module, example, training=False)
        bound = bound_of(roof, [(one.macs, one.moved) for one in counted.operations])
        row: Row = {"network": name, "ms": ms, "at the peak ms": 1e3 * bound.seconds}
        rows.append({**row, "times as long": ms / (1e3 * bound.seconds), "bound by": bound.by, "MACs": counted.macs})
    show(f"against the measured peak, {roof.macs_per_s / 1e9:.0f} G multiply-adds a second", rows)
    return rows


def keep(name: str, rows: Sequence[Row]) -> None:
    """Print rows and write them to results/compress_<name>.json, in the place of those of the same case."""
    show(name, [{key: value for key, value in row.items() if key not in UNSHOWN} for row in rows])
    path = RESULTS / f"compress_{name}.json"
    new = {row["case"] for row in rows}
    old = json.loads(path.read_text())["rows"] if path.exists() else []
    where = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "load": os.getloadavg()[0],
        "threads": torch.get_num_threads(),
    }
    merged = [row for row in old if row["case"] not in new] + [{**row, **where} for row in rows]
    print(f"written: {write(f'compress_{name}', merged, shoal=shoal.__version__)}")
