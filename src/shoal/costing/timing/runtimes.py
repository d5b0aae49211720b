"""Runtimes: what runs a module, as a call without arguments that can be timed.

eager          the module as it is, in inference mode
compile        torch.compile, for these shapes only
onnxruntime    exported to ONNX, run by onnxruntime with its own threads
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from shoal.core.errors import BadModel, BadSetting
from shoal.core.example import arguments, failed, tensors
from shoal.integers import GRIDS, in_integers

Run = Callable[[], None]
UNEXPORTED = ("does not export to ONNX", "use runtime eager or compile")  # what happened, and the fix


def runner(module: nn.Module, example: Any, runtime: str = "eager", threads: int | None = None) -> Run:
    """A call that runs a module once on an example; building it compiles or exports, and runs it once.

    The module must be in eval mode. `threads` is used by onnxruntime only; the others obey torch.set_num_threads.
    Raises BadSetting for an unknown runtime, BadModel when the module does not run there.
    """
    if runtime not in RUNTIMES:
        raise BadSetting(f"runtime {runtime!r}: not known; give one of {', '.join(RUNTIMES)}")
    run = RUNTIMES[runtime](module, example, threads or torch.get_num_threads())
    try:
        run()
    except Exception as error:
        raise failed(module, error, f"does not run in {runtime}") from error
    return run


def _eager(module: nn.Module, example: Any, threads: int) -> Run:
    args, kwargs = arguments(example)
    wait = torch.cuda.synchronize if any(tensor.is_cuda for tensor in module.parameters()) else None

    def run() -> None:
        with torch.inference_mode():
            module(*args, **kwargs)
        if wait is not None:
            wait()

    return run


def _compiled(module: nn.Module, example: Any, threads: int) -> Run:
    # Many candidates share one class, hence one code object; beyond 8 variants of it torch silently runs eagerly.
    limits = torch._dynamo.config.patch(recompile_limit=1 << 16, accumulated_recompile_limit=1 << 20)
    try:
        with limits, _quiet(DeprecationWarning):
            compiled = torch.compile(module, dynamic=False)
            assert isinstance(compiled, nn.Module)  # a module in, a module out
            run = _eager(compiled, example, threads)
            run()
    except Exception as error:
        fix = "use runtime eager, or install the C++ compiler that torch.compile needs"
        raise failed(module, error, "does not compile", fix) from error
    return run


def _onnx(module: nn.Module, example: Any, threads: int) -> Run:
    args, kwargs = arguments(example)
    with TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        try:
            program = _exported(module, args, kwargs)
            program.save(file)
            if any(node.op_type in GRIDS for node in program.model.graph):
                file.write_bytes(in_integers(program.model_proto).SerializeToString())
        except Exception as error:
            raise failed(module, error, *UNEXPORTED) from error
        session = _session(file, threads)
    wanted = [given.name for given in session.get_inputs()]
    feed = {name: value for name, value in kwargs.items() if name in wanted}
    rest = [name for name in wanted if name not in feed]
    values = tensors(args) + tensors([value for name, value in kwargs.items() if name not in feed])
    if len(rest) != len(values):
        raise BadModel(
            f"{type(module).__name__} in onnxruntime: the export takes {len(rest)} inputs, the example has "
            f"{len(values)}; leave out of the example what the module does not use"
        )
    return _call(session, {**feed, **dict(zip(rest, values, strict=True))})


def beside_in_onnxruntime(parts: Sequence[tuple[nn.Module, Tensor]], threads: int) -> list[Run]:
    """As :func:`runner` in onnxruntime, for several modules that take one tensor and give another: exported together,
    since an export takes a second or two however little is in it, and then cut apart.

    Raises BadModel where one of them cannot be exported.
    """
    from onnx.utils import Extractor

    both = _Beside([module for module, _ in parts]).eval()
    given = tuple(x.clone() for _, x in parts)  # a tensor that two of them take would become one input
    try:
        model = _exported(both, given, {}).model_proto
        whole, ends = Extractor(model), zip(model.graph.input, model.graph.output, strict=True)
        pieces = [whole.extract_model([x.name], [y.name]).SerializeToString() for x, y in ends]
    except Exception as error:
        raise failed(both, error, *UNEXPORTED) from error
    sessions = [_session(piece, threads) for piece in pieces]
    return [_call(one, {one.get_inputs()[0].name: x}) for one, x in zip(sessions, [x for _, x in parts], strict=True)]


class _Beside(nn.Module):
    """Modules that do not know of each other."""

    def __init__(self, parts: Sequence[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        return tuple(part(x) for part, x in zip(self.parts, given, strict=True))


def _exported(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.onnx.ONNXProgram:
    with _quiet(Warning):
        program = torch.onnx.export(module, args, kwargs=kwargs, dynamo=True, verbose=False)
    assert program is not None  # it is None only where a file is given
    return program


def _session(model: Path | bytes, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    # idle workers that spin after a run would slow the other contestant down
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _call(session: Any, values: Mapping[str, Tensor]) -> Run:
    numpy = {name: value.detach().cpu().numpy() for name, value in values.items()}

    def run() -> None:
        session.run(None, numpy)

    return run


@contextmanager
def _quiet(kind: type[Warning]) -> Iterator[None]:
    """Silence while torch compiles or exports: it warns of its own deprecated calls and of packages it could use."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", kind)
            yield
    finally:
        log.setLevel(level)


RUNTIMES: dict[str, Callable[[nn.Module, Any, int], Run]] = {
    "eager": _eager,
    "compile": _compiled,
    "onnxruntime": _onnx,
}
