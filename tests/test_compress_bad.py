"""What can go wrong with a compression is said in one line, before any training where it can be; nothing is lost."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import shoal
from conftest import CommandLine
from shoal import compression
from shoal.artifact import describe, save
from shoal.commands._folders import forget, place, unfinished
from shoal.compressed import Compression
from shoal.core.errors import BadArtifact, BadModel, BadSetting, OutOfReach
from shoal.core.folders import vanish
from shoal.core.spec import Spec
from shoal.data import Dataset, open_data
from shoal.evidence import floor, parse_keep
from shoal.net import Net
from shoal.shrinking.stages import Stages, mark, written
from shoal.shrinking.warning import losses_for, rows_wanted
from shoal.training import train
from shoal.training.checkpoint import FILE, Checkpoint
from shoal.training.engine import Engine
from small_compression import ASKED, QUICK, Plain, blobs, same, trained

pty = pytest.importorskip("pty")  # where there is none, there is no Ctrl-C for another process either
resource = pytest.importorskip("resource")


def numbers(rows: int = 360) -> tuple[Tensor, Tensor]:
    x, _ = blobs(rows)
    noise = torch.randn(rows, 1, generator=torch.Generator().manual_seed(1))
    return x, x[:, :1] - x[:, 1:2] + 0.3 * noise


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


# What cannot be worked with is said before anything is weighed.


class Halved(nn.Module):
    """Answers once for the whole batch."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Plain()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).mean(0, keepdim=True)


def held() -> nn.Module:
    """It counts under a lock, of which there is no second one."""
    made = Plain()
    made.__dict__["lock"] = threading.Lock()
    return made


def fixed() -> nn.Module:
    return Plain(change=lambda net, y: y.view(1, 3) if net.training is False else y)


def silent() -> nn.Module:
    return Plain(change=lambda net, y: y.detach())


def picky() -> nn.Module:
    def raising(net: nn.Module, y: Tensor) -> Tensor:
        if net.training:
            raise RuntimeError("give labels in training")
        return y

    return Plain(change=raising)


WRONG: list[tuple[str, Callable[[], nn.Module], str]] = [
    ("another width", lambda: nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 3)), r"does not run on 54 rows of .*\(6,\)"),
    ("another type", lambda: nn.Sequential(nn.Embedding(9, 3), nn.Linear(3, 3)), "does not run on .*float32"),
    ("one row alone", fixed, "does not run on 54 rows of .*shape '.1, 3.'"),
    ("one answer for all", Halved, "answers 54 rows with 1"),
    ("no numbers", lambda: Plain(change=lambda net, y: {"a": "b"}), "there is no tensor of numbers in it"),
    ("nothing finite", lambda: Plain(change=lambda net, y: y / 0), "are not finite"),
    ("no weights", lambda: nn.Sequential(nn.Tanh(), nn.Tanh()), "has no weights"),
    ("all frozen", lambda: Plain().requires_grad_(False), "all its weights are frozen"),
    ("no copy", held, "cannot be copied: .*lock.*; keep only weights"),
    ("no gradient", silent, "cannot be trained, so nothing could be healed: .*grad"),
    ("no training", picky, "cannot be trained, so nothing could be healed: give labels in training"),
]


@pytest.mark.parametrize(("make", "why"), [each[1:] for each in WRONG], ids=[each[0] for each in WRONG])
def test_a_module_that_cannot_be_compressed(make: Callable[[], nn.Module], why: str, tmp_path: Path) -> None:
    lines: list[str] = []
    with pytest.raises(BadModel, match=why) as caught:
        shoal.compress(make().eval(), blobs(), **ASKED, progress=lines.append, checkpoint=tmp_path / "work")
    assert "\n" not in str(caught.value)
    assert ";" in str(caught.value), "no fix is said"
    assert lines == []
    assert not (tmp_path / "work").exists()


def test_a_share_of_no_loss_is_said_before_any_work() -> None:
    """The targets are the module's own answers."""
    net, (x, _) = Plain(1).eval(), blobs()
    y = net(x).detach()
    with pytest.raises(BadSetting, match=r"keep \+1%: the loss of Plain .* is 0.*inputs alone"):
        shoal.compress(net, (x, y), to="depth<=50%", keep="+1%", recipe=QUICK, compressors=("skip",))


def test_a_module_without_spans_names_each_place_with_its_reason() -> None:
    net = nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, 3))
    with pytest.raises(OutOfReach, match=r"nothing was found that can be taken out to reach depth<=50%") as caught:
        shoal.compress(net, blobs(), **ASKED)
    said = str(caught.value)
    assert "1, 3: it has no matrix of weights" in said
    assert all(f"{place}: it changes the shape" in said for place in "024")
    assert "\n" not in said


# A floor that the held-out rows cannot show: said before training, and behind it with the rows that could.


def test_a_floor_on_a_loss_that_cannot_be_shown_is_said_before_training() -> None:
    lines: list[str] = []
    asked: dict[str, Any] = {"to": "depth<=90%", "recipe": QUICK, "compressors": ("skip",), "controls": False}
    found = shoal.compress(Plain(1).eval(), numbers(), **asked, keep="+0.1%", progress=lines.append)
    said = next(line for line in lines if "test rows show it only where the loss of a row changes by less" in line)
    assert re.match(r"note: keep \+0\.1%: \d+ test rows show", said)
    assert said.removeprefix("note: ") in found.notes
    assert lines.index(said) == 0
    assert losses_for(0.01, np.ones(9)) == math.ceil((1.6448536 * 0.2 / 0.01) ** 2)


@settings(deadline=None, max_examples=40)
@given(st.integers(20, 200), st.integers(0, 8), st.sampled_from(["-5pt", "-12pt", "+20%"]), st.integers(0, 99))
def test_so_many_rows_would_have_shown_it(rows: int, lost: int, keep: str, seed: int) -> None:
    random, promise = np.random.default_rng(seed), parse_keep(keep)
    if promise.points is not None:
        a, b = np.ones(rows), np.r_[np.zeros(lost), np.ones(rows - lost)]
    else:
        a = -random.exponential(1, rows)
        b = a * (1 + 0.02 * lost * random.random(rows))
    found = floor(a, b, promise)
    wanted = rows_wanted(found.difference, promise)
    kept = (b - a).mean() > -promise.points if promise.points is not None else b.mean() > 1.2 * a.mean()
    assert (wanted is not None) == (found.word == "inconclusive" and kept)
    if wanted is not None:
        times = math.ceil(1.1 * wanted / rows) + 1
        assert wanted >= rows
        assert floor(np.tile(a, times), np.tile(b, times), promise).word == "pass"


# On disk.


def test_what_goes_takes_its_name_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    (tmp_path / "work" / "in").mkdir(parents=True)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda path: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            vanish(tmp_path / "work")
    assert not (tmp_path / "work").exists()
    (tmp_path / "work").mkdir()
    vanish(tmp_path / "work")
    vanish(tmp_path / "work")
    assert list(tmp_path.iterdir()) == []


def test_what_was_begun_is_not_lost_unless_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    out = Path("small")
    unfinished(out).mkdir()
    with pytest.raises(BadSetting, match=r"small\.part.*go on with --resume, or begin anew with --overwrite"):
        place(out, "net")
    assert place(out, "net", resume=True) == place(out, "net", overwrite=True) == out
    first = place(None, "net")
    unfinished(first).mkdir(parents=True)
    assert place(None, "net") == first.with_name("net-2")
    assert place(None, "net", resume=True) == first
    for left in (".small-partial-0a", ".small-old-0a", ".smaller-partial-0a"):
        Path(left).mkdir()
    forget(out)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".smaller-partial-0a", "runs"]
    out.mkdir()
    (out / "shoal.json").touch()
    with pytest.raises(BadSetting, match="is finished, there is nothing to go on with"):
        place(out, "net", resume=True)


def test_an_order_that_was_never_finished_is_begun_anew(tmp_path: Path) -> None:
    """Killed, or out of room, while the very first file was written."""
    (tmp_path / "order").mkdir()
    (tmp_path / "order" / f"{FILE}.partial").write_bytes(b"half")
    for resume in (True, False):
        assert Stages(tmp_path, {"seed": 1}, resume=resume).get("original") is None
    (tmp_path / "order" / FILE).unlink()
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(BadArtifact, match="holds something else"):
        Stages(tmp_path, {"seed": 1}, resume=True)


def test_a_training_goes_on_from_its_own_network_only(net: Net, data: Dataset, tmp_path: Path) -> None:
    """An interrupted plan must not lend its weights to another one that has the same shapes."""
    one, other = Net(net.spec), Net(net.spec)

    def objective(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(model(x), y)

    stages = Stages(tmp_path / "work", {"seed": 0}, resume=False)
    stages.train("healing", one, data, QUICK, 0, objective)
    again = stages.train("healing", other, data, QUICK, 0, objective)
    assert mark(again.net) == mark(train(other, data, QUICK, objective=objective).net)


@pytest.mark.parametrize(
    ("error", "fix"),
    [
        (OSError(28, ""), "make room there, then go on with --resume"),
        (PermissionError(13, ""), "name a folder that can"),
    ],
)
def test_what_cannot_be_written_says_why(error: OSError, fix: str, tmp_path: Path) -> None:
    with pytest.raises(BadArtifact, match=f"{tmp_path}: cannot be written .*{fix}"), written(tmp_path):
        raise error


# Ctrl-C, by the library: at the moments between, and in the middle of every training.


@pytest.mark.parametrize("moment", ["original:", "plan 2", "short healing 1", "healed"])
def test_ctrl_c_between(moment: str, net: Net, data: Dataset, whole: Compression, tmp_path: Path) -> None:
    lines: list[str] = []

    def pressed(line: str) -> None:
        lines.append(line)
        if line.startswith(moment):
            signal.raise_signal(signal.SIGINT)

    try:
        found = shoal.compress(net, data, **ASKED, checkpoint=tmp_path, progress=pressed)
    except KeyboardInterrupt:
        assert not moment.startswith("plan")
    else:
        assert found.interrupted
        assert found.report["interrupted"]
        assert any(text.startswith("interrupted") for text in found.notes)
        assert found.controls == ()
    after = lines[next(i for i, line in enumerate(lines) if line.startswith(moment)) + 1 :]
    assert not any(line.startswith(("healing", "short", "control")) for line in after)
    assert same(shoal.compress(net, data, **ASKED, checkpoint=tmp_path, resume=True), whole)


def test_ctrl_c_while_learning(
    net: Net, data: Dataset, whole: Compression, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, press, step = [0], [-1], Engine.step

    def counted(engine: Engine) -> Any:
        made[0] += 1
        if made[0] == press[0]:
            signal.raise_signal(signal.SIGINT)
        return step(engine)

    monkeypatch.setattr(Engine, "step", counted)
    shoal.compress(net, data, **ASKED)
    every = made[0]
    for part in (0.1, 0.5, 0.9):  # a short healing, the healing, a control
        made[0], press[0] = 0, 2 + int(part * (every - 2))  # the first step of all shows that it can be trained
        work = tmp_path / str(part)
        found = shoal.compress(net, data, **ASKED, checkpoint=work)
        assert found.interrupted
        assert made[0] == press[0], "it went on learning"
        made[0], press[0] = 0, -1
        assert same(shoal.compress(net, data, **ASKED, checkpoint=work, resume=True), whole), part


# By the command line.

MINE = """
import torch
from small_compression import Plain, blobs
def net():
    return Plain()
def frozen():
    return Plain().requires_grad_(False)
def spanless():
    return torch.nn.Sequential(torch.nn.Linear(6, 7), torch.nn.Tanh(), torch.nn.Linear(7, 3))
def narrow():
    return torch.nn.Sequential(torch.nn.Linear(5, 5), torch.nn.Linear(5, 3))
def rows():
    return blobs()
def many():
    x, y = blobs()
    return x, y * 4
"""
WORDS = ("compress", "mine.py:net", "--data", "mine.py:rows", "--to", "depth<=80%", "--compressor", "skip")
SHORT = (*WORDS, "--recipe", "short.json", "--keep", "none")
BESIDE = {"PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
    (tmp_path / "short.json").write_text('{"epochs": 2}', encoding="utf-8")
    (tmp_path / "some.json").write_text('{"epochs": 1000}', encoding="utf-8")
    (tmp_path / "long.json").write_text('{"epochs": 1000000}', encoding="utf-8")
    return tmp_path


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The mark of what the command line comes to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "mine.py").write_text(MINE, encoding="utf-8")
    (folder / "short.json").write_text('{"epochs": 2}', encoding="utf-8")
    done = begun(folder, *SHORT, "--out", "small")
    assert done.wait(300) == 0, (folder / "said").read_text()
    return outcome(folder / "small")


def outcome(out: Path) -> str:
    """The mark of a run folder that is whole, with nothing left beside it."""
    assert all(file["state"] == "ok" for file in describe(out)["files"].values())
    assert [path.name for path in out.parent.iterdir() if out.name in path.name] == [out.name]
    return mark(shoal.load(out, base=Plain))


def _heeds_ctrl_c() -> None:
    """A shell that starts the tests in the background has its children ignore Ctrl-C; these must not."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def begun(folder: Path, *words: str, largest: int | None = None) -> subprocess.Popen[bytes]:
    """The command line at work; what it says goes to `said`. No file may become larger than so many bytes."""

    def before() -> None:
        _heeds_ctrl_c()
        if largest is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest, resource.RLIM_INFINITY))

    with (folder / "said").open("w") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "shoal", *words],
            cwd=folder,
            env={**os.environ, **BESIDE},
            stdout=subprocess.DEVNULL,
            stderr=said,
            preexec_fn=before,
        )


def there(folder: Path, pattern: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until something of that name is there."""
    until = time.monotonic() + 120
    while not any(folder.glob(pattern)) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.002)
    assert process.poll() is None, (folder / "said").read_text()
    assert any(folder.glob(pattern)), f"no {pattern} came; there are {sorted(folder.rglob('*'))}"


REFUSED = [
    (("mine.py:narrow", "--data", "mine.py:rows"), 2, ("Sequential", "does not run on 54 rows", "give data")),
    (("mine.py:net", "--data", "mine.py:many"), 2, ("asks for 9 numbers a row", "Plain gives (3,)")),
    (("mine.py:frozen", "--data", "mine.py:rows"), 2, ("Plain", "all its weights are frozen", "thaw")),
    (
        ("mine.py:spanless", "--data", "mine.py:rows", "--compressor", "skip"),
        4,
        ("Sequential", "0: it changes the shape", "1: it has no"),
    ),
    (("net", "mine.py:rows"), 2, ("Net", "does not run on 54 rows", "give data")),
    (("mine.py:net", "mine.py:rows", "--data", "mine.py:many"), 2, ("--data mine.py:many", "mine.py:rows is given")),
    (("mine.py:net",), 2, ("compress mine.py:net", "no data to heal and test on", "mine.py:net DATA")),
]


@pytest.mark.parametrize(("words", "code", "names"), REFUSED, ids=[each[0][0] for each in REFUSED])
def test_what_is_refused_is_one_line_and_leaves_nothing(
    words: tuple[str, ...], code: int, names: tuple[str, ...], cli: CommandLine, workplace: Path
) -> None:
    if words[0] == "net":
        spec = Spec.parse("vector[features=4] | residual(mlp[hidden=4]) 2x4 | pool[outputs=3]")
        save(Net(spec).eval(), workplace / "net", example=torch.rand(1, 4), onnx=False)
    before = sorted(str(path) for path in workplace.rglob("*"))
    found, out, err = cli("compress", *words, "--out", "small", cwd=workplace, **BESIDE)
    assert (found, out) == (code, ""), err
    assert len(err.splitlines()) == 1, err
    assert err.startswith("shoal: ")
    assert "Traceback" not in err
    assert [name for name in names if name not in err] == [], err
    assert sorted(str(path) for path in workplace.rglob("*") if "__pycache__" not in path.parts) == before


def test_a_goal_out_of_reach_is_said_on_a_terminal(workplace: Path) -> None:
    """On a terminal: what could be had is told, and at the end exit code 4. The order: ``test_resume_compress``."""
    master, terminal = pty.openpty()
    words = [*SHORT[:5], "depth<=1%", *SHORT[6:], "--no-controls", "--out", "small"]
    with subprocess.Popen(
        [sys.executable, "-m", "shoal", *words],
        cwd=workplace,
        env={**os.environ, **BESIDE, "TERM": "xterm", "COLUMNS": "250"},
        stdout=subprocess.DEVNULL,
        stderr=terminal,
    ) as process:
        os.close(terminal)
        said = _read(master)
    assert process.returncode == 4, said
    told = "out of reach: the best that could be had is depth<=1% at"
    assert told in said
    assert said.index(told) < said.index("not reached")
    assert "not reached: depth<=1%" in said
    assert "Traceback" not in said
    assert describe(workplace / "small")["files"]


def _read(master: int) -> str:
    """All that is written to a terminal, until nobody has it open."""
    said = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:  # so a closed terminal ends on Linux
            part = b""
        if not part:
            os.close(master)
            return " ".join(said.decode(errors="replace").split())
        said += part


def test_a_floor_left_open_says_the_rows_that_could_show_it(cli: CommandLine, workplace: Path) -> None:
    words = [*SHORT[:-2], "--keep", "-0.1pt", "--no-controls", "--out", "small"]
    words[words.index("depth<=80%")] = "depth<=40%"  # so much that something is lost
    code, _, err = cli(*words, "--json", cwd=workplace, **BESIDE)
    assert code == 3
    assert len(err.splitlines()) == 1
    assert "keep -0.1pt: " in err
    assert ("test rows" in err) is ("inconclusive, difference +" in err)


@pytest.mark.parametrize("largest", [8_000, 25_000], ids=["while healing", "while saving"])
def test_a_full_disk_loses_nothing(largest: int, undisturbed: str, workplace: Path) -> None:
    process = begun(workplace, *SHORT, "--out", "small", largest=largest)
    assert process.wait(300) == 2
    said = (workplace / "said").read_text()
    assert len(said.splitlines()) == 1, said
    assert said.startswith("shoal: small")
    assert "cannot be written (File too large); make room there, then go on with --resume" in said
    assert not (workplace / "small").exists()
    assert not list(workplace.rglob("*partial*"))
    for stage in (workplace / "small.part").glob("*/*"):
        assert Checkpoint.load(stage.parent).facts
    assert begun(workplace, *SHORT, "--out", "small", "--resume").wait(300) == 0
    assert outcome(workplace / "small") == undisturbed


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, with room for little."""
    if sys.platform != "linux" or os.geteuid():
        pytest.skip("needs the right to mount a file system")
    (tmp_path / "tiny").mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=110k", "tmpfs", tmp_path / "tiny"], check=False)
    if made.returncode:
        pytest.skip("needs the right to mount a file system")
    yield tmp_path / "tiny"
    subprocess.run(["umount", tmp_path / "tiny"], check=True)


def test_a_file_system_without_room_loses_nothing(tiny: Path, undisturbed: str, workplace: Path) -> None:
    """As before, with a disk that is really full: torch, left to itself, aborts the process there."""
    process = begun(workplace, *SHORT, "--out", "tiny/small")
    assert process.wait(300) == 2, (workplace / "said").read_text()
    said = (workplace / "said").read_text()
    assert len(said.splitlines()) == 1, said
    assert "cannot be written (No space left on device); make room there, then go on with --resume" in said
    assert not list(tiny.rglob("*partial*"))
    assert not (tiny / "small").exists()
    subprocess.run(["mount", "-o", "remount,size=9m", tiny], check=True)
    assert begun(workplace, *SHORT, "--out", "tiny/small", "--resume").wait(300) == 0
    assert outcome(tiny / "small") == undisturbed


def test_killed_while_it_saves_it_goes_on_to_the_same_folder(undisturbed: str, workplace: Path) -> None:
    """``bench/killed.py`` does so at random moments."""
    process = begun(workplace, *SHORT, "--out", "small")
    there(workplace, ".small-partial-*/model.pt2", process)
    process.kill()
    process.wait()
    assert not (workplace / "small").exists()
    assert begun(workplace, *SHORT, "--out", "small").wait(300) == 2
    assert "--resume" in (workplace / "said").read_text()
    assert begun(workplace, *SHORT, "--out", "small", "--resume").wait(300) == 0
    assert outcome(workplace / "small") == undisturbed


@pytest.mark.parametrize(
    ("moment", "recipe"),
    [
        ("original/*", "long.json"),
        ("short-*-training-*/*", "long.json"),
        ("healing-*/*", "some.json"),  # short healings are over before long, and the healing is not
        ("control-*/*", "short.json"),
    ],
)
def test_ctrl_c_ends_it_with_what_is_finished(moment: str, recipe: str, workplace: Path) -> None:
    words = [*WORDS, "--keep", "none", "--recipe", recipe, "--out", "small"]
    process = begun(workplace, *words)
    there(workplace, f"small.part/{moment}", process)
    process.send_signal(signal.SIGINT)
    assert process.wait(300) == 130, (workplace / "said").read_text()  # a million epochs take far longer
    said = (workplace / "said").read_text()
    assert len(said.splitlines()) == 1, said
    assert said.startswith("shoal: interrupted")
    assert "--resume goes on with" in said
    assert (workplace / "small.part").is_dir()
    if "the best so far is in small" in said:
        report = json.loads((workplace / "small" / "report.json").read_text(encoding="utf-8"))
        assert report["interrupted"]
        assert all(file["state"] == "ok" for file in describe(workplace / "small")["files"].values())
    else:
        assert "what is finished is in small.part" in said
        assert not (workplace / "small").exists()
