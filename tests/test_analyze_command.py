"""`shoal analyze`: every kind of target, every kind of data; what it says, writes and refuses."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

import shoal
from shoal import analysis, commands
from shoal.artifact import save
from shoal.commands._listed import listed, size
from shoal.core.errors import BadSetting
from shoal.core.spec import Spec
from shoal.costing import latency, per_span_ms
from shoal.net import Net
from shoal.recipe import Recipe

SPEC = "vector[features=6] | residual(mlp[hidden=8]) 3x8 | pool[outputs=4]"
MODULE = """
import torch
from torch import nn
print("said by a user's file")
class Row(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(8, 12), nn.Linear(12, 8)
    def forward(self, x):
        return x + self.down(torch.tanh(self.up(x)))
class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 8)
        self.last.weight = self.first.weight
    def forward(self, x):
        return self.last(torch.tanh(self.first(x)))
def trained():
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(6, 8), Row(), Row(), Row(), nn.Linear(8, 4))
    nn.init.zeros_(net[2].down.weight), nn.init.zeros_(net[2].down.bias)
    return net
def untrained():
    return nn.Sequential(nn.Linear(6, 8), Row(), Row(), Row(), nn.Linear(8, 4))
def pair():
    return trained(), torch.zeros(2, 6)
def tied():
    return Tied()
def rows():
    x = torch.randn(200, 6, generator=torch.Generator().manual_seed(0))
    return x, trained()(x).argmax(dim=1)
def batches():
    x = torch.randn(120, 6, generator=torch.Generator().manual_seed(0))
    return [{"input": x[:60]}, {"input": x[60:]}]
def narrow():
    return [torch.zeros(8, 3)]
def number():
    return 3
def flat():
    return nn.Sequential(nn.Linear(6, 4))
"""


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A net as a run folder, a .pt2, and a file of a user's own with its weights beside it."""
    folder = tmp_path_factory.mktemp("workplace")
    torch.manual_seed(0)
    save(Net(Spec.parse(SPEC)).eval(), folder / "net", example=torch.rand(2, 6), onnx=False)
    (folder / "net.pt2").write_bytes((folder / "net" / "model.pt2").read_bytes())
    (folder / "ours.py").write_text(MODULE, encoding="utf-8")
    names: dict[str, object] = {}
    exec(MODULE, names)
    made = names["trained"]
    assert callable(made)
    save_file(made().state_dict(), folder / "ours.safetensors")
    save_file({"first.weight": torch.eye(8), "first.bias": torch.ones(8), "last.bias": torch.zeros(8)},
              folder / "tied.safetensors")  # fmt: skip
    torch.save({}, folder / "weights.pt")
    return folder


@pytest.fixture
def run(workplace, monkeypatch, capsys):
    """The command line in this process, as soon as it has its words: (exit code, stdout, stderr)."""
    monkeypatch.chdir(workplace)
    monkeypatch.setattr(analysis, "latency", lambda module, x, seconds: latency(module, x, seconds=0.02))
    monkeypatch.setattr(
        analysis, "per_span_ms", lambda module, x, paths, seconds: per_span_ms(module, x, paths, seconds=0.02)
    )

    def ran(*words: str) -> tuple[int, str, str]:
        code = commands._guarded(list(words))
        out, err = capsys.readouterr()
        return code, out, err.replace("said by a user's file\n", "")

    return ran


@pytest.fixture
def told(run, tmp_path):
    """What --json says of a target."""

    def asked(*words: str) -> dict:
        code, out, err = run("analyze", *words, "--out", str(tmp_path / "out"), "--json")
        assert (code, err) == (0, ""), err
        found = json.loads(out)
        assert json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8")) == found["report"]
        return found["report"]

    return asked


def test_it_says_and_writes_what_was_found(run, tmp_path) -> None:
    out = tmp_path / "found"
    code, said, err = run("analyze", "ours.py:trained", "ours.py:rows", "--interventions", "swap", "--out", str(out))
    assert (code, err) == (0, "")
    text = " ".join(said.split())
    for words in ("Effective depth", "of 3 spans", "latency", "ms now", "left alone", "report.html"):
        assert words in text, words
    assert "dead" in text
    assert sorted(path.name for path in out.iterdir()) == ["report.html", "report.json"]
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "ours.py:trained" in page
    assert "swap" in page


WAYS = {
    "folder": ("net", "ours.py:rows"),
    "pt2": ("net.pt2", "ours.py:rows"),
    "pair": ("ours.py:pair", "ours.py:rows"),
    "package": ("ours:trained", "ours:rows"),
    "weights": ("ours.py:untrained", "ours.py:rows", "--weights", "ours.safetensors"),
    "batches": ("ours.py:trained", "ours.py:batches"),
}


@pytest.mark.parametrize("kind", WAYS)
def test_every_kind_of_target(kind: str, told) -> None:
    report = told(*WAYS[kind], "--interventions", "")
    assert len(report["spans"]) >= 3
    assert {one["intervention"] for one in report["effects"]} == {"skip"}
    if kind not in ("folder", "pt2"):
        assert [row["verdict"] for row in report["spans"]][1] == "dead"
    if kind == "batches":
        assert (report["rows"], report["metric"]["name"], report["quality"]["value"]) == (120, "score", 1.0)
    else:
        assert report["rows"] == 30  # which the data keeps for validation
        assert report["quality"]["value"] == 1.0 or kind in ("folder", "pt2")


def test_a_program_is_taken_apart_as_the_net_that_it_was(told, tmp_path) -> None:
    one = told(*WAYS["folder"], "--interventions", "")
    for path in (tmp_path / "out").iterdir():
        path.unlink()
    other = told(*WAYS["pt2"], "--interventions", "")
    assert other["quality"] == one["quality"]
    harm = {row["path"]: row["harm"] for row in other["spans"]}
    assert all(harm[row["path"]] == pytest.approx(row["harm"], abs=1e-5) for row in one["spans"])


def test_options(told) -> None:
    words = (
        "--keep",
        "-30pt",
        "--rows",
        "25",
        "--interventions",
        "loop[times=3],noise",
        "--memory",
        "64kB",
        "--seed",
        "3",
    )
    report = told("ours.py:trained", "ours.py:rows", *words)
    assert (report["keep"], report["rows"], report["environment"]["seed"]) == ("-30pt", 25, 3)
    assert {one["intervention"] for one in report["effects"]} == {"skip", "loop[times=3]", "noise"}


def test_a_run_folder_knows_its_data(told, workplace) -> None:
    rows = [f"{i % 7},{(i * i) % 11},{i % 5},{'yes' if i % 3 else 'no'}" for i in range(80)]
    (workplace / "table.csv").write_text("\n".join(["a,b,c,d", *rows]), encoding="utf-8")
    net = Net(Spec.parse("vector[features=3] | residual(mlp[hidden=8]) 2x8 | pool[outputs=2]")).eval()
    data = {"name": "table", "source": "table.csv", "target": "d", "fingerprint": None}
    run = SimpleNamespace(module=net, recipe=Recipe(net.spec), example=torch.rand(2, 3), report={}, data=data)
    save(run, workplace / "trained", onnx=False)
    report = told("trained", "--interventions", "")
    assert (report["data"], report["rows"], len(report["spans"])) == ("table", 12, 2)


def test_a_model_of_transformers(told, tmp_path, capsys) -> None:
    transformers = pytest.importorskip("transformers", reason="needs the extra 'huggingface'")
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_inner": 24, "n_positions": 12, "vocab_size": 11}
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, bos_token_id=0, eos_token_id=0))
    model.save_pretrained(tmp_path / "gpt")
    capsys.readouterr()  # it draws a bar
    (tmp_path / "texts.py").write_text(
        "import torch\ndef texts():\n    x = torch.arange(240).view(20, 12) * 7 % 11\n"
        "    return [({'input_ids': x}, x.roll(-1, 1))]\n",
        encoding="utf-8",
    )
    report = told(f"hf:{tmp_path / 'gpt'}", f"{tmp_path / 'texts.py'}:texts", "--interventions", "")
    assert report["metric"]["unit"] == ""
    assert len(report["spans"]) >= 2
    assert report["rows"] == 20


CASES = {
    "spec": (("residual(mlp) 4x32", "digits"), ("residual(mlp) 4x32", "a spec has no weights", "shoal train")),
    "named": (("resnet56", "cifar10"), ("resnet56", "a spec has no weights")),
    "nothing": (("nosuch", "digits"), ("nosuch", "there is no such file", "hf:FOLDER")),
    "pickle": (("weights.pt", "digits"), ("weights.pt", "a pickle can run any code")),
    "other": (("ours.safetensors", "digits"), ("ours.safetensors", "cannot be run from the middle")),
    "no data": (("ours.py:trained",), ("ours.py:trained", "on what?")),
    "odd data": (("ours.py:trained", "nosuch"), ("nosuch", "no such file")),
    "number": (("ours.py:number", "ours.py:rows"), ("ours.py:number", "returned int")),
    "flat": (("ours.py:flat", "ours.py:rows"), ("no part takes a tensor",)),
    "does not run": (("ours.py:trained", "ours.py:narrow"), ("Sequential", "does not run")),
    "weights of a folder": (("net", "ours.py:rows", "--weights", "x"), ("--weights x", "net has its own")),
    "no weights": (("ours.py:trained", "ours.py:rows", "--weights", "x"), ("--weights x", "no such file")),
    "pickled": (("ours.py:trained", "ours.py:rows", "--weights", "weights.pt"), ("weights.pt", "a pickle")),
    "misfit": (("ours.py:flat", "ours.py:rows", "--weights", "ours.safetensors"), ("ours.safetensors", "do not fit")),
    "hf": (("hf:net", "ours.py:rows"), ("hf:net", "no config.json")),
    "keep": (("ours.py:trained", "ours.py:rows", "--keep", "5"), ("keep '5'", "-0.5pt")),
    "measure": (("ours.py:trained", "ours.py:rows", "--measures", "nosuch"), ("nosuch", "is unknown")),
    "change": (("ours.py:trained", "ours.py:rows", "--interventions", "skp"), ("skp", "did you mean 'skip'")),
    "list": (("ours.py:trained", "ours.py:rows", "--interventions", "skip,,"), ("--interventions 'skip,,'",)),
    "memory": (("ours.py:trained", "ours.py:rows", "--memory", "lots"), ("--memory 'lots'", "64MB")),
    "within": (("ours.py:trained", "ours.py:rows", "--within", "soon"), ("--within 'soon'", "90s")),
    "rows": (("ours.py:trained", "ours.py:rows", "--rows", "1"), ("--rows", "1")),
    "taken": (("ours.py:trained", "ours.py:rows", "--out", "net"), ("--out net", "choose another folder")),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_line(case: str, run, workplace) -> None:
    words, names = CASES[case]
    before = sorted(workplace.rglob("*"))
    code, out, err = run("analyze", *words)
    assert (code, out) == (2, ""), err
    assert err.startswith("shoal: ")
    assert len(err.splitlines()) == 1, err
    assert [name for name in names if name not in err] == [], err
    assert sorted(workplace.rglob("*")) == before


def test_weights_that_are_tied_are_written_once(workplace, monkeypatch) -> None:
    from shoal.commands._open_trained import open_trained

    monkeypatch.chdir(workplace)
    module, _ = open_trained("ours.py:tied", Path("tied.safetensors"))
    state = module.state_dict()
    assert torch.equal(state["last.weight"], torch.eye(8))
    assert torch.equal(state["first.bias"], torch.ones(8))


def test_lists_and_sizes() -> None:
    assert listed("skip, loop[times=3]", "--x") == ["skip", "loop[times=3]"]
    assert listed(" ", "--x") == []
    assert (size("64MB", "--x"), size("2 gb", "--x"), size("1.5kB", "--x")) == (64e6, 2e9, 1500)
    for text in ("0MB", "64", "MB"):
        with pytest.raises(BadSetting, match="--x"):
            size(text, "--x")


def test_it_is_a_verb_of_the_package_too() -> None:
    assert shoal.analyze is analysis.analyze
    assert shoal.Analysis is analysis.Analysis
