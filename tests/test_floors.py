"""The house: imports go down only, also inside functions; methods do not know each other; nothing is unpickled.

The table below is the design's. A new file or folder under src/shoal needs a line in it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from shoal.kinds import KINDS

SHOAL = Path(__file__).resolve().parent.parent / "src" / "shoal"

FLOORS = {
    1: ["core", "kinds"],  # kinds.py is a mere list of folder names, and core/spec.py needs it
    2: ["stems", "blocks", "linears", "norms", "wirings", "joins", "heads", "tasks", "data", "integers"],
    3: ["net", "nets", "costing", "dataflow", "anatomy", "coupling", "evidence"],
    4: [
        "building",
        "matching",
        "training",
        "edits",
        "recipe",
        "interventions",
        "intervening",
        "measures",
        "exits",
        "chains",
        "testing",
    ],
    5: ["artifact", "compressors", "strategies", "goals", "report", "verdicts", "predicting"],
    6: ["compression", "compressed", "shrinking", "analysis", "analyzed", "depth_curve", "span_table", "searching"],
    7: ["studies"],
    8: ["commands", "estimators"],
    9: ["", "__main__"],  # the face: shoal/__init__.py
}

# Between units of one floor nothing is imported, except:
BESIDE = {
    ("core", "kinds"): "a Spec is made of the kinds' parts",
    ("kinds", "core"): "a kind is a Kind",
    ("anatomy", "dataflow"): "spans are found by following tensors through one run",
    ("costing", "evidence"): "a latency is a number with its interval",
    ("costing", "net"): "the latency of a spec is predicted from its empty net",
    ("matching", "building"): "a spec that is looked for is completed as one that is built",
    ("training", "building"): "a spec is trained by building its net first",
    ("compression", "shrinking"): "the driver takes one step after another",
    ("analysis", "analyzed"): "an analysis gives what was analyzed",
    ("analysis", "depth_curve"): "an analysis leaves out span after span",
    ("analysis", "span_table"): "an analysis has a table of its spans",
    ("analyzed", "depth_curve"): "what was analyzed has its curve",
    ("compression", "compressed"): "the driver gives a Compression",
    ("compressed", "shrinking"): "a Compression keeps what was weighed and taken",
    ("testing", "intervening"): "the battery stands beside floor 4 and does what every intervention does",
    ("testing", "building"): "the battery stands beside floor 4 and builds nets",
    ("testing", "recipe"): "the battery stands beside floor 4 and replays edits",
    ("testing", "training"): "the battery stands beside floor 4 and trains what it checks",
}

# Folders of methods, one a file. None of them imports a method, its own folder's neither; shared helpers begin with _.
LEAVES = {*KINDS, "nets", "measures", "strategies", "studies", "commands"}

# ... but for a folder that is made of the methods of another, lower one:
MADE_OF = {("compressors", "edits"): "a compressor proposes edits, by their classes"}

NEVER = {
    "pickle": "it runs whatever a file says",
    "dill": "it is a pickle",
    "cloudpickle": "it is a pickle",
    "shelve": "it is a pickle",
    "joblib": "it is a pickle",
    "torchvision": "shoal does without it",
}


@dataclass(frozen=True)
class Import:
    """One import: who asks for whom, in which line, and whether it happens as soon as the module is loaded."""

    module: str
    target: str
    line: int
    at_once: bool

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target}"


@dataclass
class House:
    """A package's modules and their imports, read from the source."""

    root: Path
    floors: Mapping[int, list[str]] = field(default_factory=lambda: FLOORS)
    beside: Mapping[tuple[str, str], str] = field(default_factory=lambda: BESIDE)
    leaves: set[str] = field(default_factory=lambda: LEAVES)

    def __post_init__(self) -> None:
        self.name = self.root.name
        self.trees = {self._module(path): ast.parse(path.read_bytes()) for path in sorted(self.root.rglob("*.py"))}
        self.packages = {self._module(path) for path in self.root.rglob("__init__.py")}
        every = (found for module, tree in self.trees.items() for found in self._imports(module, tree))
        self.imports = list(dict.fromkeys(every))  # several names from one module are one import
        self.floor = {unit: floor for floor, units in self.floors.items() for unit in units}

    def _module(self, path: Path) -> str:
        words = path.relative_to(self.root.parent).with_suffix("").parts
        return ".".join(words[:-1] if words[-1] == "__init__" else words)

    def unit(self, module: str) -> str:
        """The file or folder right under the package that a module belongs to; "" is the package itself."""
        return [*module.split("."), ""][1]

    def is_leaf(self, module: str) -> bool:
        """Whether a module is a method's file."""
        words = module.split(".")
        return len(words) == 3 and words[1] in self.leaves and not words[2].startswith("_")

    def _imports(self, module: str, tree: ast.AST) -> Iterator[Import]:
        for node, at_once in _walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield Import(module, alias.name, node.lineno, at_once)
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    parts = module.split(".")
                    kept = parts[: len(parts) - node.level + (module in self.packages)]
                    base = ".".join([*kept, *([node.module] if node.module else [])])
                for alias in node.names:
                    inner = f"{base}.{alias.name}"
                    if inner == f"{self.name}.__version__":
                        continue  # a constant at the top of the face: all may ask for it
                    yield Import(module, inner if inner in self.trees else base, node.lineno, at_once)

    def own(self) -> list[Import]:
        """The imports of the package's own modules."""
        return [found for found in self.imports if found.target.split(".")[0] == self.name]

    def unknown(self) -> list[str]:
        """Files and folders that no line of the table names."""
        units = {self.unit(module) for module in self.trees} - self.floor.keys()
        return [f"{unit!r} stands on no floor; add it to FLOORS in tests/test_floors.py" for unit in sorted(units)]

    def upward(self) -> list[str]:
        """Imports that go up, or sideways without a reason in the table."""
        found = []
        for one in self.own():
            here, there = self.unit(one.module), self.unit(one.target)
            low, high = self.floor.get(here), self.floor.get(there)
            if here == there or low is None or high is None:
                continue
            if high > low:
                found.append(f"{one}: from floor {low} up to floor {high}")
            elif high == low and (here, there) not in self.beside:
                found.append(f"{one}: both stand on floor {low}, and BESIDE gives no reason")
        return found

    def leafy(self) -> list[str]:
        """Methods that import methods."""
        between = [one for one in self.own() if self.is_leaf(one.module) and self.is_leaf(one.target)]
        return [f"{one}: a method" for one in between if (self.unit(one.module), self.unit(one.target)) not in MADE_OF]

    def circles(self) -> list[list[str]]:
        """Sets of modules that import each other while loading (strongly connected components, Tarjan)."""
        edges: dict[str, list[str]] = {module: [] for module in self.trees}
        for one in self.own():
            if one.at_once and one.target in edges and one.target != one.module:
                edges[one.module].append(one.target)
        index: dict[str, int] = {}
        low: dict[str, int] = {}
        stack: list[str] = []
        found: list[list[str]] = []

        def visit(module: str) -> None:
            index[module] = low[module] = len(index)
            stack.append(module)
            for target in edges[module]:
                if target not in index:
                    visit(target)
                if target in stack:
                    low[module] = min(low[module], low[target])
            if low[module] == index[module]:
                at = stack.index(module)
                circle = sorted(stack[at:])
                del stack[at:]
                if len(circle) > 1:
                    found.append(circle)

        for module in edges:
            if module not in index:
                visit(module)
        return found

    def unsafe(self) -> list[str]:
        """Imports and calls that would run code from a file, or bring in what the house does without."""
        found = [f"{one}: {why}" for one in self.imports if (why := NEVER.get(one.target.split(".")[0]))]
        for module, tree in self.trees.items():
            for node in ast.walk(tree):
                if isinstance(node, ast.Call) and (wrong := _unsafe_call(node)):
                    found.append(f"{module}:{node.lineno} {wrong}")
                if (
                    isinstance(node, ast.ImportFrom)
                    and node.module == "torch"
                    and "load" in {a.name for a in node.names}
                ):
                    found.append(
                        f"{module}:{node.lineno} imports torch.load by name; write torch.load(..., weights_only=True)"
                    )
        return found


def _walk(node: ast.AST, at_once: bool = True) -> Iterator[tuple[ast.AST, bool]]:
    """All nodes; the flag is off inside functions and under TYPE_CHECKING."""
    yield node, at_once
    inside = at_once and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        inside = False
    for child in ast.iter_child_nodes(node):
        yield from _walk(child, inside)


def _unsafe_call(call: ast.Call) -> str:
    said = {word.arg: getattr(word.value, "value", None) for word in call.keywords}
    name = ast.unparse(call.func)
    if name == "torch.load" and said.get("weights_only") is not True:
        return "calls torch.load without weights_only=True"
    if name.endswith(".load") and "allow_pickle" in said and said["allow_pickle"] is not False:
        return f"calls {name} with allow_pickle"
    return f"calls {name}" if name.split(".")[-1] == "read_pickle" else ""


@pytest.fixture(scope="module")
def house() -> House:
    return House(SHOAL)


def test_every_unit_stands_on_a_floor(house: House) -> None:
    assert house.unknown() == []


def test_imports_go_down_only(house: House) -> None:
    assert house.upward() == []


def test_methods_do_not_import_methods(house: House) -> None:
    assert house.leafy() == []


def test_no_circles(house: House) -> None:
    assert house.circles() == []


def test_nothing_is_unpickled(house: House) -> None:
    assert house.unsafe() == []


def test_no_unit_bears_the_name_of_a_verb(house: House) -> None:
    """`import shoal.compress` would put the module in the place of the verb `shoal.compress`."""
    import shoal

    clashes = {house.unit(module) for module in house.trees} & (set(shoal.__all__) - {"__version__"})
    assert not clashes, f"rename src/shoal/{', '.join(clashes)}: a verb has that name"


FINE = {
    "__init__.py": "",
    "core/__init__.py": "",
    "core/a.py": "import math\nfrom shoal.core.b import x\nimport torch\ntorch.load('w', weights_only=True)",
    "core/b.py": "x = 1",
    "blocks/__init__.py": "",
    "blocks/_shared.py": "from shoal.core import a",
    "blocks/mlp.py": "from . import _shared\nfrom shoal.core.a import x",
    "net.py": "def f():\n    from shoal.blocks.mlp import y\n    from shoal import core, __version__",
}

BROKEN = {
    "upward": [
        ("core/c.py", "from shoal.net import Net", "from floor 1 up to floor 3"),
        ("core/c.py", "def f():\n    import shoal.net", "shoal.core.c:2 imports shoal.net"),
        ("core/c.py", "from .. import net", "imports shoal.net"),
        ("core/c.py", "from ..blocks.mlp import y", "imports shoal.blocks.mlp"),
        ("core/c.py", "from shoal import build", "up to floor 9"),
        ("core/__init__.py", "from ..net import Net", "shoal.core:1 imports shoal.net"),
        ("evidence.py", "from shoal.net import Net", "BESIDE gives no reason"),
    ],
    "leafy": [
        ("blocks/conv.py", "from shoal.blocks.mlp import MLP", "shoal.blocks.conv:1 imports shoal.blocks.mlp"),
        ("edits/drop.py", "def f():\n    from shoal.blocks import mlp", "imports shoal.blocks.mlp"),
    ],
    "circles": [("core/b.py", "from shoal.core.a import y", "['shoal.core.a', 'shoal.core.b']")],
    "unknown": [("attic.py", "", "'attic' stands on no floor; add it to FLOORS")],
    "unsafe": [
        ("core/c.py", "import pickle", "imports pickle"),
        ("core/c.py", "def f():\n    from joblib import load", "imports joblib"),
        ("core/c.py", "from torchvision.models import resnet18", "imports torchvision"),
        ("core/c.py", "import torch\ntorch.load('w')", "without weights_only"),
        ("core/c.py", "import torch\ntorch.load('w', weights_only=False)", "without weights_only"),
        ("core/c.py", "from torch import load", "imports torch.load by name"),
        ("core/c.py", "import numpy as np\nnp.load('w', allow_pickle=True)", "allow_pickle"),
        ("core/c.py", "import pandas as pd\npd.read_pickle('w')", "read_pickle"),
    ],
}


def _write(root: Path, files: Mapping[str, str]) -> House:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return House(root)


def test_the_checks_pass_a_sound_house(tmp_path: Path) -> None:
    house = _write(tmp_path / "shoal", FINE)
    assert [getattr(house, check)() for check in BROKEN] == [[]] * len(BROKEN)


@pytest.mark.parametrize(("check", "at"), [(check, at) for check, cases in BROKEN.items() for at in range(len(cases))])
def test_the_checks_find_what_is_wrong(tmp_path: Path, check: str, at: int) -> None:
    file, text, message = BROKEN[check][at]
    found = getattr(_write(tmp_path / "shoal", {**FINE, file: text}), check)()
    assert len(found) == 1
    assert message in str(found[0])


def test_circles_through_functions_or_type_checking_are_none(tmp_path: Path) -> None:
    lazy = "def f():\n    from shoal.core.a import y"
    typed = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from shoal.core.a import y"
    for text in (lazy, typed):
        assert _write(tmp_path / "shoal", {**FINE, "core/b.py": text}).circles() == []
