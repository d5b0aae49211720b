"""Graphs: how a net is asked for nodes. The loop and the scores go on as for any rows.

    a net that reads no edges                  the rows of its nodes, as a table
    one that begins with what has no weights   propagated once for all, and then the rows, in batches of any size
    any other                                  all nodes at once with the edges; a row is then the number of a node

What was propagated is kept with the graph. What is timed, counted or looked at from outside is what :func:`standing`
gives.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor, nn

from shoal.core.example import evaluating
from shoal.data import Graph, Split
from shoal.net import Layer, Net

OF_GRAPHS = ("edges", "adjacency")
Asked: TypeAlias = Callable[..., Any]
AnyModel = TypeVar("AnyModel", bound=Asked)


class OnGraph(nn.Module):
    """A net with the whole graph before it: (n,) numbers of nodes -> (n, outputs)."""

    def __init__(self, net: Net, graph: Graph) -> None:
        super().__init__()
        read = read_of_graphs(net)
        self.net, self.x = net, graph.x
        self.context = {name: value for name, value in graph.context().items() if name in read}

    def forward(self, nodes: Tensor) -> Tensor:
        out: Tensor = self.net(self.x, context=self.context)[nodes]
        return out

    def __deepcopy__(self, memo: dict[int, Any]) -> OnGraph:
        """With a net of its own and the same graph, to which nobody writes: torch copies no sparse matrices."""
        made = OnGraph.__new__(OnGraph)
        nn.Module.__init__(made)
        memo[id(self)] = made
        made.net, made.x, made.context = copy.deepcopy(self.net, memo), self.x, self.context
        made.training = self.training
        return made


class OnNodes(nn.Module):
    """A net in front of a whole graph, asked for nodes. Its parts are the net's, and go by the net's own paths."""

    def __init__(self, net: OnGraph) -> None:
        super().__init__()
        for name, part in net.net.named_children():
            self.add_module(name, part)
        self._asked = (net,)  # no part: it would stand before every path

    def forward(self, nodes: Tensor) -> Tensor:
        out: Tensor = self._asked[0](nodes)
        return out


def read_of_graphs(net: nn.Module) -> set[str]:
    """The names of what a net reads of a graph; layers of no hops read nothing."""
    layers = [layer for layer in net.modules() if isinstance(layer, Layer) and getattr(layer.block, "hops", None) != 0]
    return {name for layer in layers for name in layer.reads if name in OF_GRAPHS}


def asked(model: AnyModel, split: Split, device: torch.device) -> tuple[AnyModel | OnGraph, Split]:
    """What to ask for the rows of a split, and the split as it takes them; on the device where it reads the graph."""
    if split.graph is None or split.nodes is None or not isinstance(model, Net) or not read_of_graphs(model):
        return model, split
    graph = split.graph.to(device)
    rows = propagated_beforehand(model, graph)
    if rows is not None:
        return model, Split(rows[split.nodes], split.y)
    return OnGraph(model, graph), Split(split.nodes, split.y)


def standing(model: nn.Module, split: Split, rows: int) -> tuple[nn.Module, Any]:
    """What answers for the first rows of a split, and those rows as it takes them: the model itself, or with the whole
    graph before it."""
    if split.graph is None or split.nodes is None:
        return model, split.batch(slice(0, rows))[0]
    few = Split(split.x[:rows], split.y[:rows], split.prepare, split.graph, split.nodes[:rows])
    made, own = asked(model, few, torch.device("cpu"))
    return OnNodes(made) if isinstance(made, OnGraph) else made, own.batch(slice(None))[0]


def propagated_beforehand(net: Net, graph: Graph) -> Tensor | None:
    """What the first stage makes of all nodes, (nodes, dim); None unless the net gives the same from these rows alone.

    It does where stem and first stage have no weights, where no later layer reads the graph, and where the stage,
    without edges, leaves its own answer as it is. What a layer of it leaves out in training is left out of these rows.
    """
    first, later = net.stages[0], [*net.stages[1:], net.head]
    if any(True for part in (net.stem, first) for _ in part.parameters()):
        return None
    if not read_of_graphs(first) or any(read_of_graphs(part) for part in later):
        return None
    spec = net.spec

    def made() -> Tensor | None:
        read = read_of_graphs(first)
        context = {name: value for name, value in graph.context().items() if name in read}
        with evaluating(net):
            rows: Tensor = first(net.stem(graph.x), context, 0, None)
            again: Tensor = net.stem(rows) if rows.shape == graph.x.shape else rows.new_empty(0)
            same = again.shape == rows.shape and torch.equal(first(again, None, 0, None), rows)
        return rows if same else None

    found: Tensor | None = graph.once(("beforehand", spec.stem, spec.stages[0]), made)
    return found
