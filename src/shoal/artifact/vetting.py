"""Vetting: what a file may hold before anything in it is followed.

A pickle runs any code when it is opened, and a .pt2 is a zip in which torch would open pickles, load compiled libraries
and evaluate expressions. So each of its members, operators and expressions must be on a list of what is known to be
harmless; what ``shoal`` writes always is.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shoal.core.errors import BadArtifact

PICKLES = {".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt", ".joblib", ".dill"}
WHY = (
    "refused: a pickle can run any code when it is opened; save the weights as safetensors "
    "(safetensors.torch.save_file(module.state_dict(), 'weights.safetensors')) and give the code that builds the module"
)
MEMBERS = re.compile(
    r"[^/]+/(data/(weights/(weight_\d+|model_weights_config\.json)|constants/(tensor_\d+|model_constants_config\.json)"
    r"|sample_inputs/model\.pt)|models/model\.json|extra/[^/]+|archive_format|archive_version|byteorder|\.data/.+)"
)
OPERATORS = re.compile(
    r"torch\.ops\.(aten|prims|higher_order|quantized|quantized_decomposed)\.[a-z_][\w.]*|torch\.sym_\w+"
    r"|(_operator|math)\.(getitem|add|sub|mul|floordiv|truediv|mod|pow|neg|pos|eq|ne|lt|le|gt|ge|and_|or_|not_"
    r"|trunc|floor|ceil|sqrt)"
)
CALL, QUOTED = re.compile(r"([A-Za-z_]\w*)\s*\("), re.compile(r"'[a-z0-9_]*'")
PROSE = re.compile(r"[\w\s()+*/,.<>=!&|~-]*")


def looks_pickled(path: Path) -> bool:
    """Whether a file bears a pickle's name, or begins as one does, bare or in a zip as torch.save writes it."""
    if path.suffix.lower() in PICKLES:
        return True
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(4)
    if head[:1] == b"\x80" and head[1:2] in (b"\x01", b"\x02", b"\x03", b"\x04", b"\x05"):
        return True
    if head != b"PK\x03\x04":
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name == "data.pkl" or name.endswith("/data.pkl") for name in archive.namelist())
    except zipfile.BadZipFile:
        return False


def refuse_pickle(path: Path) -> None:
    """Raise BadArtifact for a file, or a folder without shoal.json, that is or holds a pickle."""
    inside = sorted(path.iterdir()) if path.is_dir() and not (path / "shoal.json").exists() else []
    for each in [path, *inside]:
        if looks_pickled(each):
            raise BadArtifact(f"{each}: {WHY}")


def vet_program(path: Path) -> str:
    """Raise BadArtifact unless nothing in a .pt2 could run foreign code; the version of torch that wrote it."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
            strange = [name for name in members if not MEMBERS.fullmatch(name) or ".." in name.split("/")]
            if strange:
                raise BadArtifact(f"{path}: holds {strange[0]!r}, which can run code when it is opened; refused")
            texts = {name: archive.read(name) for name in members if name.endswith(".json") and "/extra/" not in name}
            samples = [archive.read(name) for name in members if name.endswith("sample_inputs/model.pt")]
        data = {name: json.loads(text) for name, text in texts.items()}
    except (zipfile.BadZipFile, ValueError, RecursionError, OSError) as error:
        raise BadArtifact(f"{path}: is truncated or no .pt2 ({error}); save it again") from error
    if any(samples):
        fix = "set program.example_inputs = None before torch.export.save, or write it with shoal.export"
        raise BadArtifact(f"{path}: holds sample inputs as a pickle, which can run any code; {fix}")
    program = next((content for name, content in data.items() if name.endswith("models/model.json")), None)
    if not isinstance(program, dict):
        raise BadArtifact(f"{path}: holds no program named 'model'; save it again")
    for content in data.values():
        for key, value in _items(content):
            why = _why_not(key, value)
            if why:
                raise BadArtifact(f"{path}: {why}; refused, it could run any code")
    return str(program.get("torch_version", "unknown"))


def _items(data: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(data, dict):
        for key, value in data.items():
            yield key, value
            yield from _items(value)
    elif isinstance(data, list):
        for value in data:
            yield from _items(value)


def _why_not(key: str, value: Any) -> str:
    if key == "use_pickle" and value is not False:
        return "holds weights as a pickle"
    if key == "target" and isinstance(value, str) and not OPERATORS.fullmatch(value):
        return f"calls {value!r}, which is no operator on tensors"
    if key == "expr_str" and not _harmless(value):
        return f"holds the expression {value!r}, which is no arithmetic"
    return ""


def _harmless(expression: Any) -> bool:
    """Whether it is arithmetic on symbols: no attributes, no dunders, and calls of sympy's capitalised names only."""
    if not isinstance(expression, str):
        return False
    bare = QUOTED.sub("", expression)
    calls = [name for name in CALL.findall(bare) if not name[0].isupper()]
    return bool(PROSE.fullmatch(bare)) and not calls and "__" not in bare and not re.search(r"\.\s*[A-Za-z_]", bare)
