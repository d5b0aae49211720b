"""The three parts of the demo: train, compress, load again. What is there and intact is shown, not done again."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from shoal import __version__
from shoal.artifact import describe, load, save
from shoal.commands import _compressing, _training
from shoal.commands._talk import Talk, stdout_kept
from shoal.commands._trained import Order
from shoal.core.errors import BadArtifact, ShoalError
from shoal.core.spec import Spec
from shoal.data import open_data
from shoal.evidence import Evidence
from shoal.report import page

AGAIN = """
import hashlib, sys, torch
from safetensors.torch import load_file
from shoal.artifact import load
torch.set_num_threads(int(sys.argv[3]))
with torch.inference_mode():
    out = load(sys.argv[1])(load_file(sys.argv[2])["x"])
print(hashlib.sha256(out.contiguous().numpy().tobytes()).hexdigest())
"""


def trained_part(talk: Talk, order: Order, folder: Path, *, fresh: bool) -> bool:
    """Train, or show what is there; whether it was trained anew."""
    found = None if fresh else _there(folder, order.seed)
    asked = str(Spec.parse(order.spec or ""))
    if found and asked in found["spec"] and found["settings"]["epochs"] == order.epochs:
        quality = Evidence.from_json(found["test"]["quality"])
        talk.say(f"   already done on {_date(folder)}: accuracy {quality} on the test part; --fresh does it again")
        return False
    made = _training.trained(talk, order)
    with stdout_kept():
        save(made, folder, overwrite=True, pages={"report.html": page(made.report)})
    talk.say(f"   {made.run.seconds:.0f} s, {len(made.run.history) - 1} epochs; {made.cost}")
    talk.say(f"   accuracy {made.run.test.quality} on the test part, which took no part in training")
    return True


def compressed_part(
    talk: Talk, order: _compressing.Order, folder: Path, *, fresh: bool
) -> tuple[dict[str, Any], nn.Module | None, ShoalError | None]:
    """Compress, or show what is there; the report, the net just made, and what is to be said of goals not met."""
    found = None if fresh or _older(folder, Path(order.model)) else _there(folder, order.seed)
    module = None
    if found:
        talk.say(f"   already done on {_date(folder)}; --fresh does it again\n")
        _compressing.tell(talk, found)
    else:
        made = _compressing.compressed(talk, order)
        with stdout_kept():
            save(made, folder, overwrite=True, pages={"report.html": page(made.report)})
        found, module = made.report, made.module
        _compressing.tell(talk, found)
    return found, module, _compressing.failure(found, folder)


def reload_part(talk: Talk, folder: Path, made: nn.Module | None) -> bool:
    """Load the compressed net here and in a fresh process and compare the answers to the test part bit for bit.

    `made` is the net before it was saved, where it is still there.
    """
    data = open_data(json.loads((folder / "shoal.json").read_text(encoding="utf-8"))["data"]["name"])
    x = data.test.batch(slice(None))[0].contiguous()
    here = _answers(load(folder), x)
    if made is not None and _answers(made, x) != here:
        raise BadArtifact(f"{folder}: does not answer as the net that was saved; please report it")
    with tempfile.TemporaryDirectory() as beside:
        rows = Path(beside) / "x.safetensors"
        save_file({"x": x}, rows)
        words = [sys.executable, "-c", AGAIN, str(folder), str(rows), str(torch.get_num_threads())]
        done = subprocess.run(words, capture_output=True, text=True, check=False, env=dict(os.environ))
    there = done.stdout.strip()
    if done.returncode or here != there:
        said = (done.stderr.strip().splitlines() or ["other answers"])[-1]
        raise BadArtifact(f"{folder}: a fresh process does not answer as this one does ({said}); save it again")
    talk.say(f"   in this process and in a fresh one: {len(x)} answers, equal bit for bit (sha256 {here[:12]})")
    return True


def _answers(net: nn.Module, x: Tensor) -> str:
    with torch.inference_mode():
        return hashlib.sha256(net(x).contiguous().numpy().tobytes()).hexdigest()


def _there(folder: Path, seed: int) -> dict[str, Any] | None:
    """The report of a folder that is intact, of this version and seed; None where it is not."""
    if not (folder / "shoal.json").is_file():
        return None
    try:
        facts = describe(folder)
    except BadArtifact:
        return None  # damaged: it is made anew
    if any(file["state"] != "ok" for file in facts["files"].values()) or facts["versions"]["shoal"] != __version__:
        return None
    report: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return report if report["environment"]["seed"] == seed else None


def _older(folder: Path, other: Path) -> bool:
    facts = [path / "shoal.json" for path in (folder, other)]
    return all(path.is_file() for path in facts) and facts[0].stat().st_mtime < facts[1].stat().st_mtime


def _date(folder: Path) -> str:
    return f"{datetime.fromtimestamp((folder / 'shoal.json').stat().st_mtime):%Y-%m-%d at %H:%M}"
