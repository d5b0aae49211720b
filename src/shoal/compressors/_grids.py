"""Where grids have to stand so that a runtime can work in integers, and how far they reach on data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from shoal.anatomy import ADDITIONS
from shoal.core.example import arguments, evaluating, failed
from shoal.core.grids import TOP, Grid, grid_of
from shoal.core.scene import Batch
from shoal.dataflow import Call, Recorder, record

CLIPS = {"relu", "relu_"}  # a grid behind it that begins at zero does its work
MOVES = {
    "max_pool2d",
    "boolean_dispatch",
    "flatten",
    "reshape",
    "view",
    "permute",
    "transpose",
    "contiguous",
    "movedim",
}
QUANTISED = (nn.Linear, nn.Conv1d, nn.Conv2d)
SEEN = 1 << 14  # values a batch and grid that its reach is chosen by
SHARES = tuple(1 - step / 40 for step in range(28))  # of the full reach: clipping a few can serve all others


class Places(NamedTuple):
    """Paths of matrices, of modules before which, and of modules behind which a grid stands."""

    matrices: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def places(module: nn.Module, example: Any) -> Places:
    """Grids such that every convolution, and every sum that ends a module, reads and gives integers.

    A convolution of which, but for a ReLU, only matrices read the output needs none behind it: the one before them
    serves both. Where no module ends with that ReLU, one stands before the module that alone reads it. Behind a sum one
    stands where a module ends there. Matrices read from a grid, their own where what they read is on none.
    """
    recorder = record(module, example)
    once = _called_once(module, recorder)
    matrices = {path: one for path, one in once.items() if _is_matrix(module.get_submodule(path), one)}
    givens = Counter(one.given for one in matrices.values())
    ends: dict[int, str] = {}  # the module that ends with a node; the innermost, so that least lies within it
    for path, one in once.items():
        if one.made is not None and one.made != one.given and not one.odd and len(path) > len(ends.get(one.made, "")):
            ends[one.made] = path
    ends |= {one.made: path for path, one in matrices.items() if one.made is not None}
    gridded: dict[int, str] = {}
    for path, one in matrices.items():
        clipped = _follow(recorder, one.made, CLIPS)
        last = _follow(recorder, clipped, CLIPS | MOVES)
        served = 0 < givens[last] == len(recorder.nodes[last].readers)
        if served or isinstance(module.get_submodule(path), nn.Linear):
            continue
        at = clipped if clipped in ends or _reader(recorder, once, clipped) else one.made
        assert at is not None
        gridded[at] = ends.get(at, "")
    for index, node in enumerate(recorder.nodes):
        end = _follow(recorder, index, CLIPS)
        if node.op in ADDITIONS and node.floating and len(node.makers) > 1 and end in ends and _is_read(recorder, end):
            gridded[end] = ends[end]
    inputs = [path for path, one in matrices.items() if not _on_grid(recorder, one.given, gridded)]
    inputs += [_reader(recorder, once, node) for node, path in gridded.items() if not path]
    return Places(tuple(matrices), tuple(inputs), tuple(sorted(set(gridded.values()) - {""})))


def calibrated(module: nn.Module, batches: Sequence[Batch]) -> dict[str, Tensor]:
    """Scale and zero of every grid in a module, by their names in it, as what flows there asks for.

    The module runs without its grids meanwhile. A grid that nothing flows through stays as it is. Raises BadModel.
    """
    grids = {path: part for path, part in module.named_modules() if isinstance(part, Grid)}
    flows = {path: _Flow() for path in grids}
    handles = [part.register_forward_hook(flows[path].see) for path, part in grids.items()]
    try:
        with evaluating(module), torch.no_grad():
            for batch in batches:
                args, kwargs = arguments(batch.example)
                module(*args, **kwargs)
    except Exception as error:  # whatever a stranger's forward raises, the user must read it
        raise failed(module, error, "does not run once it is quantised", "leave int8 out") from error
    finally:
        for handle in handles:
            handle.remove()
    found: dict[str, Tensor] = {}
    for path, flow in flows.items():
        if flow.values:
            scale, zero = flow.best()
            found |= {f"{path}.scale": scale.to(grids[path].scale), f"{path}.zero": zero}
    return found


class _Flow:
    """What flowed through one grid: its ends, and some of its values."""

    def __init__(self) -> None:
        self.low, self.high = torch.tensor(0.0), torch.tensor(0.0)
        self.values: list[Tensor] = []

    def see(self, grid: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
        """A hook: looks at what comes, and lets it through as it was."""
        x = args[0].detach().float()
        self.low = torch.minimum(self.low.to(x.device), x.amin())
        self.high = torch.maximum(self.high.to(x.device), x.amax())
        flat = x.flatten()
        self.values.append(flat[:: max(1, len(flat) // SEEN)].clone())  # it may be written to later on
        return args[0]

    def best(self) -> tuple[Tensor, Tensor]:
        """Scale and zero of the grid with the least square error."""
        values = torch.cat(self.values)
        tried = [grid_of(self.low * share, self.high * share) for share in SHARES]
        errors = [
            float((torch.fake_quantize_per_tensor_affine(values, scale, zero, 0, TOP) - values).square().mean())
            for scale, zero in tried
        ]
        return tried[min(range(len(tried)), key=errors.__getitem__)]


def _called_once(module: nn.Module, recorder: Recorder) -> dict[str, Call]:
    """Calls by path, of the modules that run once and stand at one path."""
    shared = Counter(id(part) for _, part in module.named_modules(remove_duplicate=False))
    runs = Counter(one.path for one in recorder.calls)
    return {
        one.path: one
        for one in recorder.calls
        if runs[one.path] == 1 and shared[id(module.get_submodule(one.path))] == 1
    }


def _is_matrix(part: nn.Module, one: Call) -> bool:
    """Of torch's own class, called by position, and padding with nothing but zeros."""
    plain = type(part) in QUANTISED and getattr(part, "padding_mode", "zeros") == "zeros"
    return plain and not one.odd and one.given is not None and one.made is not None


def _follow(recorder: Recorder, node: int | None, ops: set[str]) -> int:
    """The last node behind one by such operations, as long as each is all that reads the one before."""
    assert node is not None
    while len(readers := recorder.nodes[node].readers) == 1 and recorder.nodes[readers[0]].op in ops:
        node = readers[0]
    return node


def _reader(recorder: Recorder, once: Mapping[str, Call], node: int) -> str:
    """The outermost module that is given a tensor and within which all is that reads it; "" where there is none."""
    readers = recorder.nodes[node].readers
    found = [
        path
        for path, one in once.items()
        if one.given == node and not one.odd and all(one.begin <= reader < one.end for reader in readers)
    ]
    return min(found, key=len, default="")


def _is_read(recorder: Recorder, node: int) -> bool:
    """Whether a matrix or another sum reads it, perhaps moved about."""
    readers = [recorder.nodes[reader] for reader in recorder.nodes[_follow(recorder, node, MOVES)].readers]
    return any(reader.weighted or reader.op in ADDITIONS for reader in readers)


def _on_grid(recorder: Recorder, node: int | None, gridded: Mapping[int, str]) -> bool:
    """Whether a tensor lies on a grid, perhaps moved about since."""
    assert node is not None
    while node not in gridded and recorder.nodes[node].op in MOVES:
        node = recorder.nodes[node].makers[0]
    return node in gridded
