"""Integers: an exported ONNX graph with grids in it, written so that onnxruntime runs it in integers.

    weight -> QuantizeLinear                 becomes    the integers themselves: a byte a weight in the file
    a bias beside two grids                  becomes    32-bit integers, at the product of both scales
    min, max, QuantizeLinear of a tensor     becomes    DynamicQuantizeLinear, and the product behind it MatMulInteger

What it gives is the same, to the rounding of a bias. A graph without grids is left as it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

Array = NDArray[Any]
GRIDS = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")


def has_grids(model: ModelProto) -> bool:
    """Whether some tensor in it is put on a grid, or is stored as integers on one."""
    return any(node.op_type in GRIDS for node in model.graph.node)


def in_integers(model: ModelProto) -> ModelProto:
    """The model with its grids as integers; it is changed in place."""
    if has_grids(model):
        graph = _Graph(model)
        graph.store_weights()
        graph.store_biases()
        graph.find_ranges()
        graph.sweep()
    return model


class _Graph:
    """A graph with its constants and the maker of every tensor at hand."""

    def __init__(self, model: ModelProto) -> None:
        from onnx import numpy_helper

        self.graph = model.graph
        self.opsets = {each.domain: each.version for each in model.opset_import}
        self.makers = {name: node for node in self.graph.node for name in node.output if name}
        self.values: dict[str, Array] = {each.name: numpy_helper.to_array(each) for each in self.graph.initializer}
        self.varying = {each.name for each in self.graph.input}

    def constant(self, name: str) -> Array | None:
        """The value of a tensor that no input reaches; None of any other, and of what cannot be worked out here."""
        from onnx.reference import ReferenceEvaluator

        if name in self.values:
            return self.values[name]
        node = self.makers.get(name)
        if name in self.varying or node is None or any(each.type == each.GRAPH for each in node.attribute):
            return None
        given = {each: self.constant(each) for each in node.input if each}
        if node.domain or any(value is None for value in given.values()):
            self.varying.update(node.output)
            return None
        found = ReferenceEvaluator(node, opsets=self.opsets).run(None, given)
        self.values.update(zip(node.output, (np.asarray(each) for each in found), strict=True))
        return self.values[name]

    def store(self, name: str, value: Array) -> str:
        """Write a constant into the graph, in place of what made it."""
        from onnx import numpy_helper

        maker = self.makers.pop(name, None)
        if maker is not None:
            self.graph.node.remove(maker)
        for each in [each for each in self.graph.initializer if each.name == name]:
            self.graph.initializer.remove(each)
        self.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        self.values[name] = value
        return name

    def behind(self, name: str, op: str) -> NodeProto | None:
        """The node that makes a tensor, where it is of that operation."""
        node = self.makers.get(name)
        return node if node is not None and node.op_type == op else None

    def store_weights(self) -> None:
        """Constants on grids: the integers, and their scales and zeros where both are worked out."""
        for node in [each for each in self.graph.node if each.op_type in ("QuantizeLinear", "DequantizeLinear")]:
            for name in node.input[1:]:
                value = self.constant(name) if name else None
                if value is not None and name in self.makers:
                    self.store(name, value)
            if node.op_type == "QuantizeLinear" and (value := self.constant(node.output[0])) is not None:
                self.store(node.output[0], value)

    def store_biases(self) -> None:
        """Biases of convolutions and products of which both factors are on grids of constant scales."""
        from onnx import helper

        for node in [each for each in self.graph.node if each.op_type in ("Conv", "Gemm") and len(each.input) == 3]:
            grids = [self.behind(name, "DequantizeLinear") for name in node.input[:2]]
            scales = [None if grid is None else self.constant(grid.input[1]) for grid in grids]
            bias = self.constant(node.input[2])
            if bias is None or bias.ndim != 1 or any(scale is None for scale in scales):
                continue
            scale = np.broadcast_to(np.float32(scales[0]) * np.float32(scales[1]), bias.shape).astype(np.float32)
            steps = np.rint(bias.astype(np.float64) / scale)
            if np.abs(steps).max(initial=0) >= 2**31:
                continue
            name = f"{node.name or node.output[0]}_bias"
            names = [self.store(f"{name}_steps", steps.astype(np.int32)), self.store(f"{name}_scale", scale)]
            grid = helper.make_node("DequantizeLinear", names, [f"{name}_value"], name=f"{name}_grid", axis=0)
            self._insert(node, [grid])
            node.input[2] = grid.output[0]

    def find_ranges(self) -> None:
        """Grids that are made anew for each tensor, and the products with constant integers that read them."""
        from onnx import helper

        for node in [each for each in self.graph.node if each.op_type == "QuantizeLinear"]:
            if not self._is_own_range(node):
                continue
            steps, scale, zero = node.output[0], f"{node.output[0]}_scale", f"{node.output[0]}_zero"
            found = helper.make_node("DynamicQuantizeLinear", [node.input[0]], [steps, scale, zero], name=node.name)
            self._insert(node, [found])
            self.graph.node.remove(node)
            for grid in [each for each in self.graph.node if steps in each.input]:
                grid.input[1], grid.input[2] = scale, zero
                for product in [each for each in self.graph.node if grid.output[0] in each.input]:
                    self._multiply_integers(product, steps, scale, zero)

    def _is_own_range(self, node: NodeProto) -> bool:
        """Whether the scale of a grid comes from the smallest and the largest number of what is put on it."""
        front, found = [node.input[1]], set()
        while front:
            maker = self.makers.get(front.pop())
            if maker is None:
                continue
            if maker.op_type in ("ReduceMin", "ReduceMax"):
                found.add((maker.op_type, maker.input[0]))
            else:
                front.extend(maker.input)
        return found == {("ReduceMin", node.input[0]), ("ReduceMax", node.input[0])}

    def _multiply_integers(self, product: NodeProto, steps: str, scale: str, zero: str) -> None:
        """A product of what was just put on a grid with constant integers, as one of integers."""
        from onnx import helper

        grid = self.behind(product.input[1], "DequantizeLinear") if product.op_type in ("MatMul", "Gemm") else None
        turned = None if grid is not None else self.behind(product.input[1], "Transpose")
        if turned is not None:
            grid = self.behind(turned.input[0], "DequantizeLinear")
        weight, scales = (None, None) if grid is None else (self.constant(name) for name in grid.input[:2])
        if grid is None or weight is None or scales is None or weight.ndim != 2:
            return
        settings = {each.name: helper.get_attribute_value(each) for each in product.attribute}
        if {settings.get(name, 1) for name in ("alpha", "beta")} != {1} or settings.get("transA", 0):
            return
        if turned is not None or settings.get("transB", 0):
            weight = weight.T
        out, name = product.output[0], product.name or product.output[0]
        right = self.store(f"{name}_steps", weight)
        rows = self.store(f"{name}_scales", scales.astype(np.float32))
        nodes = [
            helper.make_node("MatMulInteger", [steps, right, zero], [f"{name}_sums"], name=f"{name}_product"),
            helper.make_node("Cast", [f"{name}_sums"], [f"{name}_plain"], name=f"{name}_cast", to=1),
            helper.make_node("Mul", [scale, rows], [f"{name}_unit"], name=f"{name}_units"),
            helper.make_node("Mul", [f"{name}_plain", f"{name}_unit"], [f"{name}_scaled"], name=f"{name}_scaling"),
        ]
        if len(product.input) == 3:
            nodes.append(helper.make_node("Add", [f"{name}_scaled", product.input[2]], [out], name=f"{name}_shift"))
        else:
            nodes[-1].output[0] = out
        self._insert(product, nodes)
        self.graph.node.remove(product)

    def _insert(self, before: NodeProto, nodes: list[NodeProto]) -> None:
        at = list(self.graph.node).index(before)
        for offset, node in enumerate(nodes):
            self.graph.node.insert(at + offset, node)
            self.makers |= dict.fromkeys(node.output, node)

    def sweep(self) -> None:
        """Take out what nothing reads any more."""
        while True:
            read = Counter(name for node in self.graph.node for name in _reads(node))
            read.update(each.name for each in self.graph.output)
            idle = [node for node in self.graph.node if not any(read[name] for name in node.output)]
            if not idle:
                break
            for node in idle:
                self.graph.node.remove(node)
        for each in [each for each in self.graph.initializer if not read[each.name]]:
            self.graph.initializer.remove(each)


def _reads(node: NodeProto) -> Iterator[str]:
    """What a node reads, and what the graphs inside it do."""
    yield from node.input
    for each in node.attribute:
        for inner in each.g.node:
            yield from _reads(inner)
