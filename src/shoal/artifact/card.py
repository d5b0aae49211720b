"""Card: the README.md of a run folder: what it is, what it does, and the ways to open it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from shoal.evidence import Evidence

HOW = {
    "net": "A network of shoal: the spec in `shoal.json` and the weights in `model.safetensors` are all of it.",
    "edited": "A network compressed by shoal: `shoal.json` holds the edits that lead to it from the original.",
}


def card(facts: Mapping[str, Any], report: Mapping[str, Any], folder: str) -> str:
    """The text, from shoal.json and report.json."""
    parts = [
        f"# {folder}",
        HOW["net" if facts["spec"] else "edited"],
        _what(facts),
        _before_after(report),
        _opening(facts, folder),
        _missing(facts),
        _data(facts),
        _versions(facts, report),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _what(facts: Mapping[str, Any]) -> str:
    weights = facts["weights"]
    lines = [
        f"- model: {_code(facts['model'])}",
        f"- weights: {weights['numbers']:,} numbers, {weights['bytes']:,} bytes",
    ]
    if facts["recipe"]["edits"]:
        base = facts["recipe"]["base"]
        lines.append(f"- base: {_code(base) if isinstance(base, str) else 'the spec under `recipe` in `shoal.json`'}")
        lines.append(f"- edits: {len(facts['recipe']['edits'])}")
        lines += [f"    - {_code(_edit(edit))}" for edit in facts["recipe"]["edits"]]
    return "\n".join(lines)


def _edit(edit: Mapping[str, Any]) -> str:
    return f"{edit['name']} {json.dumps(edit['settings'], sort_keys=True)}"


def _before_after(report: Mapping[str, Any]) -> str:
    before, after = report.get("before"), report.get("after")
    if not isinstance(before, Mapping) or not isinstance(after, Mapping):
        tested = report.get("test")
        quality = tested.get("quality", tested) if isinstance(tested, Mapping) else None
        return f"## Quality\n\nOn the test part: {_quality(quality)}" if isinstance(quality, Mapping) else ""
    rows = ["## Before and after", "", "| | before | after |", "| --- | ---: | ---: |"]
    for key, name in (("quality", "quality"), ("latency_ms", "latency, ms (median)"), ("params", "parameters")):
        if key in before and key in after:
            rows.append(f"| {name} | {_value(before[key])} | {_value(after[key])} |")
    for key, name in (("macs", "multiply-adds"), ("bytes", "bytes"), ("depth", "depth")):
        if key in before and key in after:
            rows.append(f"| {name} | {_value(before[key])} | {_value(after[key])} |")
    floor = report.get("floor")
    if isinstance(floor, Mapping):
        rows += [
            "",
            f"Floor {_line(report.get('keep', ''))}: **{_line(floor['word'])}**, {_quality(floor['difference'])}",
        ]
    return "\n".join(rows)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return _quality(value) if "low" in value else f"{value['median']:.4g}"
    return f"{value:,}" if isinstance(value, int) else _line(value)


def _quality(evidence: Mapping[str, Any]) -> str:
    return str(Evidence.from_json(dict(evidence)))


def _opening(facts: Mapping[str, Any], folder: str) -> str:
    name = json.dumps(folder)
    parts = ["## Opening it"]
    if facts["spec"]:
        parts.append(
            f"With shoal, as the network that it is:\n\n```python\nimport shoal\n\nnet = shoal.load({name})\n```"
        )
    else:
        code = f"import shoal\n\nnet = shoal.load({name}, base=make_model)"
        parts.append(
            "With shoal and the code of the original, as a module that can be trained on "
            f"(`make_model()` gives the module that was compressed, with any weights):\n\n```python\n{code}\n```"
        )
    if "batch" in facts["programs"]["model.pt2"]:
        code = f'import torch\n\nnet = torch.export.load("{folder}/model.pt2").module()'
        parts.append(f"With torch alone:\n\n```python\n{code}\n```")
    if "batch" in facts["programs"]["model.onnx"]:
        code = f'import onnxruntime\n\nsession = onnxruntime.InferenceSession("{folder}/model.onnx")'
        parts.append(f"With onnxruntime:\n\n```python\n{code}\n```")
    if "folder" in facts.get("huggingface", {}):
        code = f'from transformers import AutoModel\n\nmodel = AutoModel.from_pretrained("{folder}/huggingface")'
        parts.append(f"With transformers (this class or the one for its task):\n\n```python\n{code}\n```")
    takes = "; ".join(f"{_named(each)}{each['type']} of shape {each['shape']}" for each in facts["example"])
    return "\n\n".join([*parts, f"It takes: {takes or 'no tensors'}. The first number of a shape is the batch."])


def _named(taken: Mapping[str, Any]) -> str:
    return f"{_code(taken['name'])}, " if "name" in taken else ""


def _missing(facts: Mapping[str, Any]) -> str:
    lines = []
    for name, program in facts["programs"].items():
        if "missing" in program:
            lines.append(f"- `{name}` is not there: {_line(program['missing'])}")
        elif program["batch"] != "any":
            lines.append(f"- `{name}` takes a batch of {program['batch']} only: {_line(program['why'])}")
    if "missing" in facts.get("huggingface", {}):
        lines.append(f"- `huggingface` is not there: {_line(facts['huggingface']['missing'])}")
    return "\n".join(["## Limits", "", *lines]) if lines else ""


def _data(facts: Mapping[str, Any]) -> str:
    data = facts["data"]
    if not data:
        return ""
    lines = [f"- {_line(key)}: {_code(data[key])}" for key in sorted(data) if isinstance(data[key], str | int | float)]
    return "\n".join(["## Data", "", *lines]) if lines else ""


def _versions(facts: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    environment = report.get("environment")
    rest = dict(environment) if isinstance(environment, Mapping) else {}
    lines = [f"- {name}: {version}" for name, version in facts["versions"].items()]
    lines += [f"- {_line(key)}: {_line(value)}" for key, value in sorted(rest.items()) if key not in facts["versions"]]
    return "\n".join(["## Seeds and versions", "", *lines])


def _line(value: Any) -> str:
    """One line of text that Markdown does not read as markup or as a column."""
    text = " ".join(str(value).split())
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>|#" else letter for letter in text)


def _code(value: Any) -> str:
    return "`" + " ".join(str(value).split()).replace("`", "'") + "`"
