"""Program target: an exported program as modules again: its operations by the layer that they were exported from.

A .pt2 is one long list of operations, but each still says in which submodule it stood. Runs of operations of one
submodule become a part; the parts are counted and timed, and told under the submodule's path and class.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.fx.graph import CodeGen
from torch.fx.passes.split_module import split_module

from shoal.commands._inputs import Given, Input, drawn, told
from shoal.commands._layers import layers_of
from shoal.commands._target import Target, Times, layer_ms, whole_ms
from shoal.core.errors import BadSetting
from shoal.core.example import tensors
from shoal.costing import Cost, LayerCost, cost
from shoal.costing.table import Shape

NOWHERE = ("", "")  # the program itself


class Program(NamedTuple):
    """A program that takes its tensors one after another; in parts; and where each part stood.

    `held` are the weights that each layer reads.
    """

    whole: nn.Module
    parts: nn.Module
    places: Mapping[str, tuple[str, str]]
    held: Mapping[str, int]
    example: tuple[Any, ...]

    def cost(self) -> Cost:
        """What it costs, layer by layer of what was exported."""
        found = cost(self.whole, self.example)
        with self._watched() as takes:
            split = cost(self.parts, self.example)
        operations = tuple(replace(each, path=self._path(each.path), call=0) for each in split.operations)
        uncounted = dict.fromkeys(self._renamed(each) for each in split.uncounted)
        return replace(found, calls=self._layers(split, takes), operations=operations, uncounted=tuple(uncounted))

    @contextmanager
    def _watched(self) -> Iterator[dict[str, Shape]]:
        """The shape of what a layer takes first, by its path, filled by a run inside: parts take weights, too."""
        weights = {id(tensor) for tensor in [*self.parts.parameters(), *self.parts.buffers()]}
        given = tensors(self.example)
        takes: dict[str, Shape] = {"": tuple(given[0].shape)} if given else {}

        def watch(path: str, part: nn.Module, args: tuple[Any, ...]) -> None:
            for arg in args:
                if isinstance(arg, Tensor) and id(arg) not in weights:
                    takes.setdefault(path, tuple(arg.shape))

        with ExitStack() as stack:
            for name, (path, _) in self.places.items():
                part = self.parts.get_submodule(name)
                stack.callback(part.register_forward_pre_hook(partial(watch, path)).remove)
            yield takes

    def time(self, threads: int | None) -> Times:
        """The whole, and its layers when it is run in parts."""
        found: dict[str, float] = {}
        for part, ms in layer_ms(self.parts, self.example, self.places, threads).items():
            found[self._path(part)] = found.get(self._path(part), 0.0) + ms
        return Times(whole_ms(self.whole, self.example, threads), found)

    def _path(self, part: str) -> str:
        return self.places.get(part.partition(".")[0], NOWHERE)[0]

    def _renamed(self, uncounted: str) -> str:
        name, _, part = uncounted.rpartition(" at ")
        return f"{name} at {self._path(part) or 'the program'}"

    def _layers(self, split: Cost, takes: Mapping[str, Shape]) -> tuple[LayerCost, ...]:
        """The parts of a layer as one call of it, in the order of the program: parts need not be in it."""
        calls: dict[str, list[LayerCost]] = {path: [] for path, _ in self.places.values()}
        for call in split.calls:
            calls.setdefault(self._path(call.path), []).append(call)
        kinds = dict(self.places.values())
        return tuple(
            LayerCost(
                path=path,
                call=0,
                type=kinds.get(path, ""),
                input_shape=takes.get(path),
                output_shape=own[-1].output_shape,
                params=self.held.get(path, 0),
                macs=sum(call.macs for call in own),
                flops=sum(call.flops for call in own),
            )
            for path, own in calls.items()
            if own
        )


def program_target(kind: str, name: str, loaded: nn.Module, given: Given) -> Target:
    """A program that :func:`shoal.artifact.load_program` gave, on the shapes that it was exported for.

    Open first axes become the batch (1), other open axes 1; the inputs given say all shapes. Raises BadSetting where
    they do not fit.
    """
    program = _parted(loaded, _example(loaded, given.inputs, given.batch))
    found = program.cost()
    operations = [(each.macs, each.moved) for each in found.operations]
    return Target(kind, name, told(program.example), found, layers_of(found), operations, program.time)


def _parted(loaded: nn.Module, example: tuple[Any, ...]) -> Program:
    assert isinstance(loaded, GraphModule)  # so torch.export makes them
    loaded.graph.set_codegen(CodeGen())  # tensors in and out one by one
    places = {node: _place(node) for node in loaded.graph.nodes}
    runs = dict(_runs(places))
    parts = split_module(loaded, loaded, lambda node: runs.get(node, 0))
    named = {f"submod_{run}": places[node] for node, run in runs.items()}
    weights = dict(loaded.named_parameters(remove_duplicate=False))
    held: dict[str, int] = {}
    for node in loaded.graph.nodes:
        if node.op == "get_attr" and node.target in weights:
            for path in {places[user][0] for user in node.users}:
                held[path] = held.get(path, 0) + weights[node.target].numel()
    return Program(GraphModule(loaded, loaded.graph), parts, named, held, example)


def _place(node: Node) -> tuple[str, str]:
    """Path and class of the submodule that an operation stood in, as torch.export keeps them."""
    stack = node.meta.get("nn_module_stack") or {}
    path, kind = next(reversed(stack.values()), NOWHERE)
    if str(kind).startswith("_empty_nn_module_stack"):
        return NOWHERE
    return path, str(kind).rpartition(".")[2]


def _runs(places: Mapping[Node, tuple[str, str]]) -> Iterator[tuple[Node, int]]:
    """Operations with the number of the run that they are in: a new run begins where the place changes."""
    run, last = -1, None
    for node, place in places.items():
        if node.op.startswith("call"):
            run += place != last
            last = place
            yield node, run


def _example(loaded: nn.Module, inputs: Sequence[Input], batch: int | None) -> tuple[Any, ...]:
    """A value for each thing that the program takes."""
    assert isinstance(loaded, GraphModule)  # so torch.export makes them
    values = [(node.name, node.meta["val"]) for node in loaded.graph.nodes if node.op == "placeholder"]
    taken = [(name, value) for name, value in values if isinstance(value, Tensor)]
    first: list[Any] = [value.shape[0] for _, value in taken if value.ndim]
    rows = next((size.node.expr for size in first if not isinstance(size, int)), None)
    if batch is not None and not inputs and rows is None:
        raise BadSetting(f"--batch {batch}: the program takes one batch only; leave it out")
    if inputs and len(inputs) != len(taken):
        names = ", ".join(name for name, _ in taken)
        raise BadSetting(f"--input: {len(inputs)} shapes are given, the program takes {len(taken)} tensors ({names})")
    said = iter(inputs)
    found: list[Any] = []
    for name, value in values:
        if not isinstance(value, Tensor):
            found.append(value)
            continue
        sizes = tuple(size if isinstance(size, int) else _size(size, rows, batch or 1) for size in value.shape)
        own = Input(sizes, str(value.dtype).removeprefix("torch."))
        found.append(drawn(_checked(name, next(said), own, value.shape) if inputs else own))
    return tuple(found)


def _size(size: Any, rows: Any, batch: int) -> int:
    """An open size: the batch where it is the rows, 1 for other symbols."""
    expr = size.node.expr
    return int(expr.subs({symbol: batch if symbol == rows else 1 for symbol in expr.free_symbols}))


def _checked(name: str, given: Input, own: Input, shape: Sequence[Any]) -> Input:
    """What was said of an input, with the program's own type. Raises BadSetting where it does not fit."""
    fits = len(given.shape) == len(shape) and all(
        not isinstance(size, int) or size == said for size, said in zip(shape, given.shape, strict=True)
    )
    if not fits or given.dtype not in (None, own.dtype):
        wanted = "x".join(str(size) if isinstance(size, int) else "?" for size in shape)
        raise BadSetting(f"--input {given}: the program takes {name} as {wanted}:{own.dtype}; write such a shape")
    return Input(given.shape, own.dtype)
