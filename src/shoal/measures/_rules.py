"""Rules: how relevance goes back through each operation, written as the gradients of one run.

matrices        R_i = sum_j (x_i w_ij)^+ / sum_i (x_i w_ij)^+ R_j      linear, convolutions; biases get nothing
sums            R_a = |a| / (|a| + |b|) R                              of two tensors that both come from the input
means, pools    R_i = x_i^+ / sum x^+ R                                over what is pooled
all else        R                                                      activations, norms, scales, shapes, largest ones

What a norm or a scale with a negative factor makes of a matrix is made of its negative parts: there relevance goes back
with a minus sign, and the matrix takes (x_i w_ij)^-.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from shoal.core.errors import Refused
from shoal.core.example import tensors
from shoal.dataflow import name_of

MATRICES = {"linear", "conv1d", "conv2d", "conv3d"}
PRODUCTS = {"matmul", "__matmul__"}
SUMS = {"add", "add_", "__add__", "__radd__", "__iadd__"}
SCALES = {"mul", "mul_", "__mul__", "__rmul__", "__imul__", "div", "div_", "__truediv__", "__itruediv__"}
POOLS = {"mean", "sum", "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d"}
NORMS = {"batch_norm", "layer_norm", "rms_norm", "group_norm"}
ACTIVATIONS = {"relu", "relu_", "relu6", "gelu", "silu"}
SHAPES = {
    *("reshape", "view", "flatten", "unflatten", "permute", "transpose", "movedim", "squeeze", "unsqueeze", "expand"),
    *("contiguous", "clone", "chunk", "split", "unbind", "cat", "stack", "__getitem__", "__get__", "narrow", "select"),
    *(
        "pad",
        "max_pool1d",
        "max_pool2d",
        "max_pool3d",
        "adaptive_max_pool2d",
        "amax",
        "dropout",
        "to",
        "float",
        "double",
    ),
}
WRITES = {"relu_", "add_", "__iadd__", "mul_", "__imul__", "div_", "__itruediv__"}
SMALL = 1e-30

Tell = Callable[[Tensor], None]


class _Matrix(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, run: Callable[[Tensor, Tensor], Tensor], out: Tensor) -> Tensor:
        ctx.x, ctx.weight, ctx.run = x.detach().clone(), weight.detach(), run
        return out.clone()

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> Any:
        shares = [_shared(ctx.run, ctx.x, ctx.weight * sign, (given[0] * sign).clamp_min(0)) for sign in (1, -1)]
        return shares[0] + shares[1], None, None, None


def _shared(run: Callable[[Tensor, Tensor], Tensor], x: Tensor, weight: Tensor, relevance: Tensor) -> Tensor:
    """Relevance in the shares of the positive (x_i w_ij)."""
    with torch.enable_grad():
        parts = [x.detach().clamp_min(0).requires_grad_(), x.detach().clamp_max(0).requires_grad_()]
        whole = run(parts[0], weight.clamp_min(0)) + run(parts[1], weight.clamp_max(0))
        pulls = torch.autograd.grad(whole, parts, relevance / whole.detach().clamp_min(SMALL))
    return parts[0].detach() * pulls[0] + parts[1].detach() * pulls[1]


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, out: Tensor, tell: Sequence[Tell | None]) -> Tensor:
        ctx.parts, ctx.tell = (a.detach().clone(), b.detach().clone()), tell
        return out.clone()

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> Any:
        a, b = (each.abs() + SMALL for each in ctx.parts)
        shares = [given[0].abs() * (each / (a + b)) for each in (a, b)]
        for share, tell in zip(shares, ctx.tell, strict=True):
            if tell is not None:
                tell(share)
        return shares[0].sum_to_size(a.shape), shares[1].sum_to_size(b.shape), None, None


class _Pool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, run: Callable[[Tensor], Tensor], out: Tensor) -> Tensor:
        ctx.x, ctx.run = x.detach().clone(), run
        return out.clone()

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> Any:
        with torch.enable_grad():
            x = ctx.x.clamp_min(0).requires_grad_()
            whole = ctx.run(x)
            pull = torch.autograd.grad(whole, x, given[0].abs() / whole.detach().clamp_min(SMALL))[0]
        return x.detach() * pull, None, None


class _Through(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, out: Tensor, factor: Tensor | None) -> Tensor:
        ctx.shape, ctx.factor = x.shape, factor
        return out.clone()

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> Any:
        relevance = given[0].abs().sum_to_size(ctx.shape)
        if ctx.factor is not None:
            relevance = torch.where(ctx.factor < 0, -relevance, relevance)
        return relevance, None, None


class Rules(TorchFunctionMode):
    """A run in which gradients are relevances: of all that comes from a tensor with a gradient.

    ``inside``, where it is a function, is told what relevance a sum gives to the side that went through a matrix since
    ``open``. Raises Refused at an operation that there is no rule for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first: Tensor | None = None  # what the first embedding gives
        self.inside: Tell | None = None
        self._through: dict[int, Tensor] = {}  # what came through a matrix since then; kept alive
        self._matrices: dict[int, Tensor] = {}  # what matrices gave

    def open(self, inside: Tell | None) -> None:
        """From here on, sums are told of to this one, or to none."""
        self.inside, self._through = inside, {}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs, name = kwargs or {}, name_of(func)
        flows = [tensor for tensor in tensors((args, kwargs)) if tensor.requires_grad]
        if not flows:
            out = func(*args, **kwargs)
            if name == "embedding" and self.first is None:
                self.first = out.requires_grad_()
                return out.clone()  # it may be written to
            return out
        if name in SHAPES:
            return self._passed(func(*args, **kwargs), flows)
        written = name in WRITES or kwargs.get("inplace") is True or (name in ACTIVATIONS and args[1:2] == (True,))
        with torch.no_grad():
            copied = tree_map_only(Tensor, torch.clone, (args, kwargs)) if written else (args, kwargs)
            out = func(*copied[0], **copied[1])
        if not any(tensor.is_floating_point() for tensor in tensors(out)):
            return out
        found = self._ruled(name, func, args, kwargs, flows, out)
        if written:  # what was written to is from now on what the rule gives
            found = args[0].copy_(found)
        elif name in MATRICES | PRODUCTS:
            self._through[id(found)] = self._matrices[id(found)] = found
        if name not in SUMS or len(flows) < 2:
            self._passed(found, flows)
        return found

    def _passed(self, out: Any, flows: Sequence[Tensor]) -> Any:
        """What is made from something that came through a matrix came through it too."""
        if any(id(flow) in self._through for flow in flows):
            self._through.update({id(tensor): tensor for tensor in tensors(out)})
        return out

    def _ruled(
        self, name: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], flows: Sequence[Tensor], out: Tensor
    ) -> Tensor:
        """The output with the rule of its operation for a gradient."""
        alone = len(flows) == 1 and bool(args) and args[0] is flows[0]
        found, factor = None, None
        if name in SUMS and len(flows) == 2 and "alpha" not in kwargs:
            through = [id(flow) in self._through for flow in flows]
            tells = [self.inside if one and not all(through) else None for one in through]
            for flow in flows if not all(through) else ():
                self._through.pop(id(flow), None)  # a sum that is written in place is the stream again
            found = _Sum.apply(*flows, out, tells)
        elif name in SUMS and len(flows) == 1:
            found = _Through.apply(flows[0], out, None)
        elif name in SCALES and len(flows) == 1 and (alone or "div" not in name):
            factor = torch.as_tensor(args[1] if alone else args[0])
            found = _Through.apply(flows[0], out, factor if id(flows[0]) in self._matrices else None)
        elif alone and name in ACTIVATIONS:
            found = _Through.apply(flows[0], out, None)
        elif alone and name in NORMS:
            factor = _factor(name, flows[0], args, kwargs) if id(flows[0]) in self._matrices else None
            found = _Through.apply(flows[0], out, factor)
        elif alone and name in POOLS:
            found = _Pool.apply(flows[0], lambda x: func(x, *args[1:], **kwargs), out)
        elif alone and name in MATRICES:
            weight = args[1] if len(args) > 1 else kwargs["weight"]
            others = {key: value for key, value in kwargs.items() if key not in ("weight", "bias")}
            found = _Matrix.apply(flows[0], weight, lambda x, w: func(x, w, None, *args[3:], **others), out)
        elif alone and name in PRODUCTS:
            found = _Matrix.apply(flows[0], args[1], func, out)
        if found is None:
            raise Refused(
                f"measure deep_taylor: there is no rule for {name!r} here; leave the measure out for such modules"
            )
        return found


def _factor(name: str, x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """What a norm multiplies by, one number a channel, as it lies along x."""
    at = 3 if name == "batch_norm" else 2
    weight: Tensor | None = args[at] if len(args) > at else kwargs.get("weight")
    if weight is None or name not in ("batch_norm", "group_norm"):
        return weight
    return weight.reshape(-1, *(1 for _ in x.shape[2:]))
