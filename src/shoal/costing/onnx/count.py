"""ONNX count: what the graph in a file executes, by the conventions of the counter for modules; nothing is run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from shoal.costing.onnx.formulas import VIEWS, Product, bodies_of, product_of
from shoal.costing.onnx.graph import OnnxGraph, Value, read_onnx
from shoal.costing.table import Shape, short

_SHAPE_ONLY = {"Shape", "Size", "EyeLike", "RandomNormalLike", "RandomUniformLike"}  # what they give rests on no value
_LOOKUPS = {"Gather", "GatherElements", "GatherND"}  # of their first input only what comes out is read


@dataclass(frozen=True)
class NodeCost:
    """One node; ``moved`` are the bytes that it reads and writes, ``weights`` the numbers in each weight by name.

    `path` and `type` are the module and its class that it was exported from, else the node's own name and operator.
    """

    path: str
    type: str
    input_shape: Shape | None
    output_shape: Shape | None
    weights: dict[str, int]
    macs: int
    moved: int


@dataclass(frozen=True)
class OnnxCost:
    """What one run of an .onnx costs; the words mean what they do for a module.

    `params` are the numbers in its weights, statistics of norms among them: a file does not tell those apart. `inputs`
    are what it was counted on: name, shape and type.
    """

    params: int
    macs: int
    bytes: int
    depth: int
    inputs: tuple[tuple[str, Shape, str], ...]
    nodes: tuple[NodeCost, ...]
    uncounted: tuple[str, ...] = ()

    @property
    def lower_bound(self) -> bool:
        """Whether something was left uncounted."""
        return bool(self.uncounted)

    def __str__(self) -> str:
        macs = f"{'at least ' if self.lower_bound else ''}{short(self.macs)} macs"
        text = f"{short(self.params)} params, {macs}, {short(self.bytes)}B, depth {self.depth}"
        return f"{text} (uncounted: {', '.join(self.uncounted)})" if self.uncounted else text

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, lists and words."""
        return {**asdict(self), "lower_bound": self.lower_bound}


def onnx_cost(path: Path | str, *, batch: int | None = None, shapes: Sequence[Shape] | None = None) -> OnnxCost:
    """Count an .onnx; `batch` fills first axes that are open (else 1), `shapes` says those of all inputs in order.

    Raises BadArtifact for a file that is none, BadSetting or BadModel for a batch or shapes that it does not take.
    """
    graph = read_onnx(path, batch=batch, shapes=shapes)
    depths = dict.fromkeys(graph.inputs, 0)
    nodes: list[NodeCost] = []
    uncounted: dict[str, None] = {}  # an ordered set
    for index, node in enumerate(graph.nodes):
        product = product_of(node, graph.values)
        found = _node_cost(graph, node, index, product)
        if product is not None and product.macs is None:
            uncounted[f"{node.op_type} at {found.path or found.type}"] = None
        _follow(node, product, depths)
        nodes.append(found)
    return OnnxCost(
        params=sum(value.numel for value in graph.weights.values()),
        macs=sum(node.macs for node in nodes),
        bytes=sum(value.bytes for value in graph.weights.values()),
        depth=max((depths.get(name, 0) for name in graph.outputs), default=0),
        inputs=tuple((name, graph.values[name].shape, graph.values[name].dtype) for name in graph.inputs),
        nodes=tuple(nodes),
        uncounted=tuple(uncounted),
    )


def _node_cost(graph: OnnxGraph, node: Any, index: int, product: Product | None) -> NodeCost:
    given = {name: graph.values[name] for name in node.input if name in graph.values}
    made = [graph.values[name] for name in node.output if name in graph.values]
    flowing = [value.shape for name, value in given.items() if name not in graph.weights]
    path, kind = _place(node, index)
    return NodeCost(
        path=path,
        type=kind,
        input_shape=flowing[0] if flowing else None,
        output_shape=made[0].shape if made else None,
        weights={name: graph.weights[name].numel for name in node.input if name in graph.weights},
        macs=(product.macs or 0) if product else 0,
        moved=0 if node.op_type in VIEWS else _moved(node.op_type, [value.bytes for value in given.values()], made),
    )


def _moved(op_type: str, read: list[int], made: Sequence[Value]) -> int:
    written = sum(value.bytes for value in made)
    if op_type in _LOOKUPS and read:
        read[0] = min(read[0], written)
    return written + sum(read)


def _place(node: Any, index: int) -> tuple[str, str]:
    """Path and class of the module that a node was exported from, where the file tells them: torch's exporter does."""
    told = next((each.value for each in node.metadata_props if each.key == "namespace"), "")
    path, _, kind = told.rpartition("/")[0].rpartition("/")[2].partition(": ")
    if kind:
        return path, kind.rpartition(".")[2]
    return node.name or f"{node.op_type}_{index}", node.op_type


def _follow(node: Any, product: Product | None, depths: dict[str, int]) -> None:
    """Give what a node makes its depth: one more than what it takes where it multiplies that by weights."""
    inner = [name for body in bodies_of(node) for each in body.node for name in each.input]
    found = [depths[name] for name in [*node.input, *inner] if name in depths]
    if not found or node.op_type in _SHAPE_ONLY:
        return
    depth = max(found)
    if product is not None:
        moved = [name in depths for name in product.factors]
        depth += product.steps if any(moved) and not all(moved) else 0
    depths.update(dict.fromkeys(filter(None, node.output), depth))
