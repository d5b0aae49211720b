"""The documentation is true: examples run and pass the battery as plug-ins, every method has a page, targets exist."""

from __future__ import annotations

import copy
import html
import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from shoal import testing
from shoal.core import kind as registry
from shoal.core.spec import Spec
from shoal.kinds import EDITS, KINDS
from shoal.net import Net, load_net

ROOT = Path(__file__).resolve().parent.parent
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
EXAMPLE = re.compile(r"^### [^\n]*`src/shoal/(\w+)/(\w+)\.py`\n.*?^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
EXAMPLES = {(folder, name): code for folder, name, code in EXAMPLE.findall(CONTRIBUTING)}
METHODS = [each for each in EXAMPLES if each[0] != "edits"]


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The examples of CONTRIBUTING.md, installed as a package with entry points."""
    points: dict[str, list[str]] = {}
    for (folder, name), code in EXAMPLES.items():
        (tmp_path / f"example_{name}.py").write_text(code, encoding="utf-8")
        public = re.findall(r"^class ([A-Z]\w*)", code, re.MULTILINE)
        points.setdefault(folder, []).extend(f"{name} = example_{name}:{cls}" for cls in public)
    info = tmp_path / "examples-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: examples\nVersion: 1.0\n")
    text = "\n".join("\n".join([f"[shoal.{folder}]", *lines]) for folder, lines in points.items())
    (info / "entry_points.txt").write_text(text + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry._plugins.cache_clear()
    yield
    registry._plugins.cache_clear()


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """docs/build.py."""
    monkeypatch.syspath_prepend(ROOT / "docs")
    return importlib.import_module("build")


def test_there_is_an_example_of_each_kind() -> None:
    wanted = {"stems", "blocks", "linears", "norms", "wirings", "joins", "heads", "edits"}
    assert {folder for folder, _ in EXAMPLES} == wanted


@pytest.mark.parametrize(("folder", "name"), EXAMPLES)
def test_examples_are_short(folder: str, name: str) -> None:
    code = EXAMPLES[folder, name].partition("\n\n\n")[2]
    assert len([line for line in code.splitlines() if line.strip()]) <= 25


@pytest.mark.parametrize(("folder", "name"), METHODS)
def test_examples_pass_the_battery(plugins: None, folder: str, name: str) -> None:
    assert name in KINDS[folder].names()
    assert testing.check(KINDS[folder].name, name) == {}


def test_the_edit_does_the_same_to_spec_and_module(plugins: None) -> None:
    spec = Spec.parse("vector[features=5] | residual(mlp) 3x8 | pool[outputs=2]")
    net, x = Net(spec).eval(), torch.randn(4, 5)
    edit = EDITS.get("act")(path="stages.0.layers.1", act="tanh")
    rewritten, applied = load_net(*edit.rewrite(spec, net.state_dict())), edit.apply(copy.deepcopy(net))
    torch.testing.assert_close(rewritten(x), applied(x), rtol=0, atol=0)
    assert not torch.equal(rewritten(x), net(x))


def test_every_method_has_a_page(build: ModuleType, tmp_path: Path) -> None:
    pages = build.build(tmp_path / "site")
    index = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    for folder, kind in KINDS.items():
        for name in kind.names():
            path = tmp_path / "site" / folder / f"{name}.html"
            assert path in pages
            assert f'href="{folder}/{name}.html"' in index
            text = path.read_text(encoding="utf-8")
            assert f"<h1>{name}</h1>" in text
            assert all(f"<code>{setting}</code>" in text for setting in kind.settings(name))
            source = re.search(r'href="([^"]*\.py)"', text)
            assert source
            assert (path.parent / source[1]).is_file()


@pytest.mark.parametrize("name", KINDS["wirings"].names())
def test_a_wiring_is_drawn_from_what_it_reads(build: ModuleType, name: str) -> None:
    reads = build.wiring_of(build.smallest(KINDS["wirings"], name), 16, 4).reads()
    drawn = build.picture(KINDS["wirings"], name)
    assert drawn.count("<circle") == len(reads) + 1
    assert drawn.count("<path") == sum(len(read) for read in reads)


def test_a_drawing_has_the_layers_and_two_ends(build: ModuleType) -> None:
    assert build.picture(KINDS["wirings"], "residual").count("<circle") == 4 + 2


@pytest.mark.parametrize("name", KINDS["blocks"].names())
def test_the_cost_of_a_block_is_counted(build: ModuleType, name: str) -> None:
    text = build.cost_table(KINDS["blocks"], name)
    assert text.count("<tr>") == 4
    assert "Not counted" not in text


def test_the_conventions_of_cost_and_who_counts_right(build: ModuleType, tmp_path: Path) -> None:
    build.build(tmp_path / "site")
    assert 'href="cost.html"' in (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    text = (tmp_path / "site" / "cost.html").read_text(encoding="utf-8")
    for convention in (
        "matrix product",
        "complex numbers",
        "sums over a graph",
        "2.5 N log2 N",
        "layer and group norm",
    ):
        assert convention in text
    found = json.loads((ROOT / "bench" / "results" / "counters.json").read_text(encoding="utf-8"))
    assert len(found["rows"]) >= 25
    assert all(f'<td class="number">{html.escape(row["case"])}</td>' in text for row in found["rows"])
    ours = [row["counters"]["shoal"] for row in found["rows"]]
    assert all(cell["verdict"] == "right" or cell["left_out"] for cell in ours), "a count of ours is silently wrong"


def test_a_docstring_is_taken_apart(build: ModuleType) -> None:
    text = "Name: says < what.\n\n    y = x\n\nMore `code` here.\n\nShapes   x: (batch,\n         dim)\nPapers   a, b"
    doc = build.read_doc(text)
    assert doc.lead == "Says < what."
    assert doc.body == "<pre>y = x</pre>\n<p>More <code>code</code> here.</p>"
    assert doc.facts == {"Shapes": "x: (batch, dim)", "Papers": "a, b"}


@pytest.mark.parametrize("file", ["README.md", "CONTRIBUTING.md", ".ci/run"])
def test_make_targets_exist(file: str) -> None:
    text, makefile = ((ROOT / name).read_text(encoding="utf-8") for name in (file, "Makefile"))
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    shell = "\n".join(re.findall(r"`{1,3}[^`]+`{1,3}", text)) if file.endswith(".md") else text
    assert set(re.findall(r"\bmake ([a-z]+)", shell)) <= targets


@pytest.mark.parametrize("file", ["README.md", "CONTRIBUTING.md"])
def test_links_to_files_hold(file: str) -> None:
    text = re.sub(r"```.*?```", "", (ROOT / file).read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        if "://" not in target and not target.startswith("docs/site"):
            assert (ROOT / target).exists(), target
