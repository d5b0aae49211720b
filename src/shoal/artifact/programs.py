"""Programs: a module as .pt2 or .onnx, each run from its file on the example and compared with the module.

The batch is any number where torch can express it, else that of the example, and why is said. The example itself is not
kept in a .pt2: it is the user's data, and torch would keep it as a pickle.

Longer than the house's 250 lines by a few: what writes a program and what opens one are read against each other.
"""

from __future__ import annotations

import copy
import importlib
import io
import logging
import re
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.utils._pytree import tree_map, tree_map_only

from shoal.artifact.files import new_file
from shoal.artifact.vetting import looks_pickled, refuse_pickle, vet_program
from shoal.artifact.weights import write_weights
from shoal.core.errors import BadArtifact, BadModel, BadSetting
from shoal.core.example import arguments, failed, tensors, unmarked
from shoal.integers import has_grids, in_integers

if TYPE_CHECKING:
    from onnx import ModelProto

ANSWERS = re.compile(rb"\b(transformers\.(?:modeling_outputs|models\.\w+\.modeling_\w+))\.\w+")
TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 5e-2}
ON_GRIDS = 5e-2  # in integers: where a rounding falls the other way, a number moves by a whole step


@dataclass(frozen=True)
class Program:
    """An exported module; `batch` is None where it may be any, and `why` says why it may not."""

    exported: ExportedProgram
    batch: int | None
    why: str = ""

    def to_json(self) -> dict[str, Any]:
        """``batch``: "any" or the number, with the reason."""
        return {"batch": "any"} if self.batch is None else {"batch": self.batch, "why": self.why}


def export(
    module: nn.Module, example: Any, path: Path | str, format: Literal["pt2", "onnx", "safetensors"] = "pt2"
) -> Path:
    """Write a module as one file; .pt2 and .onnx are run on the example and compared with the module.

    pt2            opens with torch alone: torch.export.load(path).module()
    onnx           opens with onnxruntime
    safetensors    the weights alone; tensors that share memory are written once

    The module is not changed. Raises BadModel where it does not export, or the export gives something else.
    """
    writers = {"pt2": write_pt2, "onnx": write_onnx}
    if format != "safetensors" and format not in writers:
        raise BadSetting(f"format {format!r}: not known; give one of pt2, onnx, safetensors")
    target = Path(path)
    if looks_pickled(target):
        raise BadSetting(f"{target}: its ending is that of a pickle; name it {target.with_suffix('.' + format).name}")
    with new_file(target) as beside:
        if format == "safetensors":
            write_weights(module, beside)
        else:
            writers[format](module, example, program(module, example), beside)
    return target


def program(module: nn.Module, example: Any) -> Program:
    """The module as a graph. Raises BadModel where torch cannot export it."""
    module, example = on_cpu(module, example)
    with unmarked(module), _uncached(module), quiet():
        batch, wide = _two_rows(example)
        try:
            if batch is None:
                raise ValueError("no tensor in the example has a batch")
            any_batch = Dim("batch", min=1)
            # a batch of one would be taken for a constant, so it is exported at two
            rows = 2 if batch == 1 else batch
            shapes = tree_map(lambda leaf: {0: any_batch} if _rows(leaf) == rows else None, wide)
            found = Program(_exported(module, wide, shapes), None)
        except Exception as free:  # torch raises anything here; without a free batch it may still go, and why is kept
            try:
                found = Program(_exported(module, example, None), batch or 0, _first_line(free))
            except Exception as error:
                raise failed(module, error, "does not export", "see torch.export for what a graph can hold") from error
    found.exported.example_inputs = None
    return found


def write_pt2(module: nn.Module, example: Any, made: Program, path: Path) -> str:
    """Save a program, open the file again, and compare; how near it came."""
    whole = io.BytesIO()  # torch aborts the process where it cannot write to the disk
    with quiet():
        torch.export.save(made.exported, whole)
    path.write_bytes(whole.getbuffer())
    again = load_program(path)
    args, kwargs = arguments(on_cpu(module, example)[1])
    # the module runs second, on the random numbers that follow: one that draws some in eval mode is found out
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        found = tensors(again(*args, **kwargs))
        wanted = _run(*on_cpu(module, example))
    return _agree(module, found, wanted, ".pt2")


def write_onnx(module: nn.Module, example: Any, made: Program, path: Path) -> str:
    """Save a program as ONNX, run it in onnxruntime and compare; how near it came. Raises BadModel where it cannot."""
    import onnxruntime

    try:
        with quiet():
            translated = torch.onnx.export(made.exported, dynamo=True, verbose=False)
            assert translated is not None  # it is None only where a file is given
            proto = in_integers(_traceless(translated.model_proto))
            path.write_bytes(proto.SerializeToString())
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
        args, kwargs = arguments(on_cpu(module, example)[1])
        names = [given.name for given in session.get_inputs()]
        values = tensors((args, kwargs))
        if len(names) != len(values):
            raise ValueError(f"it takes {len(names)} inputs where the example has {len(values)}")
        found = session.run(None, {name: value.numpy() for name, value in zip(names, values, strict=True)})
    except OSError:  # a full disk is no fault of the module
        raise
    except Exception as error:  # onnxruntime and the translation raise classes of their own, dozens of them
        raise failed(module, error, "does not go into ONNX", "use the .pt2") from error
    least = ON_GRIDS if has_grids(proto) else 1e-4
    return _agree(module, [torch.from_numpy(each) for each in found], _run(*on_cpu(module, example)), "ONNX", least)


def _traceless(proto: ModelProto) -> ModelProto:
    """The model without the lines and paths of the user's source, which torch notes beside each node."""
    for nodes in (proto.graph.node, *(function.node for function in proto.functions)):
        for node in nodes:
            kept = [(note.key, note.value) for note in node.metadata_props if not note.key.endswith("stack_trace")]
            del node.metadata_props[:]
            for key, value in kept:
                node.metadata_props.add(key=key, value=value)
    return proto


def load_program(path: Path | str) -> nn.Module:
    """The module in a .pt2, in the mode it was exported in (eval). Nothing is unpickled.

    Raises BadArtifact for a file that is damaged, holds what could run code, or is of another torch.
    """
    file = Path(path)
    refuse_pickle(file)
    if not file.is_file():
        raise BadArtifact(f"{file}: there is no such file; give a .pt2")
    written = vet_program(file)
    try:
        with quiet():
            _meet_answers(file)
            return torch.export.load(file).module(check_guards=False)  # guards are Python code
    except Exception as error:  # torch raises AssertionError, KeyError, its own ... for what it cannot read
        here = torch.__version__
        fix = "save it again" if written == here else f"install torch {written}, or load the folder with its base"
        raise BadArtifact(
            f"{file}: written by torch {written}, cannot be read by torch {here} ({_first_line(error)}); {fix}"
        ) from error


def _meet_answers(file: Path) -> None:
    """Import the modules of transformers whose classes the answers of a program are: torch knows them by that."""
    with zipfile.ZipFile(file) as archive:
        texts = [archive.read(name) for name in archive.namelist() if name.endswith("models/model.json")]
    for name in sorted({found.decode() for text in texts for found in ANSWERS.findall(text)}):
        importlib.import_module(name)


def on_cpu(module: nn.Module, example: Any) -> tuple[nn.Module, Any]:
    """Module and example on the CPU, where files are written for; copies if they are elsewhere."""
    away = any(tensor.device.type != "cpu" for tensor in [*module.parameters(), *module.buffers()])
    moved = tree_map_only(Tensor, lambda tensor: tensor.detach().cpu(), example)
    return (copy.deepcopy(module).cpu() if away else module), moved


def _exported(module: nn.Module, example: Any, shapes: Any) -> ExportedProgram:
    args, kwargs = arguments(example)
    if isinstance(shapes, dict) and isinstance(example, Tensor):
        shapes = (shapes,)
    with torch.no_grad():
        return torch.export.export(module, args, kwargs, dynamic_shapes=shapes, strict=False)


def _rows(leaf: Any) -> int | None:
    return leaf.shape[0] if isinstance(leaf, Tensor) and leaf.dim() else None


def _two_rows(example: Any) -> tuple[int | None, Any]:
    """The batch of an example (the rows of its first tensor), and the example with two rows where it is one."""
    batch = next((rows for leaf in tensors(example) if (rows := _rows(leaf)) is not None), None)
    if batch != 1:
        return batch, example
    return batch, tree_map(lambda leaf: torch.cat((leaf, leaf)) if _rows(leaf) == 1 else leaf, example)


def _run(module: nn.Module, example: Any) -> list[Tensor]:
    args, kwargs = arguments(example)
    with unmarked(module), _uncached(module), torch.no_grad():
        return tensors(module(*args, **kwargs))


def _agree(module: nn.Module, found: list[Tensor], wanted: list[Tensor], what: str, least: float = 0.0) -> str:
    """``bit for bit`` or ``within 1e-05``; BadModel where they are further apart."""
    name = type(module).__name__
    if [each.shape for each in found] != [each.shape for each in wanted]:
        raise BadModel(f"{name} as {what}: its outputs have other shapes than the module's; do not use that export")
    if all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True)):
        return "bit for bit"
    within = max([least, *(TOLERANCES.get(each.dtype, 0.0) for each in wanted)])
    for one, other in zip(found, wanted, strict=True):
        gap, size = float((one.double() - other.double()).abs().max()), float(other.double().abs().max())
        if not gap <= within * max(size, 1.0):
            raise BadModel(
                f"{name} as {what}: its outputs are {gap:.3g} from the module's, {within * max(size, 1.0):.3g} is "
                "allowed; does it draw random numbers in eval mode? do not use that export"
            )
    return f"within {within:g}"


@contextmanager
def _uncached(module: nn.Module) -> Iterator[None]:
    """A model of transformers as it answers without a cache of keys and values beside it: no graph holds one."""
    configs = {id(config): config for part in module.modules() if (config := getattr(part, "config", None)) is not None}
    caching = [config for config in configs.values() if getattr(config, "use_cache", None) is True]
    for config in caching:
        config.use_cache = False
    try:
        yield
    finally:
        for config in caching:
            config.use_cache = True


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


@contextmanager
def quiet() -> Iterator[None]:
    """torch's exporters warn and log about their own internals, never of anything that a module could mend."""
    loggers = [logging.getLogger(name) for name in ("torch.export", "torch.onnx._internal.exporter._registration")]
    levels = [each.level for each in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for each in loggers:
            each.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for each, level in zip(loggers, levels, strict=True):
                each.setLevel(level)
