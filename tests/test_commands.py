"""The command line as a person or a script uses it: every verb, in a process of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import shoal
from conftest import CommandLine
from shoal.commands import verbs
from shoal.commands._options import seconds
from shoal.commands._talk import columns, plain
from shoal.core.errors import BadSetting
from shoal.kinds import KINDS

TRAIN = ("train", "points.csv", "--target", "side", "--spec", "residual(mlp[hidden=8]) 4x8", "--epochs", "6")
MODULE = """
import torch
from torch import nn
print("said by a user's file")
class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(3, 8), nn.Linear(8, 3)
    def forward(self, x):
        return x + self.outer(torch.relu(self.inner(x)))
def layers():
    torch.manual_seed(0)
    return nn.Sequential(*(Layer() for _ in range(4)), nn.Linear(3, 2))
def rows():
    x = torch.randn(300, 3, generator=torch.Generator().manual_seed(0))
    return x, (x[:, 0] > 0).long()
"""


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a table, and a module of a user's own."""
    folder = tmp_path_factory.mktemp("workplace")
    x = np.random.default_rng(0).normal(size=(400, 3))
    rows = [f"{a:.4f},{b:.4f},{c:.4f},{'left' if a + b * c < 0 else 'right'}" for a, b, c in x]
    (folder / "points.csv").write_text("\n".join(["a,b,c,side", *rows, ""]), encoding="utf-8")
    (folder / "mine.py").write_text(MODULE, encoding="utf-8")
    return folder


def test_the_overview_names_every_verb_and_is_light(cli: CommandLine) -> None:
    began = time.perf_counter()
    code, out, err = cli("--help")
    assert (code, err) == (0, "")
    assert {"compress", "demo", "export", "list", "show", "train"} <= verbs().keys()
    for verb, does in verbs().items():
        assert re.search(rf"^  {verb} +{re.escape(does)}$", out, re.MULTILINE)
        assert does.endswith(".")
    assert time.perf_counter() - began < 10  # loaded machines too; test_light holds that no torch is imported
    assert cli("--version")[1] == f"shoal {shoal.__version__}\n"


@pytest.mark.parametrize("verb", verbs())
def test_help_is_the_docstring(verb: str, cli: CommandLine) -> None:
    code, out, err = cli(verb, "--help")
    assert (code, err) == (0, "")
    assert verbs()[verb] in " ".join(out.split())
    assert "--json" in out


def test_lists(cli: CommandLine) -> None:
    found = json.loads(cli("list", "--json")[1])
    assert found.keys() == KINDS.keys()
    assert found["blocks"]["conv"] == KINDS["blocks"].summary("conv")
    assert "mnist" in cli("list", "data")[1].split()
    papers = json.loads(cli("list", "papers", "--json")[1])["papers"]
    assert "wirings.grouped" in next(p for p in papers if p["id"] == "make-deep-networks-shallow-again")["methods"]


def test_a_spec_is_shown_with_its_wiring(cli: CommandLine) -> None:
    code, out, err = cli("show", "grouped[size=2](mlp) 4x8")
    assert (code, err) == (0, "")
    drawn = [line.split() for line in out.splitlines() if re.match(r"\s+(\d+ mlp|out) ", line)]
    assert drawn == [
        ["1", "mlp", "o"],
        ["2", "mlp", "o", "."],
        ["3", "mlp", "o", "o", "o"],
        ["4", "mlp", "o", "o", "o", "."],
        ["out", "o", "o", "o", "o", "o"],
    ]


def test_train_show_export_compress(cli: CommandLine, workplace: Path) -> None:
    code, out, err = cli(*TRAIN, "--out", "trained", "--json", cwd=workplace)
    assert (code, err) == (0, "")
    told = json.loads(out)
    report = told["report"]
    assert told["folder"] == "trained"
    assert {row["name"] for row in report["baselines"]} == {"linear", "boosting"}
    assert all(row["word"] in ("better", "equivalent", "worse", "unclear") for row in report["baselines"])
    assert report["test"]["quality"]["low"] <= report["test"]["quality"]["value"] <= report["test"]["quality"]["high"]
    assert "report.html" in os.listdir(workplace / "trained")
    assert not (workplace / "trained.part").exists()

    code, out, err = cli("show", "trained", cwd=workplace)
    assert (code, err) == (0, "")
    assert "each as it was saved" in out
    assert "residual(mlp[hidden=8]) 4x8" in " ".join(out.split())

    code, _, err = cli("export", "trained", "--format", "onnx", "--out", "net.onnx", cwd=workplace)
    assert (code, err) == (0, "")
    session = onnxruntime.InferenceSession(workplace / "net.onnx")
    [given] = session.get_inputs()
    assert session.run(None, {given.name: np.zeros((5, 3), dtype=np.float32)})[0].shape == (5, 2)

    words = ("--to", "depth<=6", "--keep", "-20pt", "--no-controls", "--out", "small")
    code, out, err = cli("compress", "trained", *words, cwd=workplace)
    assert code in (0, 3), err  # whether so few rows prove the floor is not of this test
    assert (code == 0) == (err == "")
    assert "depth<=6" in out
    facts = json.loads((workplace / "small" / "report.json").read_text(encoding="utf-8"))
    assert facts["after"]["depth"] <= 6


def test_a_module_of_ones_own_is_compressed_and_what_it_prints_stays_out(cli: CommandLine, workplace: Path) -> None:
    (workplace / "short.json").write_text('{"epochs": 1}', encoding="utf-8")
    words = ("--to", "depth<=5", "--keep", "-1pt", "--no-controls", "--recipe", "short.json", "--out", "mine", "--json")
    code, out, err = cli("compress", "mine.py:layers", "mine.py:rows", *words, cwd=workplace)
    assert code in (0, 3), err
    assert json.loads(out)["report"]["after"]["depth"] <= 5
    facts = json.loads((workplace / "mine" / "shoal.json").read_text(encoding="utf-8"))
    assert facts["recipe"]["base"] == "mine.py:layers"
    code, _, err = cli("compress", "mine", "mine.py:rows", cwd=workplace)
    assert code == 2
    assert "--base mine.py:layers" in err


def test_a_goal_out_of_reach_is_exit_4(cli: CommandLine, workplace: Path) -> None:
    words = ("--to", "params<=1%", "--keep", "-1pt", "--no-controls", "--recipe", "short.json", "--out", "far")
    (workplace / "short.json").write_text('{"epochs": 1}', encoding="utf-8")
    code, _, err = cli("compress", "mine.py:layers", "mine.py:rows", *words, cwd=workplace)
    assert code == 4
    assert err.splitlines()[-1].startswith("shoal: not reached: params<=1%")
    assert (workplace / "far" / "shoal.json").is_file()


def _heeds_ctrl_c() -> None:
    """A shell that starts the tests in the background has its children ignore Ctrl-C; this one must not."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.skipif(os.name == "nt", reason="no SIGINT to a process there")
def test_an_interrupted_training_is_saved_and_goes_on(cli: CommandLine, workplace: Path) -> None:
    words = [*TRAIN[:-1], "100000", "--no-baselines", "--out", "long"]
    with (workplace / "said").open("w") as said:
        begun = subprocess.Popen(
            [sys.executable, "-m", "shoal", *words],
            cwd=workplace,
            stdout=said,
            stderr=said,
            preexec_fn=_heeds_ctrl_c,
        )
        until = time.monotonic() + 300
        while not (workplace / "long.part" / "checkpoint.safetensors").exists() and time.monotonic() < until:
            time.sleep(0.05)
        begun.send_signal(signal.SIGINT)
        assert begun.wait(300) == 130, (workplace / "said").read_text()
    before = json.loads((workplace / "long" / "report.json").read_text(encoding="utf-8"))
    assert before["stopped"] == "interrupt"
    code, _, err = cli(*words, "--resume", "--within", "30s", cwd=workplace)
    assert (code, err) == (0, "")
    after = json.loads((workplace / "long" / "report.json").read_text(encoding="utf-8"))
    assert after["stopped"] == "seconds"
    kept = [{**row, "seconds": 0} for row in before["history"][:-1]]
    assert [{**row, "seconds": 0} for row in after["history"][: len(kept)]] == kept
    assert len(after["history"]) > len(before["history"])
    assert not (workplace / "long.part").exists()


def test_a_bug_is_one_line_and_says_so(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import shoal.commands\nshoal.commands.verbs = lambda: 1 / 0\n", encoding="utf-8"
    )
    code, out, err = cli("list", PYTHONPATH=str(tmp_path))
    assert (code, out) == (1, "")
    assert err.startswith("shoal: bug: ZeroDivisionError")
    assert len(err.splitlines()) == 1
    assert "Traceback" in cli("list", PYTHONPATH=str(tmp_path), SHOAL_DEBUG="1")[2]


def test_a_reader_that_goes_away_is_no_bug(tmp_path: Path) -> None:
    command = f"{sys.executable} -m shoal list | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.stderr == ""


@pytest.mark.parametrize(("text", "wanted"), [("90s", 90), ("2min", 120), ("1.5 h", 5400), ("2m", 120)])
def test_durations(text: str, wanted: float) -> None:
    assert seconds(text) == wanted


@pytest.mark.parametrize("text", ["", "90", "0s", "-5s", "2 days", "nan s", "1e3s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(BadSetting, match="write a number above 0 and a unit"):
        seconds(text)


def test_plain_and_columns() -> None:
    assert plain({"a": float("nan"), "b": (1, float("inf")), "c": None}) == {"a": None, "b": [1, None], "c": None}
    assert columns(["n", "word"], [(1200, "a"), (None, "b")]) == "    n  word\n1,200  a\n    -  b"
