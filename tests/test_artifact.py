"""Artifacts: saved whole, opened bit for bit equal, and refused where anything is wrong with them."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import shoal.artifact.folder as folder_module
from shoal.artifact import describe, export, load, load_program, save
from shoal.artifact.files import sealed, unsealed
from shoal.core.base import Edit
from shoal.core.errors import BadArtifact, BadModel, BadSetting
from shoal.core.spec import Spec
from shoal.edits.drop import Drop
from shoal.edits.fold import Fold
from shoal.edits.parallel import Parallel
from shoal.net import Net
from shoal.recipe import Recipe

SPECS = [
    "vector[features=6] | residual(mlp[hidden=8]) 3x8 | pool[outputs=3]",
    "vector[features=6] | dense(mlp[hidden=8]) 2x8 | pool[outputs=3]",
    "vector[features=6] | grouped[size=2](gated_mlp[hidden=8] linear=low_rank[rank=2]) 4x8 | pool[outputs=3]",
    "vector[features=6] | plain(mlp[hidden=8] norm=batch) 1x8 - looped(mlp[hidden=8]) 2x8 | pool[outputs=3]",
]
EVIDENCE = {"value": 0.98, "low": 0.97, "high": 0.99, "n": 360, "level": 0.95, "unit": "%"}


class Residual(nn.Module):
    """A layer that carries its own skip."""

    def __init__(self) -> None:
        super().__init__()
        self.map, self.norm = nn.Linear(6, 6), nn.BatchNorm1d(6)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.tanh(self.norm(self.map(x)))


class Stranger(nn.Module):
    """Five residual layers, with two matrices that are one."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(Residual() for _ in range(5)))
        self.head, self.twin = nn.Linear(6, 6), nn.Linear(6, 6)
        self.twin.weight = self.head.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.twin(torch.relu(self.head(self.layers(x))))


class Wild(nn.Module):
    """What no graph can hold: the way through it depends on the numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.map(x) if float(x.sum()) > 0 else x


@dataclass(frozen=True)
class Thing:
    """What a run gives."""

    module: nn.Module
    recipe: Recipe
    example: Any
    report: dict[str, Any]
    data: dict[str, Any] | None = None


EDITS: tuple[Edit, ...] = (
    Fold(pairs=(("layers.1.map", "layers.1.norm"),)),
    Drop(path="layers.0"),
    Parallel(paths=("layers.2", "layers.3")),
)


def a_net(text: str = SPECS[0]) -> Net:
    torch.manual_seed(0)
    return Net(Spec.parse(text)).eval()


def shaken(module: nn.Module) -> nn.Module:
    """The module with weights and statistics that no fresh one has."""
    torch.manual_seed(1)
    with torch.no_grad():
        for value in module.state_dict().values():
            if value.is_floating_point():
                value.add_(torch.rand_like(value))
    return module


def a_thing() -> Thing:
    made = Recipe("models.py:stranger", EDITS).replay(shaken(Stranger())).eval()
    report = {
        "kind": "compression",
        "before": {"quality": EVIDENCE, "params": 246, "latency_ms": {"median": 0.5}},
        "after": {"quality": EVIDENCE, "params": 204, "latency_ms": {"median": 0.25}},
        "keep": "-1pt",
        "floor": {"word": "pass", "difference": {**EVIDENCE, "unit": "pt"}},
        "environment": {"seed": 3},
    }
    return Thing(made, Recipe("models.py:stranger", EDITS), torch.rand(4, 6), report, {"name": "dig|its"})


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A net as a run folder with everything; tests that change it copy it."""
    return save(
        a_net(), tmp_path_factory.mktemp("saved") / "net", example=torch.rand(4, 6), pages={"report.html": "<p>"}
    )


@pytest.fixture
def copied(saved: Path, tmp_path: Path) -> Path:
    (tmp_path / "copy").mkdir()
    for path in saved.iterdir():
        (tmp_path / "copy" / path.name).write_bytes(path.read_bytes())
    return tmp_path / "copy"


def rewrite(folder: Path, **changes: Any) -> None:
    """Change shoal.json and seal it again."""
    facts = unsealed(folder / "shoal.json")
    (folder / "shoal.json").write_text(sealed({**facts, **changes}), encoding="utf-8")


@pytest.mark.parametrize("text", SPECS)
def test_nets_come_back_bit_for_bit(text: str, tmp_path: Path) -> None:
    net = shaken(a_net(text)).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    again = load(save(net, tmp_path / "net", example=torch.rand(4, 6), onnx=False))
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert isinstance(again, Net)
    assert (again.spec, again.training) == (net.spec, False)
    x = torch.rand(7, 6)
    assert torch.equal(again(x), net.eval()(x))


def test_a_net_keeps_its_type(tmp_path: Path) -> None:
    net = a_net().double()
    x = torch.rand(3, 6, dtype=torch.float64)
    assert torch.equal(load(save(net, tmp_path / "net", example=x, onnx=False))(x), net(x))


def test_the_folder_is_whole(saved: Path) -> None:
    names = {"README.md", "model.onnx", "model.pt2", "model.safetensors", "report.html", "shoal.json"}
    assert {path.name for path in saved.iterdir()} == names
    facts = describe(saved)
    assert {state["state"] for state in facts["files"].values()} == {"ok"}
    assert facts["programs"]["model.pt2"] == {"batch": "any", "equal": "bit for bit"}
    assert facts["programs"]["model.onnx"]["batch"] == "any"
    assert facts["example"] == [{"shape": [4, 6], "type": "torch.float32"}]
    assert [path.name for path in saved.parent.iterdir()] == ["net"]


def test_no_pickle_and_no_user_data_inside(saved: Path) -> None:
    with zipfile.ZipFile(saved / "model.pt2") as archive:
        samples = [name for name in archive.namelist() if name.endswith(".pt")]
        assert [archive.read(name) for name in samples] == [b""]
        assert not any(archive.read(name)[:1] == b"\x80" for name in archive.namelist())


def test_the_same_net_gives_the_same_weights_file(saved: Path, tmp_path: Path) -> None:
    again = save(a_net(), tmp_path / "net", example=torch.rand(2, 6), onnx=False)
    name = "model.safetensors"
    assert describe(again)["files"][name] == describe(saved)["files"][name]
    assert (again / name).read_bytes() == (saved / name).read_bytes()


def test_a_stranger_is_replayed_and_filled(tmp_path: Path) -> None:
    thing = a_thing()
    place = save(thing, tmp_path / "run", onnx=False)
    x = torch.rand(5, 6)
    again = load(place, base=lambda: shaken(Stranger()).double())
    assert torch.equal(again(x), thing.module(x))
    assert torch.equal(load(place)(x), thing.module(x))
    assert json.loads((place / "report.json").read_text()) == thing.report
    assert describe(place)["weights"]["same"] == {"twin.weight": "head.weight"}
    with pytest.raises(BadArtifact, match=r"do not go on that base .* give the base that was compressed"):
        load(place, base=lambda: nn.Linear(6, 6))

    class Wider(Stranger):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(6, 7)

    with pytest.raises(BadArtifact, match=r"weights do not fit the base .*other shape \['head"):
        load(place, base=Wider)
    with pytest.raises(BadArtifact, match="base gave a str"):
        load(place, base=lambda: "no module")  # type: ignore[arg-type,return-value]


def test_the_card_says_what_it_is(tmp_path: Path) -> None:
    text = (save(a_thing(), tmp_path / "run", onnx=False) / "README.md").read_text()
    for words in (
        "# run",
        "98.0% [97.0, 99.0] n=360",
        "| parameters | 246 | 204 |",
        "| latency, ms (median) | 0.5 | 0.25 |",
        "**pass**",
        'drop {"branch": false, "layers": [], "path": "layers.0", "written": false}',
        "models.py:stranger",
        "`dig|its`",
        "- seed: 3",
        f"- torch: {torch.__version__}",
        "torch.export.load(",
        "shoal.load(",
        "`model.onnx` is not there: it was not asked for",
    ):
        assert words in text, words


FRESH = """
import sys, torch
net = torch.export.load(sys.argv[1]).module()
x, y = (torch.load(path, weights_only=True) for path in sys.argv[2:])
assert torch.equal(net(x), y)
assert not any(name.split(".")[0] in ("shoal", "safetensors") for name in sys.modules)
"""


def test_the_program_opens_with_torch_alone(saved: Path, tmp_path: Path) -> None:
    net, x = a_net(), torch.rand(9, 6)
    torch.save(x, tmp_path / "x.pt")
    torch.save(net(x).detach(), tmp_path / "y.pt")
    paths = [str(path) for path in (saved / "model.pt2", tmp_path / "x.pt", tmp_path / "y.pt")]
    done = subprocess.run(
        [sys.executable, "-c", FRESH, *paths], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr


def test_examples_of_every_form(tmp_path: Path) -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor, scale: Tensor, shift: Tensor | None = None) -> dict[str, Tensor]:
            return {"y": x * scale if shift is None else x * scale + shift}

    x, scale = torch.rand(1, 6), torch.rand(6)
    for name, example in {"tuple": (x, scale, x), "dict": {"x": x, "scale": scale}}.items():
        place = save(Two(), tmp_path / name, example=example)
        programs = describe(place)["programs"]
        assert programs["model.pt2"]["batch"] == programs["model.onnx"]["batch"] == "any"
    assert torch.equal(load(place)(x=torch.ones(3, 6), scale=scale)["y"], scale.expand(3, 6))


def test_a_batch_that_cannot_be_free_is_said(tmp_path: Path) -> None:
    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.reshape(4, 6) * 2

    place = save(Fixed(), tmp_path / "fixed", example=torch.rand(4, 6), onnx=False)
    program = describe(place)["programs"]["model.pt2"]
    assert program["batch"] == 4
    assert program["why"]
    assert "takes a batch of 4 only" in (place / "README.md").read_text()


@pytest.mark.parametrize(
    "name", ["shoal.json", "model.safetensors", "model.pt2", "model.onnx", "README.md", "report.html"]
)
def test_damage_is_found(copied: Path, name: str) -> None:
    whole = (copied / name).read_bytes()
    middle = len(whole) // 2
    for damaged in (whole[:middle], whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]):
        (copied / name).write_bytes(damaged)
        with pytest.raises(BadArtifact, match=rf"{name}: (is truncated|was changed|carries)"):
            load(copied)
    (copied / name).unlink()
    with pytest.raises(BadArtifact, match=rf"{name}"):
        load(copied)


def test_describe_names_what_changed(copied: Path) -> None:
    (copied / "README.md").write_text("mine")
    (copied / "model.onnx").unlink()
    states = {name: state["state"] for name, state in describe(copied)["files"].items()}
    assert (states["README.md"], states["model.onnx"], states["model.pt2"]) == ("changed", "missing", "ok")


def test_a_hash_names_both(copied: Path) -> None:
    (copied / "model.safetensors").write_bytes(b"")
    with pytest.raises(BadArtifact, match=r"expected sha256 [0-9a-f]{12}, found e3b0c44298fc;"):
        load(copied)


def test_versions_and_lists(copied: Path) -> None:
    files = unsealed(copied / "shoal.json")["files"]
    for changes, message in [
        ({"version": 2}, r"format version 2 is newer than this shoal reads \(1\); upgrade shoal"),
        ({"version": 0}, "version 0 can no longer be read"),
        ({"version": None}, "no version"),
        ({"files": {**files, "../x": "0"}}, "list of files"),
        ({"files": {}}, "list of files"),
        ({"recipe": None}, "has no 'recipe'"),
    ]:
        before = (copied / "shoal.json").read_bytes()
        rewrite(copied, **changes)
        with pytest.raises(BadArtifact, match=message):
            load(copied)
        (copied / "shoal.json").write_bytes(before)


def test_what_is_no_artifact(saved: Path, tmp_path: Path) -> None:
    for place, message in [
        (tmp_path / "none", "does not exist"),
        (tmp_path, "has no shoal.json"),
        (saved / "README.md", "is a single file"),
    ]:
        with pytest.raises(BadArtifact, match=message):
            load(place)
        with pytest.raises(BadArtifact, match=message):
            describe(place)
    with pytest.raises(BadSetting, match="leave out base"):
        load(saved, base=Stranger)


@pytest.mark.parametrize("name", ["net.pt", "net.bin", "disguised.pt2", "disguised"])
def test_pickles_are_refused(tmp_path: Path, name: str) -> None:
    torch.save(a_net(), tmp_path / name)
    for place in (tmp_path / name, tmp_path):
        with pytest.raises(BadArtifact, match=rf"{name}: refused: a pickle can run any code .* as safetensors"):
            load(place)
    with pytest.raises(BadArtifact, match="refused: a pickle"):
        load_program(tmp_path / name)
    torch.save({"a": torch.zeros(1)}, tmp_path / "old", _use_new_zipfile_serialization=False)
    with pytest.raises(BadArtifact, match="refused: a pickle"):
        load(tmp_path / "old")


def doctored(source: Path, target: Path, change: Callable[[str, bytes], bytes], more: dict[str, bytes]) -> Path:
    """A .pt2 with its members changed, as somebody who means harm would."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        root = old.namelist()[0].split("/")[0]
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
        for name, data in more.items():
            new.writestr(f"{root}/{name}", data)
    return target


@pytest.mark.parametrize(
    ("old", "new", "more", "message"),
    [
        (b'"use_pickle": false', b'"use_pickle": true', {}, "holds weights as a pickle"),
        (b'"guards_code": []', b'"guards_code": ["exit(1)"]', {}, ""),
        (b"torch.ops.aten.linear.default", b"torch.hub.load", {}, "calls 'torch.hub.load'"),
        (b"torch.ops.aten.linear.default", b"torch.ops.load_library.__call__", {}, "calls 'torch.ops.load_library"),
        (b"positive=True", b"positive=exit(1)", {}, "no arithmetic"),
        (b"Symbol('", b"().__class__('", {}, "no arithmetic"),
        (b"", b"", {"data/aotinductor/model/x.so": b"x"}, r"holds '\w+/data/aotinductor"),
        (b"", b"", {"data/constants/opaque_obj_0": b"x"}, "opaque_obj_0"),
        (b"", b"", {"data/weights/model.pt": b"x"}, "model.pt"),
        (b'"torch_version": "', b'"torch_version": "9.', {}, ""),
    ],
)
def test_programs_cannot_carry_code(
    saved: Path, tmp_path: Path, old: bytes, new: bytes, more: dict[str, bytes], message: str
) -> None:
    touched = doctored(saved / "model.pt2", tmp_path / "bad.pt2", lambda _, data: data.replace(old, new), more)
    if not message:
        x = torch.rand(3, 6)
        assert torch.equal(load_program(touched)(x), a_net()(x))
        return
    with pytest.raises(BadArtifact, match=message):
        load_program(touched)


def test_sample_inputs_are_not_unpickled(saved: Path, tmp_path: Path) -> None:
    touched = doctored(saved / "model.pt2", tmp_path / "bad.pt2", lambda n, d: b"x" if n.endswith(".pt") else d, {})
    with pytest.raises(BadArtifact, match="sample inputs as a pickle"):
        load_program(touched)


def test_a_program_of_another_torch(saved: Path, tmp_path: Path) -> None:
    def change(name: str, data: bytes) -> bytes:
        version = torch.__version__.encode()
        return data.replace(b'"torch_version": "' + version, b'"torch_version": "9.9').replace(
            b'"major": 8', b'"major": 99'
        )

    touched = doctored(saved / "model.pt2", tmp_path / "new.pt2", change, {})
    with pytest.raises(
        BadArtifact, match=r"written by torch 9\.9, cannot be read by torch .*; install torch 9\.9, or"
    ) as caught:
        load(touched)
    assert "\n" not in str(caught.value)


def test_an_existing_folder_is_kept_unless_asked(copied: Path, tmp_path: Path) -> None:
    x = torch.rand(4, 6)
    with pytest.raises(BadArtifact, match="--overwrite"):
        save(a_net(), copied, example=x, onnx=False)
    assert torch.equal(load(copied)(x), a_net()(x))
    other = shaken(a_net())
    save(other, copied, example=x, overwrite=True, onnx=False)
    assert torch.equal(load(copied)(x), other(x))
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    with pytest.raises(BadArtifact, match="was not written by shoal and is not overwritten"):
        save(other, mine, example=x, overwrite=True, onnx=False)
    (tmp_path / "file").write_text("x")
    with pytest.raises(BadArtifact, match="is no folder"):
        save(other, tmp_path / "file", example=x, overwrite=True, onnx=False)
    (tmp_path / "empty").mkdir()
    save(other, tmp_path / "empty", example=x, onnx=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "empty", "file", "mine"]


def test_a_failure_leaves_nothing(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.rand(4, 6)
    before = {path.name: path.read_bytes() for path in copied.iterdir()}

    def untouched() -> bool:
        return {path.name: path.read_bytes() for path in copied.iterdir()} == before and [
            path.name for path in copied.parent.iterdir()
        ] == ["copy"]

    with pytest.raises(BadModel, match=r"does not export: .*; .*name the base"):
        save(Wild(), copied.parent / "wild", example=x)
    assert untouched()
    with pytest.raises(BadArtifact, match=r"report\.loss\[1\]: is nan"):
        save(Thing(a_net(), Recipe(None), x, {"loss": [1.0, float("nan")]}), copied.parent / "nan")
    with pytest.raises(BadSetting, match=r"page '\.\./x'"):
        save(a_net(), copied.parent / "page", example=x, pages={"../x": ""})
    with pytest.raises(BadSetting, match="no example"):
        save(a_net(), copied.parent / "none")

    def full(*_: object) -> str:
        raise OSError("No space left on device")

    monkeypatch.setattr(folder_module, "card", full)
    for place in (copied, copied.parent / "new"):
        with pytest.raises(OSError, match="No space"):
            save(a_net(), place, example=x, overwrite=True, onnx=False)
        assert untouched()


def test_what_does_not_export_opens_by_its_base(tmp_path: Path) -> None:
    wild = shaken(Wild()).eval()
    place = save(Thing(wild, Recipe("models.py:wild"), torch.rand(4, 6), {}), tmp_path / "wild")
    assert "does not export" in describe(place)["programs"]["model.pt2"]["missing"]
    x = torch.rand(4, 6)
    assert torch.equal(load(place, base=Wild)(x), wild(x))
    with pytest.raises(BadArtifact, match=r"has no model\.pt2"):
        load(place)


def test_export_to_one_file(tmp_path: Path) -> None:
    net, x = a_net(), torch.rand(4, 6)
    export(net, x, tmp_path / "net.pt2")
    assert torch.equal(load(tmp_path / "net.pt2")(x[:3]), net(x[:3]))
    export(net, x, tmp_path / "net.safetensors", "safetensors")
    export(net, x, tmp_path / "net.onnx", "onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.onnx", "net.pt2", "net.safetensors"]
    with pytest.raises(BadSetting, match="format 'tar': not known"):
        export(net, x, tmp_path / "net.tar", "tar")  # type: ignore[arg-type]
    with pytest.raises(BadSetting, match=r"name it net\.pt2"):
        export(net, x, tmp_path / "net.pt")


def test_an_onnx_file_tells_nothing_of_the_source(tmp_path: Path) -> None:
    export(a_net(), torch.rand(4, 6), tmp_path / "net.onnx", "onnx")
    written = (tmp_path / "net.onnx").read_bytes()
    assert b"stack_trace" not in written
    assert b".py" not in written


def test_an_export_that_gives_something_else_is_an_error(tmp_path: Path) -> None:
    class Dice(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.rand(6)

    with pytest.raises(BadModel, match=r"outputs are .* from the module's.* random numbers"):
        export(Dice(), torch.rand(4, 6), tmp_path / "dice.pt2")
    assert list(tmp_path.iterdir()) == []
