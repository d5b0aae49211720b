"""`import shoal` and what only lists are light: each is run in a process of its own, which says what it imported."""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

import shoal

HEAVY = ["torch", "numpy", "pandas", "scipy", "sklearn", "onnx", "onnxruntime", "plotly", "optuna", "jinja2"]
VERBS = [name for name in shoal.__all__ if name != "__version__"]


def heavy_after(code: str) -> list[str]:
    """The heavy packages that a fresh Python has imported once it has run some code."""
    say = f"import json, sys; print(); print(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{say}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_check_can_fail() -> None:
    assert heavy_after("import shoal; shoal.Net") != []


@pytest.mark.parametrize(
    "code",
    [
        "import shoal; shoal.__version__; dir(shoal)",
        "from shoal import Part, ShoalError",
        "from shoal.kinds import KINDS\nfor kind in KINDS.values(): [kind.summary(name) for name in kind.names()]",
    ],
)
def test_light_code(code: str) -> None:
    assert heavy_after(code) == []


@pytest.mark.parametrize("arguments", [["list"], ["--help"], ["--version"]], ids=" ".join)
def test_light_commands(arguments: list[str]) -> None:
    code = f"""
import runpy, sys
sys.argv = ["shoal", *{arguments}]
try:
    runpy.run_module("shoal", run_name="__main__")
except SystemExit as end:
    assert not end.code, end.code
"""
    assert heavy_after(code) == []


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_is_there(name: str) -> None:
    found = getattr(shoal, name)
    assert callable(found)
    assert found.__doc__, "a verb says what it does"
    assert getattr(shoal, name) is found


def test_dir_lists_the_verbs_and_no_more() -> None:
    assert dir(shoal) == sorted(shoal.__all__)


def test_an_unknown_verb_lists_the_known() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'compres'; it has .*compress"):
        _ = shoal.compres


def test_type_checkers_see_the_same_verbs() -> None:
    tree = ast.parse(Path(shoal.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    seen = {alias.asname: node.module for node in imports for alias in node.names if alias.name == alias.asname}
    assert seen == shoal._HOME


@pytest.mark.parametrize("name", VERBS)
def test_no_submodule_takes_the_place_of_a_verb(name: str) -> None:
    assert importlib.util.find_spec(f"shoal.{name}") is None


@pytest.mark.parametrize("verbs_first", [True, False], ids=["verbs, modules", "modules, verbs"])
def test_verbs_stay_verbs_in_either_order(verbs_first: bool) -> None:
    ask = ["import shoal", *(f"shoal.{name}" for name in VERBS)]
    load = [f"import {module}" for module in sorted(set(shoal._HOME.values()))]
    check = [f"assert not isinstance(shoal.{name}, types.ModuleType), {name!r}" for name in VERBS]
    heavy_after("\n".join(["import types", *(ask + load if verbs_first else load + ask), *check]))
