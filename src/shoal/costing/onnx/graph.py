"""ONNX graph: the nodes of a file with the shape of every value, found without running anything.

Functions that the file defines are written out where they are called. Axes that are left open get a size: the first
axis of an input is the batch, another one is 1 unless the shapes are given.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError
from onnx import helper, inliner, shape_inference

from shoal.core.errors import BadArtifact, BadModel, BadSetting
from shoal.costing.table import Shape

_BITS = {"int4": 4, "uint4": 4, "float4_e2m1fn": 4, "int2": 2, "uint2": 2}  # of types below a byte
_INDICES = {"bool", "object", "int16", "uint16", "int32", "uint32", "int64", "uint64"}  # never the type of a weight


@dataclass(frozen=True)
class Value:
    """What flows between nodes: its shape, and its type by ONNX's number."""

    shape: Shape
    elem_type: int

    @property
    def numel(self) -> int:
        """How many numbers it holds."""
        return prod(self.shape)

    @property
    def dtype(self) -> str:
        """Its type's name: ``float32``."""
        return str(helper.tensor_dtype_to_np_dtype(self.elem_type))

    @property
    def is_index(self) -> bool:
        """Whether it holds indices, flags or words, and so never weights."""
        return self.dtype in _INDICES

    @property
    def bytes(self) -> int:
        """What its numbers take; two of 4 bits share a byte."""
        bits = _BITS.get(self.dtype, 8 * helper.tensor_dtype_to_np_dtype(self.elem_type).itemsize)
        return -(-self.numel * bits // 8)


@dataclass(frozen=True)
class OnnxGraph:
    """Nodes in the order they run; ``values`` of which the shape is known; ``weights`` are those that the file holds.

    `inputs` are the names of what must be given, `outputs` of what comes back. A sparse weight is as large as what is
    stored, and is no value.
    """

    nodes: tuple[Any, ...]
    values: dict[str, Value]
    weights: dict[str, Value]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def read_onnx(path: Path | str, *, batch: int | None = None, shapes: Sequence[Shape] | None = None) -> OnnxGraph:
    """The graph in a file; `batch` fills first axes that are open, `shapes` says those of all inputs.

    Weights in files beside it are not opened. Raises BadArtifact for a file that is none, BadSetting where batch or
    shapes are not what it takes, BadModel where its shapes contradict each other.
    """
    file = Path(path)
    model = _load(file)
    if model.functions:
        model = inliner.inline_local_functions(model)
    graph = model.graph
    held = {each.name for each in graph.initializer} | {each.values.name for each in graph.sparse_initializer}
    given = [each for each in graph.input if each.name not in held]
    if shapes is None:
        shapes = [_filled(file, each, 1 if batch is None else batch) for each in given]
        if batch is not None and given and not any(shape[:1] == (batch,) for shape in shapes):
            raise BadSetting(
                f"{file}: takes a batch of {shapes[0][0] if shapes[0] else 'none'} only; leave --batch out"
            )
    _fix(file, given, shapes)
    del graph.value_info[:]
    for each in graph.output:
        each.type.tensor_type.ClearField("shape")
    try:
        model = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except (shape_inference.InferenceError, ValueError) as error:
        said = " ".join(str(error).split())
        takes = ", ".join("x".join(map(str, shape)) for shape in shapes)
        raise BadModel(f"{file}: does not run on {takes}: {said}; give the shapes that it takes (--input)") from error
    values = dict(_values(model.graph))
    held_ = {**dict(_held(model.graph)), **dict(_sparse(model.graph))}
    weights = {name: each for name, each in held_.items() if each.shape and not each.is_index}
    return OnnxGraph(tuple(model.graph.node), values, weights, _names(given), _names(model.graph.output))


def _load(file: Path) -> Any:
    if not file.is_file():
        raise BadArtifact(f"{file}: there is no such file; give an .onnx")
    try:
        model = onnx.load(str(file), format="protobuf", load_external_data=False)
    except (DecodeError, ValueError, OSError) as error:
        said = str(error).rpartition(": ")[2]
        raise BadArtifact(f"{file}: is truncated or no ONNX ({said}); export it again") from error
    if not model.graph.node or not model.opset_import:
        raise BadArtifact(f"{file}: is truncated or no ONNX (it holds no graph); export it again")
    return model


def _filled(file: Path, given: Any, batch: int) -> Shape:
    """The shape of an input with a size for every open axis."""
    kind = given.type.tensor_type
    if not given.type.HasField("tensor_type") or not kind.HasField("shape"):
        raise BadSetting(f"{file}: does not say the shape of its input {given.name!r}; say it with --input")
    first = [kind.shape.dim[0].dim_param] if kind.shape.dim else []
    sizes = []
    for axis, dim in enumerate(kind.shape.dim):
        open_ = batch if axis == 0 or (dim.dim_param and dim.dim_param in first) else 1
        sizes.append(dim.dim_value if dim.dim_value > 0 else open_)
    return tuple(sizes)


def _fix(file: Path, given: Sequence[Any], shapes: Sequence[Shape]) -> None:
    """Write the shapes into the inputs. Raises BadSetting where they are not what the file takes."""
    if len(given) != len(shapes):
        raise BadSetting(
            f"{file}: takes {len(given)} inputs ({', '.join(_names(given))}), {len(shapes)} shapes are given"
        )
    for each, shape in zip(given, shapes, strict=True):
        kind = each.type.tensor_type
        dims = [dim.dim_value for dim in kind.shape.dim] if kind.HasField("shape") else [0] * len(shape)
        if len(dims) != len(shape) or any(size > 0 and size != got for size, got in zip(dims, shape, strict=False)):
            wanted = "x".join(str(size) if size > 0 else "?" for size in dims)
            found = "x".join(map(str, shape))
            raise BadSetting(f"{file}: its input {each.name!r} is {wanted}, {found} is given; write such a shape")
        kind.shape.CopyFrom(helper.make_tensor_type_proto(kind.elem_type, shape).tensor_type.shape)


def _names(given: Sequence[Any]) -> tuple[str, ...]:
    return tuple(each.name for each in given)


def _values(graph: Any) -> Iterator[tuple[str, Value]]:
    for each in [*graph.input, *graph.value_info, *graph.output]:
        kind = each.type.tensor_type
        if kind.elem_type and kind.HasField("shape") and all(dim.HasField("dim_value") for dim in kind.shape.dim):
            yield each.name, Value(tuple(dim.dim_value for dim in kind.shape.dim), kind.elem_type)
    yield from _held(graph)


def _held(graph: Any) -> Iterator[tuple[str, Value]]:
    """The tensors in a file, those of Constant nodes under the name of what the node gives."""
    for each in graph.initializer:
        yield each.name, Value(tuple(each.dims), each.data_type)
    for node in graph.node:
        for attribute in node.attribute if node.op_type == "Constant" else ():
            if attribute.name == "value":
                yield node.output[0], Value(tuple(attribute.t.dims), attribute.t.data_type)


def _sparse(graph: Any) -> Iterator[tuple[str, Value]]:
    for each in graph.sparse_initializer:
        yield each.values.name, Value(tuple(each.values.dims), each.values.data_type)
