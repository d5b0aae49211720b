"""Dataflow: one forward pass of any nn.Module recorded as a graph of tensors, without knowing a class.

Module hooks say which tensors went into each module and came out; a torch function mode says what happened to them in
between. In-place operations make a new node of the same tensor; what is made from weights alone counts as weights.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._pytree import tree_leaves

from shoal.core.errors import BadModel
from shoal.core.example import arguments, failed, tensors, unmarked

PRODUCTS = {"mul", "mul_", "multiply", "__mul__", "__rmul__", "__imul__"}


@dataclass
class Node:
    """A tensor at one moment: an in-place operation makes a new node of the same tensor."""

    shape: tuple[int, ...]
    floating: bool
    makers: tuple[int, ...]  # the nodes it was made from
    op: str
    weighted: bool  # made with weights, other than by a node of its makers
    mixed: bool  # and one of them is a matrix: its channels or places are mixed, not only scaled and shifted
    scaled: bool  # made with weights that are multiplied to it, number by number
    readers: list[int] = field(default_factory=list)


@dataclass
class Call:
    """One call of a module: its main input and output as nodes, the first tensors that go in and come out.

    ``why`` it has none; ``odd``: why a part that takes one tensor and gives one cannot stand in its place; ``form``:
    how it is called, the number of arguments by position and the names of the others; ``written``: whether somebody
    writes to its input or output when it is over.
    """

    path: str
    begin: int  # nodes made before it began
    given: int | None
    made: int | None
    why: str = ""
    odd: str = ""
    form: tuple[str, ...] = ()
    end: int = 0
    written: bool = False
    left: tuple[tuple[Tensor, int], ...] = ()  # its input and output, and how often each was written to till its end


class Recorder(TorchFunctionMode):
    """Records every torch function of one forward pass as a graph of nodes."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.nodes: list[Node] = []
        self.at: dict[int, int] = {}  # id of a live tensor -> its newest node
        self.keep: list[Tensor] = []  # tensors stay alive, so that an id is never given twice
        self.weights = {id(p) for p in (*module.parameters(), *module.buffers())}
        self.calls: list[Call] = []

    def node(self, tensor: Tensor) -> int:
        """The node of a tensor; one that was never made here is an input."""
        if id(tensor) not in self.at:
            self.add(tensor, (), "input")
        return self.at[id(tensor)]

    def add(
        self, tensor: Tensor, makers: tuple[int, ...], op: str, weighted: bool = False, mixed: bool = False
    ) -> None:
        index = len(self.nodes)
        scaled = weighted and op in PRODUCTS
        mixed = mixed and not scaled
        self.nodes.append(Node(tuple(tensor.shape), tensor.is_floating_point(), makers, op, weighted, mixed, scaled))
        for maker in makers:
            self.nodes[maker].readers.append(index)
        self.at[id(tensor)] = index
        self.keep.append(tensor)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        name = name_of(func)
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        made = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        if not made or name == "__get__":
            return out
        weights = [tensor for tensor in given if id(tensor) in self.weights]
        if given and len(weights) == len(given):
            self.weights |= {id(tensor) for tensor in made}  # a view or product of weights alone is a weight
            self.keep += made
            return out
        makers = tuple(self.node(tensor) for tensor in given if id(tensor) not in self.weights)
        mixed = any(weight.dim() > 1 for weight in weights)
        for tensor in made:
            self.add(tensor, makers, name, bool(weights), mixed)
        return out

    def free(self, start: int) -> set[int]:
        """Every node that can be reached from one by operations that use no matrix of weights and keep its shape."""
        shape, reached, front = self.nodes[start].shape, {start}, [start]
        while front:
            for reader in self.nodes[front.pop()].readers:
                node = self.nodes[reader]
                if reader not in reached and not node.mixed and node.shape == shape:
                    reached.add(reader)
                    front.append(reader)
        return reached

    def sources(self, end: int) -> set[int]:
        """Every node that one was made from."""
        found: set[int] = set()
        front = [end]
        while front:
            for maker in self.nodes[front.pop()].makers:
                if maker not in found:
                    found.add(maker)
                    front.append(maker)
        return found


def name_of(func: Any) -> str:
    """The name of a torch function: ``add``, ``__iadd__``; of an exported graph's operator, without its overload."""
    if isinstance(func, OpOverload):
        return str(func.overloadpacket.__name__)
    return (resolve_name(func) or getattr(func, "__name__", "")).rpartition(".")[2]


def record(module: nn.Module, example: Any) -> Recorder:
    """Run the module once (eval, no gradients) and record it; it is left as it was.

    ``example`` is a tensor, a tuple of arguments or a dict of keyword arguments. Raises BadModel if it does not run.
    """
    script = next((path for path, part in module.named_modules() if isinstance(part, torch.jit.ScriptModule)), None)
    if script is not None:
        raise BadModel(
            f"{type(module).__name__}: {script or 'it'} is a script of torch.jit, whose parts cannot be seen; give the "
            "module that was scripted in its place"
        )
    recorder = Recorder(module)
    args, kwargs = arguments(example)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # the fused encoder layer hides its skips
    try:
        with ExitStack() as stack, unmarked(module), torch.no_grad():
            for path, part in module.named_modules():
                if path:
                    _watch(stack, recorder, path, part)
            with recorder:
                module(*args, **kwargs)
        for one in recorder.calls:
            one.written = any(tensor._version != before for tensor, before in one.left)
    except Exception as error:  # whatever a stranger's forward raises, the user must read it
        raise failed(module, error) from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return recorder


def _watch(stack: ExitStack, recorder: Recorder, path: str, part: nn.Module) -> None:
    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        found = tensors((args, kwargs))
        given = recorder.node(found[0]) if found else None
        odd = "" if args and isinstance(args[0], Tensor) else "its first argument is not a tensor"
        form = (str(len(args)), *sorted(kwargs))
        recorder.calls.append(Call(path, len(recorder.nodes), given, None, "" if found else odd, odd, form))

    def after(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        open_call = next(c for c in reversed(recorder.calls) if c.path == path and c.end == 0)
        open_call.end = len(recorder.nodes) + 1
        found = tensors(out)
        if found:
            open_call.made = recorder.node(found[0])
        ends = (*tensors((args, kwargs))[:1], *found[:1])
        open_call.left = tuple((each, each._version) for each in ends if not each.is_inference())
        if not isinstance(out, Tensor):
            odd = f"it gives a {type(out).__name__}, not a tensor"
            open_call.odd = open_call.odd or odd
            open_call.why = open_call.why or ("" if found else odd)

    for handle in (
        part.register_forward_pre_hook(before, with_kwargs=True),
        part.register_forward_hook(after, with_kwargs=True),
    ):
        stack.callback(handle.remove)
