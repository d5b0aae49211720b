"""Who counts right: shoal and four other counters against closed forms, multiply-adds of one run in eval.

    python bench/counters.py          counts, prints, and writes results/counters.json, which the documentation shows

The cases are those of tests/closed_forms.py, and models of transformers and PyG. A count is right within 1%. One that
is too small and names operations that it left out is no silent error: shoal does so by `uncounted`, fvcore by its list
of unsupported operators. The others are torch's FlopCounterMode (half its flops), torchinfo and torch-pruning.
They need the extra: pip install -e ".[bench]"
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch_pruning
import torchinfo
from _timing import show, write
from fvcore.nn import FlopCountAnalysis
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
import shoal
from closed_forms import FORMS, Case
from strange_forms import STRANGERS

TOLERANCE = 0.01


class Count(NamedTuple):
    """Multiply-adds, and what was said to be left out."""

    macs: float
    left_out: tuple[str, ...] = ()


def by_shoal(module: nn.Module, example: Any) -> Count:
    """shoal.cost"""
    found = shoal.cost(module, example)
    return Count(found.macs, found.uncounted)


def by_torch(module: nn.Module, example: Any) -> Count:
    """torch.utils.flop_counter"""
    with FlopCounterMode(display=False) as counter:
        _call(module, example)
    return Count(counter.get_total_flops() / 2)


def by_fvcore(module: nn.Module, example: Any) -> Count:
    """fvcore.nn.FlopCountAnalysis, which calls a multiply-add one flop"""
    found = FlopCountAnalysis(module, tuple(_values(example)))
    found.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    return Count(float(found.total()), tuple(found.unsupported_ops()))


def by_torchinfo(module: nn.Module, example: Any) -> Count:
    """torchinfo.summary"""
    given = example if isinstance(example, dict) else list(_values(example))
    return Count(float(torchinfo.summary(module, input_data=given, verbose=0, device="cpu").total_mult_adds))


def by_torch_pruning(module: nn.Module, example: Any) -> Count:
    """torch_pruning.utils.count_ops_and_params, which divides by the batch unless inputs have names"""
    given = example if isinstance(example, dict) else tuple(_values(example))
    macs, _ = torch_pruning.utils.count_ops_and_params(module, given)
    return Count(float(macs) * (1 if isinstance(example, dict) else len(given[0])))


COUNTERS: Mapping[str, Callable[[nn.Module, Any], Count]] = {
    "shoal": by_shoal,
    "FlopCounterMode": by_torch,
    "fvcore": by_fvcore,
    "torchinfo": by_torchinfo,
    "torch-pruning": by_torch_pruning,
}


def _values(example: Any) -> list[Any]:
    if isinstance(example, dict):
        return list(example.values())
    return list(example) if isinstance(example, tuple) else [example]


def _call(module: nn.Module, example: Any) -> Any:
    return module(**example) if isinstance(example, dict) else module(*_values(example))


def counted(case: Case) -> dict[str, dict[str, Any]]:
    """What each counter makes of a case: macs, left_out and verdict; or what it said when it failed."""
    found: dict[str, dict[str, Any]] = {}
    for name, counter in COUNTERS.items():
        try:
            with torch.no_grad():
                count = counter(case.make().eval(), case.example())
        except Exception as error:  # a counter that fails on a case is a result
            said = (str(error).strip() or type(error).__name__).splitlines()[0]
            found[name] = {"verdict": "fails", "error": f"{type(error).__name__}: {said}"}
            continue
        right = abs(count.macs - case.macs) <= TOLERANCE * case.macs
        short = count.macs < case.macs and bool(count.left_out)
        verdict = "right" if right else "short, says so" if short else "wrong"
        found[name] = {"macs": count.macs, "left_out": list(count.left_out), "verdict": verdict}
    return found


def main() -> None:
    """Count, print, write."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.manual_seed(0)
    rows: list[dict[str, Any]] = []
    for name, case in {**FORMS, **STRANGERS}.items():
        rows.append({"case": name, "macs": case.macs, "counters": counted(case)})
    show("multiply-adds; only what is not right is given", [shown(row) for row in rows])
    right = {name: sum(row["counters"][name]["verdict"] == "right" for row in rows) for name in COUNTERS}
    print(", ".join(f"{name}: {count} of {len(rows)} right" for name, count in right.items()))
    packages = ("fvcore", "torchinfo", "torch-pruning", "torch_geometric", "transformers")
    versions = {package: version(package) for package in packages}
    print(f"written: {write('counters', rows, tolerance=TOLERANCE, right=right, versions=versions).name}")


def shown(row: dict[str, Any]) -> dict[str, str]:
    """A row for people: a dot where a counter is right."""
    cells = {"case": row["case"], "macs": f"{row['macs']:,}"}
    for name, found in row["counters"].items():
        wrong = "fails" if "macs" not in found else f"{found['macs']:,.0f}"
        cells[name] = "." if found["verdict"] == "right" else wrong + (", said" if "says" in found["verdict"] else "")
    return cells


if __name__ == "__main__":
    main()
