"""Products: what matrices of a module read and give on some rows, seen while it runs; the module is left as it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from shoal.core.example import arguments, unmarked
from shoal.core.scene import Scene

PRODUCTS = (F.linear, F.conv1d, F.conv2d, F.conv3d)


class Product(NamedTuple):
    """The same rows of what a matrix read, x: (rows, inputs, places of its kernel), of what it gave without its bias,
    y: (rows, outputs), and of what went into the layer that gives y, stream: (rows, dim); None where that is not said
    or the layer gives something else."""

    x: Tensor
    y: Tensor
    stream: Tensor | None


class _Watch(TorchFunctionMode):
    """Keeps some rows of every product with one of the weights."""

    def __init__(self, weights: Mapping[str, Tensor], seed: int) -> None:
        super().__init__()
        self.names = {id(weight): name for name, weight in weights.items()}
        self.seed, self.run, self.wanted = seed, 0, 1  # the number of the run, and how many rows to keep of it
        self.found: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in weights}
        self.streams: dict[str, list[Tensor]] = {name: [] for name in weights}
        self.last: dict[str, tuple[Tensor, Tensor]] = {}  # the rows kept last, and what the matrix gave there

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in PRODUCTS and len(args) > 1 and id(args[1]) in self.names:
            self._keep(self.names[id(args[1])], out, *args)
        return out

    def _keep(self, name: str, out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None = None, *how: Any) -> None:
        y = (out if weight.dim() == 2 else out.movedim(1, -1)).flatten(0, -2)
        chooser = torch.Generator().manual_seed(self.seed + self.run)  # the same rows wherever the shape is the same
        rows = torch.randperm(len(y), generator=chooser)[: self.wanted]
        read = x.flatten(0, -2)[rows].unsqueeze(-1) if weight.dim() == 2 else patches(x, weight, rows, *how)
        gave = y[rows]
        self.last[name] = rows, gave
        self.found[name].append((read.cpu(), (gave if bias is None else gave - bias).cpu()))

    def leaves(self, names: Sequence[str], layer: nn.Module, args: tuple[Any, ...], out: Tensor) -> None:
        """A hook: a layer gives this; where it is what the matrix gave, what went into the layer is kept."""
        for name in self.last.keys() & set(names):
            rows, gave = self.last[name]
            ends = out.flatten(0, -2)
            if len(ends) > int(rows.max()) and torch.equal(ends[rows], gave):
                self.streams[name].append(args[0].flatten(0, -2)[rows].cpu())

    def product(self, name: str) -> Product:
        """What was kept of one of them."""
        x, y = (torch.cat(part) for part in zip(*self.found[name], strict=True))
        whole = len(self.streams[name]) == len(self.found[name])
        return Product(x, y, torch.cat(self.streams[name]) if whole else None)


def patches(
    x: Tensor, weight: Tensor, rows: Tensor, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Tensor:
    """What a convolution without groups reads for some of its outputs: (rows, inputs, places of the kernel)."""
    sizes = weight.shape[2:]
    steps, pads = (one if isinstance(one, list | tuple) else [one] * len(sizes) for one in (stride, padding))
    around = [pad for one in reversed(pads) for pad in (one, one)]
    view = F.pad(x, around)
    for axis, (size, step) in enumerate(zip(sizes, steps, strict=True)):
        view = view.unfold(2 + axis, size, step)
    places = view.shape[2 : 2 + len(sizes)]
    example, *at = torch.unravel_index(rows, (x.shape[0], *places))
    return view.movedim(1, len(sizes) + 1)[(example, *at)].flatten(2)


def products(
    scene: Scene, module: nn.Module, paths: Sequence[str], rows: int, layers: Mapping[str, str] | None = None
) -> dict[str, Product]:
    """About so many rows of what each of the matrices reads and gives while the module runs on the scene's batches;
    none of one that did not run.

    ``layers``: for some of them the layer around, which gives what they give; then what goes into it is kept too. The
    rows are the same for all modules whose matrices give as many: they are drawn by the scene's seed.
    """
    weights = {path: _weight(module, path) for path in paths}
    watch = _Watch(weights, scene.seed)
    inside: dict[str, list[str]] = {}
    for path, layer in (layers or {}).items():
        inside.setdefault(layer, []).append(path)
    every = sum(batch.rows for batch in scene.batches)
    with ExitStack() as stack, unmarked(module), torch.no_grad():
        for layer, names in inside.items():
            hook = module.get_submodule(layer).register_forward_hook(partial(watch.leaves, names))
            stack.callback(hook.remove)
        stack.enter_context(watch)
        for run, batch in enumerate(scene.batches):
            watch.run, watch.wanted = run, max(round(rows * batch.rows / every), 1)
            args, kwargs = arguments(batch.example)
            module(*args, **kwargs)
    return {path: watch.product(path) for path, found in watch.found.items() if found}


def _weight(module: nn.Module, path: str) -> Tensor:
    weight = module.get_submodule(path).weight
    assert isinstance(weight, Tensor)
    return weight
