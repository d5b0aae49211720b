"""Is anything lost when a compression is killed? SIGKILL at random moments, then on with it, to the same weights.

    python bench/killed.py                    20 kills; results/killed.json; about nine minutes on one quiet core
    python bench/killed.py --times 5 --seed 1

A network of 6 layers on the digits, as rows of 64 numbers, is compressed by depth, with short healings and both
controls, in a process of its own.
Every kill has a stage to hit, in turn: the process is watched by what it leaves on disk and killed a random moment
behind where the stage begins, drawn evenly over the time that the stage takes undisturbed; where that was too late, and
the process had ended, it is done again at half of the time. Where it struck is read from the disk afterwards.

Measuring and saving are killed in ``shoal compress``, which goes on with ``--resume``; so is one of every other stage;
the rest go by ``shoal.compress(checkpoint=..., resume=True)``. Every third is killed twice.

The demand: what is left goes on to the weights of the undisturbed run, bit for bit, with the scores, edits and controls
of it, every time; the run folder is then whole, and nothing else is left beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _timing import show, write
from sklearn.datasets import load_digits

import shoal
from shoal import compression
from shoal.artifact import describe, save
from shoal.compressed import Compression
from shoal.data import open_data
from shoal.shrinking.stages import ORDER, mark
from shoal.training import TrainingRecipe, train
from shoal.training.checkpoint import FILE

TRAINED = TrainingRecipe(lr=3e-3, batch=64, epochs=2)
HEALING = TrainingRecipe(lr=1e-3, batch=64, epochs=6)
SPEC = "residual(mlp) 6x8"
TO, KEEP, COMPRESSORS = "depth<=50%", "none", ("skip", "flatten[together=[2],wide=[]]")  # nothing promised: exit code 0
STAGES = ("weighing", "planning", "short healings", "healing", "controls", "measuring", "saving")
ROWS = "rows.npz"
ALONE = {**os.environ, "OMP_NUM_THREADS": "1"}  # the same bits need the same number of threads
LOOK = 0.003  # seconds from look to look at the disk
LAST = {"measuring": 3.0, "saving": 2.0}  # about the seconds of what only the command line does to the end


@dataclass(frozen=True)
class Reached:
    """A stage on disk: its name, the steps made in it (0 where it is no training), when it was written."""

    name: str
    steps: int
    when: float


def compressed(net: Path, folder: Path) -> Compression:
    """The compression that is killed, by the library; it goes on where it was begun."""
    torch.set_num_threads(1)
    compression.TIMED = 0.05  # no goal here is a latency
    return shoal.compress(
        shoal.load(net),
        open_data(str(net.with_name(ROWS))),
        to=TO,
        keep=KEEP,
        recipe=HEALING,
        compressors=COMPRESSORS,
        checkpoint=folder,
        resume=True,
    )


def by_command(net: Path, out: Path) -> list[str]:
    """The words of the same by the command line."""
    recipe = net.with_name("healing.json")
    recipe.write_text(json.dumps(HEALING.to_json()), encoding="utf-8")
    named = [word for name in COMPRESSORS for word in ("--compressor", name)]
    words = ["--to", TO, "--keep", KEEP, "--recipe", str(recipe), "--out", str(out), "--resume", "--quiet", *named]
    return [sys.executable, "-m", "shoal", "compress", str(net), str(net.with_name(ROWS)), *words]


def by_library(net: Path, out: Path) -> list[str]:
    """The words of the same in a process of its own."""
    return [sys.executable, __file__, "--work", str(net), str(unfinished(out))]


def unfinished(out: Path) -> Path:
    """Where stages are kept until the run folder is there."""
    return out.with_name(out.name + ".part")


def steps_in(path: Path) -> int:
    """The steps that a stage on disk has made, 0 where it is no training; only the head of its file is read."""
    with path.open("rb") as file:
        head = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    steps: int = json.loads(head["__metadata__"]["shoal"]).get("index", 0)
    return steps


def stages_in(folder: Path) -> list[Reached]:
    """What is on disk of the work itself, in the order that it was written."""
    found = [Reached(path.parent.name, steps_in(path), path.stat().st_mtime) for path in folder.glob(f"*/{FILE}")]
    return sorted((one for one in found if one.name != ORDER), key=lambda one: one.when)


def stage_of(name: str) -> str:
    """Where a stage on disk belongs."""
    begins = {"plans": "planning", "short": "short healings", "healing": "healing", "control": "controls"}
    return begins.get(name.partition("-")[0], "weighing")


def at_work_on(out: Path, whole: Sequence[Reached]) -> str:
    """What a process is at, or was when it ended: the first stage of the whole run that is not whole on disk."""
    if out.exists():
        return "saved"
    if any(out.parent.glob(f".{out.name}-partial-*")):
        return "saving"
    work = unfinished(out)
    if not (work / ORDER / FILE).is_file():
        return "opening"
    for one in whole:
        try:
            if steps_in(work / one.name / FILE) < one.steps:
                return stage_of(one.name)
        except FileNotFoundError:
            return stage_of(one.name)
    return "measuring"


def killed(words: Sequence[str], out: Path, whole: Sequence[Reached], stage: str, wait: float) -> str | None:
    """Begin or go on in another process, and kill it a moment behind where a stage begins; what it was at.

    None where it ended before.
    """
    order = ("opening", *STAGES, "saved")
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ALONE) as process:
        while process.poll() is None and order.index(at_work_on(out, whole)) < order.index(stage):
            time.sleep(LOOK)
        try:
            process.wait(wait)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return at_work_on(out, whole)
    return None


def told(found: Compression) -> dict[str, Any]:
    """What must be the same: weights, scores, edits, controls."""
    return {"weights": mark(found.module), **_told(found.report)}


def told_of(out: Path) -> dict[str, Any]:
    """The same, of a run folder whose files are all as they were written, with nothing left beside it."""
    changed = [name for name, file in describe(out)["files"].items() if file["state"] != "ok"]
    beside = sorted(path.name for path in out.parent.iterdir() if path != out)
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return {"weights": mark(shoal.load(out)), **_told(report), "changed": changed, "beside": beside}


def _told(report: dict[str, Any]) -> dict[str, Any]:
    same = {key: report[key] for key in ("spec_after", "edits", "controls", "floor", "agreement")}
    healing = [[row[key] for key in ("epoch", "loss", "quality")] for row in report["healing"]]
    quality = [report[side]["quality"] for side in ("before", "after")]
    front = [[one[key] for key in ("name", "edits", "quality")] for one in report["front"]]
    return {**same, "healing": healing, "quality": quality, "front": front, "changed": [], "beside": []}


def times_of(whole: Sequence[Reached]) -> dict[str, float]:
    """Seconds that each stage took, by what it left on disk."""
    found: dict[str, float] = {}
    for stage in STAGES[: -len(LAST)]:
        own = [number for number, one in enumerate(whole) if stage_of(one.name) == stage]
        found[stage] = whole[own[-1]].when - whole[max(own[0] - 1, 0)].when
    return found | LAST


def one_kill(
    number: int, net: Path, place: Path, whole: Sequence[Reached], times: dict[str, float], chance: random.Random
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Kill, go on to the end; where it struck, and what came of it."""
    turn, nth = divmod(number, len(STAGES))
    stage, out = STAGES[nth], place / str(number) / "small"
    command = stage in LAST or (turn < 2 and nth % 2 == turn)
    words = (by_command if command else by_library)(net, out)
    struck, wait = None, chance.uniform(0, times[stage])
    while struck is None:
        out.parent.mkdir()
        struck = killed(words, out, whole, stage, wait)
        if struck is None:
            shutil.rmtree(out.parent)
            wait /= 2
    strikes, waits = [struck], [wait]
    if number % 3 == 2:
        aim = chance.choice(STAGES[nth:])
        waits.append(chance.uniform(0, times[aim]))
        strikes.append(killed(words, out, whole, aim, waits[-1]) or "not struck")
    began = time.perf_counter()
    if not command:
        found = told(compressed(net, unfinished(out)))
    else:
        if unfinished(out).exists():
            subprocess.run(words, check=True, stdout=subprocess.DEVNULL, env=ALONE)
        found = told_of(out)
    way = "shoal compress --resume" if command else "shoal.compress(resume=True)"
    row = {"way": way, "aimed at": stage, "struck": strikes, "behind its beginning, s": waits}
    return {**row, "going on took, s": time.perf_counter() - began}, json.loads(json.dumps(found))


def main() -> None:
    """Kill, go on, compare."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--times", type=int, default=20)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--work", type=Path, nargs=2, help=argparse.SUPPRESS)
    asked = options.parse_args()
    if asked.work is not None:
        compressed(*asked.work)
        return
    torch.set_num_threads(1)
    chance, rows, began = random.Random(asked.seed), list[dict[str, Any]](), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        place, digits = Path(folder), load_digits()
        np.savez(place / ROWS, X=digits.data.astype(np.float32), y=digits.target)
        data = open_data(str(place / ROWS))
        made = train(SPEC, data, TRAINED)
        net = save(made.net, place / "net", example=data.example(), onnx=False)
        start = time.perf_counter()
        wanted = json.loads(json.dumps(told(compressed(net, place / "whole.part"))))
        undisturbed = time.perf_counter() - start
        whole = stages_in(place / "whole.part")
        times = times_of(whole)
        print(f"undisturbed: {undisturbed:.1f} s; {', '.join(f'{name} {took:.2f} s' for name, took in times.items())}")
        for number in range(asked.times):
            row, found = one_kill(number, net, place, whole, times, chance)
            row["other"] = sorted(key for key in wanted if found[key] != wanted[key])
            rows.append(row)
            struck = " and ".join(row["struck"])
            print(f"{number}: {row['way']}, killed at {struck}; other: {row['other'] or 'nothing'}", flush=True)
    table = []
    for name in dict.fromkeys((*STAGES, *(at for row in rows for at in row["struck"]))):
        hit = [row for row in rows for at in row["struck"] if at == name]
        table.append({"killed at": name, "kills": len(hit), "came to the same": sum(not row["other"] for row in hit)})
    show("killed and gone on", table)
    lost, seconds = sum(bool(row["other"]) for row in rows), time.perf_counter() - began
    print(f"{len(rows)} runs killed, {lost} of them came to something else; {seconds:.0f} s in all")
    about = {"undisturbed": undisturbed, "seconds": seconds, "lost": lost, "table": table}
    print("written:", write("killed", rows, seed=asked.seed, **about))
    if lost:
        sys.exit(1)


if __name__ == "__main__":
    main()
