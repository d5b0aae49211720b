"""Bad input: exit code 2, one line on stderr that names the thing and a fix, no stdout, nothing half written."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from conftest import CommandLine
from shoal.artifact import save
from shoal.artifact.files import sealed, unsealed
from shoal.core.spec import Spec
from shoal.net import Net

TABLE = "vector[features=3] | residual(mlp[hidden=4]) 2x4 | pool[outputs=2]"
ROWS = [f"{i % 7},{(i * i) % 11},{'yes' if i % 3 else 'no'},{i % 5}.5" for i in range(60)]
MODULE = """
import torch
class Narrow(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.map = torch.nn.Linear(5, 2)
    def forward(self, x):
        return self.map(x)
def narrow():
    return Narrow()
def number():
    return 3
def rows():
    return torch.randn(64, 3), torch.arange(64) % 2
def broken():
    raise KeyError("no such thing")
"""


def table(folder: Path, *, column: Callable[[int], object] | None = None) -> str:
    """A CSV of 60 rows: a, b, word, value; `value` as the function says."""
    rows = ROWS if column is None else [f"{row.rpartition(',')[0]},{column(i)}" for i, row in enumerate(ROWS)]
    (folder / "table.csv").write_text("\n".join(["a,b,word,value", *rows, ""]), encoding="utf-8")
    return "table.csv"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder; tests copy it."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("saved") / "net"
    return save(Net(Spec.parse(TABLE)).eval(), folder, example=torch.rand(1, 3), onnx=False)


@pytest.fixture
def net(saved: Path, tmp_path: Path) -> Path:
    shutil.copytree(saved, tmp_path / "net")
    return tmp_path / "net"


def refused(cli: CommandLine, folder: Path, *words: str, names: tuple[str, ...]) -> None:
    """Run it in the folder and hold it to the contract; `names`: what its one line must name."""
    before = sorted(str(path) for path in folder.rglob("*"))
    code, out, err = cli(*words, cwd=folder)
    assert code == 2, (code, err)
    assert out == ""
    assert "Traceback" not in err
    assert err.startswith("shoal: ")
    assert len(err.splitlines()) == 1, err
    assert [name for name in names if name not in err] == [], err
    after = [str(path) for path in folder.rglob("*") if "__pycache__" not in path.parts]
    assert sorted(after) == before, "something was left behind"


@dataclass(frozen=True)
class Case:
    """Words of the command line, and what the error must name: the thing and the fix."""

    words: tuple[str, ...]
    names: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join(self.words)


LIGHT = [  # found before torch is imported
    Case(("trian",), ("trian", "did you mean train?", "shoal --help")),
    Case(("--fooo",), ("--fooo", "shoal --help")),
    Case(("train", "digits", "--epoch", "3"), ("--epoch", "did you mean --epochs?", "shoal train --help")),
    Case(("train",), ("DATA", "shoal train --help")),
    Case(("train", "digits", "--epochs", "many"), ("--epochs", "many", "shoal train --help")),
    Case(("train", "digits", "--within", "5 parsecs"), ("--within", "5 parsecs", "90s, 2min or 1h")),
    Case(("train", "digits", "--recipe", "none.json"), ("--recipe", "none.json", "give a JSON file")),
    Case(("compress", "net", "--to", "speed<=50%"), ("speed", "latency")),
    Case(("compress", "net", "--to", "half"), ("half", "latency<=50%")),
    Case(("compress", "net", "--runtime", "warp"), ("warp", "onnxruntime")),
    Case(("list", "blok"), ("blok", "did you mean 'blocks'?")),
    Case(("export", "net", "--format", "pickle", "--out", "x"), ("--format", "onnx")),
]

SPECS = [
    ("residul(conv) 2x8", ("wiring", "residul", "residual")),
    ("residual(konv) 2x8", ("block", "konv", "conv")),
    ("residual(conv[size=3]) 2x8", ("size", "known: ")),
    ("residual(conv) 0x8", ("depth 0", "residual(mlp) 1x16")),
]


@pytest.mark.parametrize("case", LIGHT, ids=str)
def test_words(case: Case, cli: CommandLine, tmp_path: Path) -> None:
    refused(cli, tmp_path, *case.words, names=case.names)


@pytest.mark.parametrize(("text", "names"), SPECS, ids=[text for text, _ in SPECS])
def test_specs(text: str, names: tuple[str, ...], cli: CommandLine, tmp_path: Path) -> None:
    refused(cli, tmp_path, "train", "digits", "--spec", text, names=names)


def test_a_file_that_is_not_there(cli: CommandLine, tmp_path: Path) -> None:
    refused(cli, tmp_path, "train", "digitz", names=("digitz", "no such file", "did you mean 'digits'?"))


def test_an_unknown_target(cli: CommandLine, tmp_path: Path) -> None:
    refused(cli, tmp_path, "train", table(tmp_path), "--target", "valu", names=("'valu'", "did you mean 'value'?"))


def test_an_empty_file(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "empty.csv").touch()
    refused(cli, tmp_path, "train", "empty.csv", "--target", "x", names=("empty.csv", "is empty", "give a header line"))


COLUMNS: list[tuple[str, Callable[[int], object], str, tuple[str, ...]]] = [
    ("constant", lambda i: 7.5, "regression", ("value", "constant", "give")),
    ("one class", lambda i: "cat", "classification", ("value", "'cat' in all 60 rows", "give one class")),
    ("nan", lambda i: "nan" if i == 7 else i * 0.5, "regression", ("value", "1 of 60", "fill in or remove")),
    ("infinite", lambda i: "inf" if i == 7 else i * 0.5, "regression", ("value", "infinite")),
    ("text", lambda i: "lots" if i == 7 else i * 0.5, "regression", ("value", "lots")),
]


@pytest.mark.parametrize(("column", "task", "names"), [each[1:] for each in COLUMNS], ids=[each[0] for each in COLUMNS])
def test_targets(
    column: Callable[[int], object], task: str, names: tuple[str, ...], cli: CommandLine, tmp_path: Path
) -> None:
    words = ("train", table(tmp_path, column=column), "--target", "value", "--task", task)
    refused(cli, tmp_path, *words, names=names)


def test_a_keep_that_cannot_be_read(cli: CommandLine, net: Path, tmp_path: Path) -> None:
    words = ("compress", "net", "--data", table(tmp_path), "--target", "word", "--keep", "most of it")
    refused(cli, tmp_path, *words, names=("keep 'most of it'", "-0.5pt"))


def test_a_folder_that_exists(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    refused(cli, tmp_path, "train", "digits", "--out", "mine", names=("mine", "exists already", "--overwrite"))
    words = ("train", "digits", "--out", "mine", "--overwrite")
    refused(cli, tmp_path, *words, names=("mine", "not written by shoal", "choose another"))


def test_a_truncated_and_a_tampered_artifact(cli: CommandLine, net: Path, tmp_path: Path) -> None:
    weights = net / "model.safetensors"
    whole = weights.read_bytes()
    words = ("compress", "net", "--data", table(tmp_path), "--target", "word")
    weights.write_bytes(whole[:-100])
    refused(cli, tmp_path, *words, names=("model.safetensors", "changed", "copy"))
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    refused(cli, tmp_path, "show", "net", names=("model.safetensors", "changed", "copy"))
    facts = net / "shoal.json"
    facts.write_text(facts.read_text(encoding="utf-8").replace("residual", "plain"), encoding="utf-8")
    refused(cli, tmp_path, "export", "net", "--out", "x.pt2", names=("shoal.json", "was changed", "save it again"))


def test_other_versions(cli: CommandLine, net: Path, tmp_path: Path) -> None:
    version = torch.__version__.encode()
    with zipfile.ZipFile(net / "model.pt2") as old, zipfile.ZipFile(tmp_path / "old.pt2", "w") as new:
        for name in old.namelist():
            content = old.read(name).replace(b'"torch_version": "' + version, b'"torch_version": "9.9')
            new.writestr(name, content.replace(b'"schema_version": {"major": ', b'"schema_version": {"major": 9'))
    refused(cli, tmp_path, "show", "old.pt2", names=("old.pt2", "torch 9.9", torch.__version__, "install"))
    (net / "shoal.json").write_text(sealed({**unsealed(net / "shoal.json"), "version": 99}), encoding="utf-8")
    refused(cli, tmp_path, "show", "net", names=("net", "version 99", "upgrade shoal"))


def test_a_pickle(cli: CommandLine, tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(3)}, tmp_path / "model.pt")
    words = ("compress", "model.pt", "--data", "digits")
    refused(cli, tmp_path, *words, names=("model.pt", "a pickle can run any code", "safetensors"))


def test_modules_that_do_not_fit(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MODULE, encoding="utf-8")
    words = ("--data", "mine.py:rows", "--quiet")
    refused(cli, tmp_path, "compress", "mine.py:narrow", *words, names=("Narrow", "does not run on", "give data"))
    refused(cli, tmp_path, "compress", "mine.py:number", *words, names=("mine.py:number", "returned int", "Module"))
    refused(cli, tmp_path, "show", "mine.py:narow", names=("narow", "did you mean 'narrow'?"))
