"""`shoal cost` and `shoal probe`: every kind of target told alike, exactly; bad input in one line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from conftest import CommandLine
from shoal import commands
from shoal.artifact import export, load_program, save
from shoal.commands import _costing, _target
from shoal.commands._inputs import Given, Input, drawn, read_input
from shoal.commands._program_target import program_target
from shoal.core.errors import BadSetting
from shoal.core.spec import Spec
from shoal.costing import cost
from shoal.costing.predicting import probing
from shoal.costing.predicting.kernels import Sample
from shoal.costing.predicting.probing import Probed, probe_file
from shoal.costing.timing.roofline import Roof
from shoal.net import Net

SPEC = "convolution[channels=1] | residual(conv, attention) 2x8 | pool[outputs=10]"
ROOF = Roof(1e9, 1e9, 1)
MODULE = """
import torch
from torch import nn
print("said by a user's file")
def module():
    return nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 4))
def pair():
    return module(), torch.zeros(3, 6)
def twice():
    tied = nn.Linear(4, 4)
    return nn.Sequential(tied, nn.ReLU(), tied), torch.zeros(3, 4)
def number():
    return 3
def broken():
    raise KeyError("no such thing")
"""


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    """The same net as a run folder, a .pt2 and an .onnx, and a file of a user's own."""
    folder = tmp_path_factory.mktemp("workplace")
    torch.manual_seed(0)
    save(Net(Spec.parse(SPEC)).eval(), folder / "net", example=torch.rand(1, 6, 6, 1))
    for ending in ("pt2", "onnx"):
        (folder / f"net.{ending}").write_bytes((folder / "net" / f"model.{ending}").read_bytes())
    (folder / "mine.py").write_text(MODULE, encoding="utf-8")
    (folder / "broken.onnx").write_bytes((folder / "net.onnx").read_bytes()[:2000])
    return folder


@pytest.fixture
def run(workplace, monkeypatch, capsys):
    """The command line in this process, as soon as it has its words: (exit code, stdout, stderr)."""
    monkeypatch.chdir(workplace)
    monkeypatch.setattr(_costing, "measure_roof", lambda threads: ROOF)
    monkeypatch.setattr(_target, "SECONDS", 0.01)

    def ran(*words):
        code = commands._guarded(list(words))
        out, err = capsys.readouterr()
        return code, out, err

    return ran


@pytest.fixture
def told(run):
    """What --json says of a target."""

    def asked(*words):
        code, out, err = run("cost", *words, "--json")
        assert (code, err.replace("said by a user's file\n", "")) == (0, ""), err
        return json.loads(out)

    return asked


WAYS = {
    "spec": (SPEC, "--input", "1x6x6x1"),
    "folder": ("net",),
    "pt2": ("net.pt2",),
    "onnx": ("net.onnx",),
}


@pytest.mark.parametrize("kind", WAYS)
def test_one_net_costs_the_same_however_it_is_named(kind, told):
    found = told(*WAYS[kind], "--no-time")
    wanted = cost(Net(Spec.parse(SPEC)), torch.rand(1, 6, 6, 1))
    assert (found["kind"], found["on"], found["latency"], found["roof"]) == (kind, "1x6x6x1", None, None)
    assert [found["cost"][key] for key in ("macs", "depth")] == [wanted.macs, wanted.depth]
    assert (found["cost"]["uncounted"], found["lower_bound"]) == ([], False)
    layers = {(call.path, call.type): call.macs for call in wanted.calls if call.macs}
    assert {(x["path"], x["type"]): x["macs"] for x in found["layers"] if x["macs"]} == layers
    if kind != "onnx":
        shapes = {call.path: [list(call.input_shape), list(call.output_shape)] for call in wanted.calls if call.macs}
        assert {x["path"]: [x["input_shape"], x["output_shape"]] for x in found["layers"] if x["macs"]} == shapes
    assert sum(x["share"] for x in found["layers"]) == pytest.approx(1)
    if kind != "onnx":  # where constants are weights too
        assert found["cost"]["params"] == wanted.params
        assert sum(x["params"] for x in found["layers"]) == wanted.params


@pytest.mark.parametrize("kind", WAYS)
def test_batches(kind, told):
    words = ("--batch", "3") if kind != "spec" else ()
    found = told(*[word.replace("1x6x6x1", "3x6x6x1") for word in WAYS[kind]], *words, "--no-time")
    assert found["on"] == "3x6x6x1"
    assert found["cost"]["macs"] == 3 * cost(Net(Spec.parse(SPEC)), torch.rand(1, 6, 6, 1)).macs


@pytest.mark.parametrize("kind", WAYS)
def test_the_roof(kind, told):
    found = told(*WAYS[kind], "--threads", "1")
    seconds = found["latency"]["median"] / 1e3
    assert found["latency"]["runtime"] == ("onnxruntime" if kind == "onnx" else "eager")
    assert found["roof"] == json.loads(json.dumps(ROOF.to_json()))
    assert found["standing"]["macs_share"] == pytest.approx(found["cost"]["macs"] / 1e9 / seconds)
    for layer in found["layers"]:
        assert layer["least_ms"] >= 1e3 * max(layer["macs"], layer["moved"]) / 1e9 - 1e-12
        assert layer["by"] in ("compute", "memory", "overhead")
        if kind == "onnx":
            assert layer["ms"] is None
        else:
            assert layer["reach"] == pytest.approx(layer["least_ms"] / layer["ms"])
            assert layer["above_ms"] == pytest.approx(max(0.0, layer["ms"] - layer["least_ms"]))
    above = sorted((x["above_ms"] for x in found["layers"] if x["above_ms"]), reverse=True)
    by_path = {x["path"]: x["above_ms"] for x in found["layers"]}
    assert [by_path[path] for path in found["farthest"]] == above[:3]
    assert len(found["farthest"]) == (0 if kind == "onnx" else 3)


def test_the_table(run):
    code, out, err = run("cost", *WAYS["spec"])
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].endswith("pool[outputs=10], on 1x6x6x1")
    row = r"stages\.0\.layers\.0\.block +Conv +1x6x6x8 => 1x6x6x8 +1,1\d\d +\S+ k +\d+\.\d% +\S+ +\d+% +compute"
    assert re.search(row, out)
    begins = ["total ", "latency ", "roof ", "reached ", "farthest "]
    assert [begin for begin in begins if not any(line.startswith(begin) for line in lines)] == []
    assert len(re.findall(r"could save .+ of .+ at best \(\w+\)", out)) == 3
    assert all(len(line) <= 160 for line in lines)


def test_a_long_table_is_cut_to_what_matters(run):
    words = ("cost", "vector[features=4] | residual(mlp) 8x8 | pool[outputs=2]", "--input", "1x4", "--no-time")
    cut, whole = run(*words)[1], run(*words, "--all")[1]
    assert len(re.findall(r"^stages\.0\.", cut, re.MULTILINE)) <= 20
    [left_out] = re.findall(r"and (\d+) smaller layers \(--all shows them\)", cut)
    assert len(whole.splitlines()) == len(cut.splitlines()) - 1 + int(left_out)


def test_open_specs_and_data(told):
    found = told("residual(conv) 2x8", "--data", "digits", "--batch", "5", "--no-time")
    assert found["on"] == "5x8x8x1"
    assert found["name"] == "convolution[channels=1] | residual(conv) 2x8 | pool[outputs=10]"


def test_the_column_to_learn_is_no_input(told, workplace):
    rows = "".join(f"{at % 5},{at % 3},{'yes' if at % 2 else 'no'}\n" for at in range(60))
    (workplace / "table.csv").write_text(f"a,b,word\n{rows}", encoding="utf-8")
    found = told("plain(mlp) 1x4", "--data", "table.csv", "--target", "word", "--no-time")
    assert (found["on"], found["cost"]["macs"]) == ("1x2", 2 * 4 + 2 * 4 * 16 + 4 * 2)


@pytest.mark.parametrize(
    ("words", "macs"),
    [
        (("mine.py:pair",), 3 * (24 + 16)),
        (("mine.py:module", "--input", "2x6"), 2 * (24 + 16)),
        (("mine:pair",), 3 * (24 + 16)),
        (("torch.nn:Identity", "--input", "1x3"), 0),
        (("tokens[vocabulary=9,length=4] | residual(mlp) 1x8 | pool[outputs=2]", "--input", "1x4:int64"), None),
    ],
    ids=lambda each: each[0] if isinstance(each, tuple) else "",
)
def test_code_and_tokens(words, macs, told):
    found = told(*words, "--no-time")
    assert macs is None or found["cost"]["macs"] == macs


def test_a_layer_that_is_called_twice_is_one_row(told, run):
    found = told("mine.py:twice", "--no-time")
    assert [(x["path"], x["calls"], x["params"], x["macs"]) for x in found["layers"]] == [
        ("0", 2, 20, 96),
        ("1", 1, 0, 0),
    ]
    assert "0 x2" in run("cost", "mine.py:twice", "--no-time")[1]


class Stranger(nn.Module):
    """Layers called twice, work of its own, two inputs by name, and a recurrent layer."""

    def __init__(self):
        super().__init__()
        self.embed, self.map = nn.Embedding(10, 8), nn.Linear(8, 8)
        self.steps = nn.LSTM(8, 4, batch_first=True)

    def forward(self, x, *, ids):
        rows = x.shape[0]
        h = self.map(x.reshape(rows * 3, 8)).reshape(rows, 3, 8) + self.embed(ids)
        h = self.map(h @ h.mT @ h)
        return {"steps": self.steps(h)[0], "sum": h.sum()}


def test_a_strangers_program_is_told_by_its_layers(tmp_path):
    torch.manual_seed(0)
    net, example = Stranger().eval(), {"x": torch.rand(2, 3, 8), "ids": torch.zeros(2, 3, dtype=torch.long)}
    loaded = load_program(export(net, example, tmp_path / "net.pt2"))
    found = program_target("pt2", "net.pt2", loaded, Given(batch=2))
    wanted = cost(net, example)
    assert (found.on, found.cost.macs, found.cost.depth) == ("2x3x8, 2x3:int64", wanted.macs, wanted.depth)
    by_layer = {layer.path: (layer.type, layer.params, layer.macs) for layer in found.layers}
    in_torch = dict.fromkeys(by_layer, 0)
    for call in wanted.calls:
        in_torch[call.path] += call.macs
    assert {path: macs for path, (_, _, macs) in by_layer.items()} == in_torch
    assert by_layer["map"] == ("Linear", 72, 2 * 6 * 64)
    assert by_layer["steps"][:2] == ("LSTM", 16 * 8 + 16 * 4 + 32)
    assert sum(macs for macs, _ in found.operations) == wanted.macs
    assert [layer.path for layer in found.layers] == ["", "map", "embed", "steps"]
    shapes = {call.path: call.input_shape for call in reversed(wanted.calls)}
    assert {layer.path: layer.input_shape for layer in found.layers} == shapes
    times = found.time(1)
    assert times.ms is not None
    assert times.ms.keys() == by_layer.keys()


def test_the_shapes_of_a_program_may_be_said(told, run):
    assert told("net.pt2", "--input", "4x6x6x1", "--no-time")["on"] == "4x6x6x1"
    code, out, err = run("cost", "net.pt2", "--input", "4x6x7x1")
    assert (code, out) == (2, "")
    assert "the program takes x as ?x6x6x1:float32" in err


def test_inputs_as_they_are_written():
    assert read_input("1x8x8x1") == Input((1, 8, 8, 1), None)
    assert str(read_input("2x16:int64")) == "2x16:int64"
    assert drawn(Input((2, 3), "int64")).tolist() == [[0, 0, 0], [0, 0, 0]]
    assert drawn(Input((2, 3), "bfloat16")).dtype == torch.bfloat16
    assert torch.equal(drawn(Input((5,))), drawn(Input((5,))))
    for text in ("", "8x", "1x0", "1x8:float", "1 x 8", "-1x8", "1x8:int64:int64"):
        with pytest.raises(BadSetting, match="is no shape; write 1x8x8x1"):
            read_input(text)


BAD = [
    (("none.onnx",), ("none.onnx", "no such file", "give an .onnx")),
    (("none.pt2",), ("none.pt2", "no such file")),
    (("broken.onnx",), ("broken.onnx", "truncated", "export it again")),
    (("nowhere",), ("'nowhere'", "no such file", "package.module:function")),
    (("residul(conv) 2x8", "--data", "digits"), ("residul", "residual")),
    (("residual(conv) 2x8",), ("no stem", "--data")),
    ((SPEC,), ("on what?", "--input 1x8x8x1")),
    ((SPEC, "--input", "1x6x6x5"), ("Net", "does not run", "give an example")),
    ((SPEC, "--input", "1x6,6"), ("--input '1x6,6'", "write 1x8x8x1")),
    ((SPEC, "--input", "1x6x6x1", "--batch", "2"), ("--input", "leave --data and --batch out")),
    (("net", "--data", "digits"), ("--data digits", "leave --data out")),
    (("net.onnx", "--input", "1x6x6x2"), ("1x6x6x2", "?x6x6x1")),
    (("net.onnx", "--input", "1x6x6x1:int64"), ("1x6x6x1:int64", "takes 1x6x6x1")),
    (("mine.py:module",), ("mine.py:module", "no example", "--input")),
    (("mine.py:modul",), ("modul", "did you mean 'module'?")),
    (("mine.py:number",), ("mine.py:number", "returned int", "torch.nn.Module")),
    (("mine.py:pair", "--batch", "2"), ("--batch 2", "leave it out")),
    (("mine:modul",), ("mine:modul", "did you mean 'module'?")),
    (("mine:broken",), ("mine:broken", "KeyError", "correct it")),
    (("nowhere.at.all:make",), ("nowhere.at.all:make", "no such module", "install it")),
    (("net.pt2", "--input", "1x6x6x1", "--input", "2"), ("2 shapes", "takes 1 tensors (x)")),
    (("mine.py",), ("mine.py", "is a single file")),
]


@pytest.mark.parametrize(("words", "names"), BAD, ids=[" ".join(words) for words, _ in BAD])
def test_bad_input_is_one_line(words, names, run):
    code, out, err = run("cost", *words)
    assert (code, out) == (2, ""), err
    [line] = [line for line in err.splitlines() if line != "said by a user's file"]
    assert line.startswith("shoal: ")
    assert [name for name in names if name not in line] == [], line


def test_the_real_command_line(cli: CommandLine, workplace):
    code, out, err = cli("cost", "mine:pair", "--json", "--threads", "1", cwd=workplace)
    assert (code, err) == (0, "said by a user's file\n")
    found = json.loads(out)
    assert found["cost"]["macs"] == 120
    assert found["roof"]["macs_per_s"] > 0
    code, out, err = cli("cost", "broken.onnx", cwd=workplace)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert not (workplace / "__pycache__").exists()


@pytest.fixture
def kept(monkeypatch, tmp_path):
    """What probes are made of, and where they are kept; nothing is timed."""
    monkeypatch.setenv("SHOAL_CACHE", str(tmp_path))

    def made(runtime="eager", *, threads, seconds=100.0, progress=None):
        samples = tuple(Sample(family, "aten.mm", (1.0, 2.0), 0.1) for family in ("product", "product", "other"))
        found = Probed(
            "a machine", torch.__version__, threads, runtime, seconds, 0.1, samples, (1.0,), (0.1, 0.0, -0.2)
        )
        found.write(probe_file(runtime, threads))
        return found

    monkeypatch.setattr(probing, "probe", made)
    return tmp_path


def test_a_probe_is_kept(run, kept):
    words = ("probe", "--threads", "1", "--runtime", "onnxruntime", "--seconds", "7")
    code, out, err = run(*words)
    assert (code, err) == (0, "")
    assert "timed   3 operations (2 product, 1 other) and 3 nets in 7 s" in out
    assert f"error   {np.exp(0.1) - 1:.1%}" in out
    assert f"kept in {probe_file('onnxruntime', 1)}" in out
    again = json.loads(run("probe", "--threads", "1", "--runtime", "onnxruntime", "--json")[1])
    assert (again["anew"], again["seconds"], again["operations"]) == (False, 7, {"product": 2, "other": 1})
    fresh = json.loads(run(*words[:-1], "9", "--fresh", "--json")[1])
    assert (fresh["anew"], fresh["seconds"]) == (True, 9)


def test_a_damaged_probe_is_done_again(run, kept):
    run("probe", "--threads", "1")
    probe_file("eager", 1).write_text("{", encoding="utf-8")
    code, out, _ = run("probe", "--threads", "1")
    assert code == 0
    assert "it is done again" in out


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("--runtime", "warp"), ("--runtime 'warp'", "onnxruntime")),
        (("--seconds", "0"), ("--seconds 0", "at most 120")),
        (("--seconds", "500"), ("--seconds 500", "at most 120")),
        (("--threads", "0"), ("--threads",)),
    ],
)
def test_probe_refuses(words, names, run):
    code, out, err = run("probe", *words)
    assert (code, out) == (2, "")
    assert [name for name in names if name not in err] == [], err
