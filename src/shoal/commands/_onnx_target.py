"""ONNX target: an .onnx, counted from its graph without being run, and timed in onnxruntime."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnxruntime
import torch
from torch import nn

from shoal.commands._inputs import Given, Input, drawn
from shoal.commands._layers import Layer
from shoal.commands._target import Target, Times, whole_ms
from shoal.core.errors import BadModel, BadSetting
from shoal.costing.onnx.count import NodeCost, OnnxCost, onnx_cost


def onnx_target(text: str, given: Given) -> Target:
    """The file on the shapes that it says, or on those given. Raises as :func:`onnx_cost`."""
    found = onnx_cost(text, batch=given.batch, shapes=[each.shape for each in given.inputs] or None)
    inputs = [Input(shape, dtype) for _, shape, dtype in found.inputs]
    for own, said in zip(inputs, given.inputs, strict=False):
        if said.dtype not in (None, own.dtype):
            raise BadSetting(f"--input {said}: {text} takes {own}; write such a shape")
    on = ", ".join(map(str, inputs))
    operations = [(node.macs, node.moved) for node in found.nodes if node.moved]

    def time(threads: int | None) -> Times:
        session = _Session(Path(text), inputs, [name for name, _, _ in found.inputs], threads)
        told = whole_ms(session, (), threads)
        return Times(replace(told, runtime="onnxruntime"), None)

    return Target("onnx", text, on, found, _layers(found), operations, time)


def _layers(found: OnnxCost) -> list[Layer]:
    """The nodes that stood in one module, or each node by itself; those that move nothing left out."""
    groups: dict[str, list[NodeCost]] = {}
    for node in found.nodes:
        if node.moved:
            groups.setdefault(node.path, []).append(node)
    layers = []
    for path, nodes in groups.items():
        weights = {name: size for node in nodes for name, size in node.weights.items()}
        shapes = (nodes[0].input_shape, nodes[-1].output_shape)
        works = tuple((node.macs, node.moved) for node in nodes)
        layers.append(
            Layer(path, nodes[0].type, 1, *shapes, sum(weights.values()), sum(macs for macs, _ in works), works)
        )
    return layers


class _Session(nn.Module):
    """A session of onnxruntime as a module, so that it is timed as every module is."""

    def __init__(self, file: Path, inputs: list[Input], names: list[str], threads: int | None) -> None:
        super().__init__()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads or torch.get_num_threads(), 1
        options.log_severity_level = 4
        try:
            self.session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
            self.feed = {name: drawn(each).numpy() for name, each in zip(names, inputs, strict=True)}
            self.session.run(None, self.feed)
        except Exception as error:  # onnxruntime raises classes of its own, dozens of them
            said = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise BadModel(f"{file}: does not run in onnxruntime: {said}; --no-time counts it only") from error

    def forward(self) -> None:
        self.session.run(None, self.feed)
