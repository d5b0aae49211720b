"""Compressions that end early, and data without targets: what is finished stays, and goes on to the same result."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import shoal
from conftest import CommandLine
from shoal import compression
from shoal.compressed import Compression
from shoal.core.errors import BadArtifact, BadData, BadModel, BadSetting
from shoal.data import Dataset, open_data
from shoal.evidence import parse_promise
from shoal.net import Net
from shoal.report import page, tables
from shoal.report.reading import headline
from shoal.shrinking.healing import frozen
from shoal.shrinking.stages import Stages, mark
from shoal.shrinking.warning import rows_for
from small_compression import ASKED, QUICK, Plain, blobs, same, trained


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """No goal here is a latency: it is timed for a moment only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compression, "TIMED", 0.05)
        yield


@pytest.fixture(scope="module")
def data() -> Dataset:
    return open_data(blobs())


@pytest.fixture(scope="module")
def net(data: Dataset) -> Net:
    return trained(data)


@pytest.fixture(scope="module")
def whole(net: Net, data: Dataset) -> Compression:
    """What comes of it where nobody interrupts."""
    return shoal.compress(net, data, **ASKED)


class Killed(BaseException):
    """The process is gone: nothing may catch it."""


def killing(at: int, lines: list[str]) -> Any:
    def progress(line: str) -> None:
        lines.append(line)
        if len(lines) == at:
            raise Killed

    return progress


def test_killed_at_any_line_it_goes_on_to_the_same_result(
    net: Net, data: Dataset, whole: Compression, tmp_path: Path
) -> None:
    lines: list[str] = []
    shoal.compress(net, data, **ASKED, progress=lines.append)
    for at in range(1, len(lines) + 1, 5):
        folder = tmp_path / str(at)
        with pytest.raises(Killed):
            shoal.compress(net, data, **ASKED, checkpoint=folder, progress=killing(at, []))
        again = shoal.compress(net, data, **ASKED, checkpoint=folder, resume=True)
        assert same(again, whole), lines[at - 1]


def test_what_is_finished_is_not_done_again(net: Net, data: Dataset, whole: Compression, tmp_path: Path) -> None:
    first: list[str] = []
    shoal.compress(net, data, **ASKED, checkpoint=tmp_path, progress=first.append)
    later: list[str] = []
    again = shoal.compress(net, data, **ASKED, checkpoint=tmp_path, resume=True, progress=later.append)
    assert same(again, whole)
    assert any(line.startswith("round 1") for line in first)
    assert not any(line.startswith(("round", "plan ")) for line in later)
    assert [one.to_json() for one in again.front[1:-1]] == [one.to_json() for one in whole.front[1:-1]]


SCRIPT = """
import sys, torch
torch.set_num_threads(1)
sys.path.insert(0, {tests!r})
from small_compression import ASKED, blobs, trained
import shoal
from shoal.data import open_data
data = open_data(blobs())
net = trained(data)
print("begun", flush=True)
shoal.compress(net, data, **ASKED, checkpoint={folder!r}, resume=True)
"""


def test_a_process_that_is_killed_goes_on(net: Net, data: Dataset, whole: Compression, tmp_path: Path) -> None:
    """SIGKILL behind a moment drawn at random, as often as it takes to be unlucky once."""
    folder, wait = tmp_path / "work", float(np.random.default_rng().uniform(0.2, 2.0))
    words = [sys.executable, "-c", SCRIPT.format(tests=str(Path(__file__).parent), folder=str(folder))]
    with subprocess.Popen(words, stdout=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"}) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
    again = shoal.compress(net, data, **ASKED, checkpoint=folder, resume=True)
    assert same(again, whole), f"killed after {wait:.2f} s"


@pytest.mark.parametrize("after", [2, 5])
def test_a_full_disk_is_said_and_nothing_is_lost(
    net: Net, data: Dataset, whole: Compression, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    import shoal.training.checkpoint as checkpoint

    write, left = checkpoint.save_file, [after]

    def full(*args: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(*args)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", full)
        with pytest.raises(BadArtifact, match="No space left on device") as caught:
            shoal.compress(net, data, **ASKED, checkpoint=tmp_path / "work")
    assert "\n" not in str(caught.value)
    again = shoal.compress(net, data, **ASKED, checkpoint=tmp_path / "work", resume=True)
    assert same(again, whole)


def test_another_order_does_not_go_on(net: Net, data: Dataset, tmp_path: Path) -> None:
    Stages(tmp_path / "work", {"seed": 1}, resume=False)
    with pytest.raises(BadArtifact, match="begun with another seed"):
        Stages(tmp_path / "work", {"seed": 2}, resume=True)
    Stages(tmp_path / "work", {"seed": 2}, resume=False)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    with pytest.raises(BadArtifact, match="holds something else"):
        shoal.compress(net, data, **ASKED, checkpoint=tmp_path / "mine")
    with pytest.raises(BadSetting, match="no folder to go on from"):
        shoal.compress(net, data, **ASKED, resume=True)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "all of it"


def test_a_mark_tells_weights_apart(net: Net, data: Dataset) -> None:
    other = Net(net.spec)
    assert mark(net) == mark(net)
    assert mark(net) != mark(other)


def test_the_front_holds_all_that_was_seen(whole: Compression) -> None:
    stages = [one.stage for one in whole.front]
    assert stages[0] == "original"
    assert stages[-1] == "final"
    assert stages.count("short") >= 2
    assert all((one.quality is not None) is (one.stage != "planned") for one in whole.front)
    assert whole.front[-1].values["depth"] == whole.after.cost.depth
    report = whole.report
    shown = page(report)
    assert "What was seen on the way" in shown
    assert shown.count('r="5.5"><title>') == sum(one.quality is not None for one in whole.front)
    assert all(one.name in shown for one in whole.front)


@pytest.mark.parametrize("form", ["tensor", "batches", "loader"])
def test_inputs_alone_are_enough(form: str) -> None:
    """Quality is then fidelity to the original, which is taught by nothing else."""
    torch.manual_seed(0)
    net, (x, _) = Plain().eval(), blobs()
    rows: Any = {
        "tensor": x,
        "batches": list(x.split(50)),
        "loader": torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x), batch_size=64),
    }[form]
    found = shoal.compress(
        net, rows, to="depth<=80%", keep="-20pt", recipe=QUICK, compressors=("skip",), controls=False
    )
    assert found.goals_met
    assert found.task.name == "fidelity"
    assert found.before.result.quality.value == pytest.approx(1.0)
    assert 0.5 < found.after.result.quality.value <= 1.0
    with torch.no_grad():
        wanted, got = (module(found.dataset.test.x) for module in (net, found.module))
    cosine = torch.nn.functional.cosine_similarity(wanted.double(), got.double()).mean()
    assert found.after.result.quality.value == pytest.approx(float(cosine), abs=1e-6)


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([["some", "words", "only"]], "batch 0: got list of 3"),
        (["some words"], "must be tensors, or dicts of them, found str"),
        ([torch.ones(20, 6), torch.ones(20, 6), torch.ones(20, 7)], "rows of one shape"),
    ],
)
def test_inputs_that_cannot_be_read(rows: Any, why: str) -> None:
    with pytest.raises(BadData, match=why):
        shoal.compress(Plain().eval(), rows, keep="-20pt")


def test_answers_of_another_shape_are_said_before_any_work() -> None:
    x, y = blobs()
    with pytest.raises(BadData, match=r"asks for 9 numbers a row, Plain gives \(3,\)"):
        shoal.compress(Plain().eval(), (x, 3 * y + 2), recipe=QUICK)
    with pytest.raises(BadModel, match="does not run"):
        shoal.compress(Plain().eval(), (x[:, :5], y), recipe=QUICK)


def test_nothing_is_promised_where_nothing_is_asked(net: Net, data: Dataset) -> None:
    found = shoal.compress(net, data, **{**ASKED, "keep": None}, controls=False)
    assert found.keep is None
    assert found.floor.word == "not promised"
    report = found.report
    assert headline(report).endswith("nothing promised")
    assert report["keep"] == "none"
    assert "not promised" in page(report)
    assert tables(report)
    assert any("nothing is promised" in text for text in found.notes)
    assert parse_promise("none") is None


def test_what_a_test_part_cannot_show_is_said_before_training(net: Net, data: Dataset) -> None:
    lines: list[str] = []
    found = shoal.compress(net, data, **{**ASKED, "keep": "-0.1pt"}, controls=False, progress=lines.append)
    said = next(line for line in lines if "test rows cannot show it" in line)
    assert f"{rows_for(0.001):,}" in said
    assert lines.index(said) < next(i for i, line in enumerate(lines) if "healing" in line)
    assert said.removeprefix("note: ") in found.notes
    assert rows_for(0.01) == 542


def test_what_is_out_of_reach_is_said_with_the_best_that_could_be_had(net: Net, data: Dataset) -> None:
    lines: list[str] = []
    found = shoal.compress(net, data, **{**ASKED, "to": "depth<=1%"}, controls=False, progress=lines.append)
    assert not found.goals_met
    said = next(i for i, line in enumerate(lines) if "out of reach" in line)
    assert said < next(i for i, line in enumerate(lines) if "healing" in line)
    assert any("out of reach: the best that could be had is depth<=1% at" in text for text in found.notes)


def test_frozen_weights_stay(net: Net, data: Dataset) -> None:
    held = Net(net.spec)
    held.load_state_dict(net.state_dict())
    held.head.requires_grad_(False)
    found = shoal.compress(held, data, **ASKED, controls=False)
    assert isinstance(found.module, Net)
    before, after = held.head.state_dict(), found.module.head.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert any("frozen" in text for text in found.notes)
    assert all(name.startswith("head.") for name in frozen(found.healing.net))
    assert frozen(found.healing.net)
    with pytest.raises(BadModel, match="all its weights are frozen"):
        shoal.compress(held.requires_grad_(False), data, **ASKED)


MINE = """
import torch
from small_compression import Plain, blobs
def net():
    torch.manual_seed(0)
    return Plain()
def inputs():
    yield from blobs()[0].split(40)
"""


def test_the_command_line_goes_on_and_promises_nothing(cli: CommandLine, tmp_path: Path) -> None:
    """Inputs alone from a function; a folder of stages that another order left is told, not used."""
    (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
    (tmp_path / "short.json").write_text('{"epochs": 1}', encoding="utf-8")
    asked = ("--to", "depth<=80%", "--keep", "none", "--compressor", "skip", "--no-controls", "--recipe", "short.json")
    words = ("compress", "mine.py:net", "--data", "mine.py:inputs", *asked, "--out", "small", "--resume")
    path = {"PYTHONPATH": str(Path(__file__).parent)}
    Stages(tmp_path / "small.part", {"seed": 9}, resume=False)
    code, _, err = cli(*words, cwd=tmp_path, **path)
    assert code == 2
    assert "begun with another" in err
    shutil.rmtree(tmp_path / "small.part")
    code, out, err = cli(*words, "--json", cwd=tmp_path, **path)
    assert (code, err) == (0, "")
    report = json.loads(out)["report"]
    assert report["floor"]["word"] == "not promised"
    assert report["metric"]["name"] == "cosine"
    assert {row["text"].split()[0] for row in report["edits"]} == {"skip"}
    assert not (tmp_path / "small.part").exists()
