"""Formulas: multiply-adds of one operation, as executed.

    matrix product      entries of the left times columns of the right
    convolution         entries of the output (transposed: of the input) times weights that one entry meets
    attention           two matrix products: queries by keys, weights by values; a mask saves nothing
    LSTM layer          (inputs + state) * 4 units, each step
    outer product       entries of a product that is larger than both its factors, since a sum normally follows

Complex numbers take four real multiply-adds each. Element-by-element work (norms, activations, gates, residual sums,
gathers and scatters) is no multiply-add. What contracts but stands in no formula is said by name, never counted as 0.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Work(NamedTuple):
    """What one operation does: its multiply-adds (None: not known) and the tensors that it multiplies."""

    macs: int | None
    factors: Sequence[Any]
    steps: int = 1


def matrix_product(left: Tensor, right: Tensor) -> int:
    """Multiply-adds of ``left @ right``, either one of them possibly a batch, the right one possibly a vector."""
    return left.numel() * (right.shape[-1] if right.ndim > 1 else 1)


def convolution(x: Tensor, weight: Tensor, out: Tensor, transposed: bool) -> int:
    """``weight`` is (out, in / groups, *kernel), or (in, out / groups, *kernel) when transposed."""
    return (x if transposed else out).numel() * prod(weight.shape[1:])


def attention(query: Tensor, key: Tensor, value: Tensor) -> int:
    """``query`` is (..., heads, places, dim); keys and values may have fewer heads, which are then repeated."""
    return query[..., 0].numel() * key.shape[-2] * (query.shape[-1] + value.shape[-1])


def _product(first: int) -> Callable[..., Work]:
    def work(args: Sequence[Any], out: Any) -> Work:
        left, right = args[first : first + 2]
        return Work(matrix_product(left, right), (left, right))

    return work


def _convolution(args: Sequence[Any], out: Any) -> Work:
    return Work(convolution(args[0], args[1], out, bool(args[6])), args[:2])


def _attention(args: Sequence[Any], out: Any) -> Work:
    return Work(attention(*args[:3]), args[:3])


def _recurrent_layer(args: Sequence[Any], out: Any) -> Work:
    x, into, back = args[:3]  # (places, batch, inputs), (4 units, inputs), (4 units, units)
    places = x.shape[0] * x.shape[1]
    return Work(places * (into.numel() + back.numel()), (x, into), steps=x.shape[0])


FORMULAS: dict[str, Callable[[Sequence[Any], Any], Work]] = {
    **dict.fromkeys(("mm", "bmm", "mv", "dot", "vdot", "_int_mm", "_scaled_mm"), _product(0)),
    **dict.fromkeys(("addmm", "baddbmm", "addbmm", "addmv", "_addmm_activation"), _product(1)),
    **dict.fromkeys(("convolution", "_convolution", "convolution_overrideable"), _convolution),
    **dict.fromkeys(
        [f"_scaled_dot_product_{kind}_attention" for kind in ("flash", "efficient", "cudnn")]
        + ["_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_attention_math_for_mps"]
        + ["_scaled_dot_product_fused_attention_overrideable"],
        _attention,
    ),
    "mkldnn_rnn_layer": _recurrent_layer,
}

_CONTRACTS = re.compile(
    r"fft|mm(_|$)|matmul|mv(_|$)|addr(_|$)|dot(_|$)|linear(_|$)|conv(olution|_|\d)|rnn|lstm|gru|attention|cdist"
    r"|euclidean_dist|linalg|cholesky|(?<!re)solve|transformer_encoder"
)
_HARMLESS = re.compile(r"fftfreq|fftshift|vector_norm|matrix_norm|linalg_(check|diagonal|cross)|fused_(lstm|gru)_cell")
_KNOWN_SPACES = {"aten", "prim", "prims", "profiler"}


def work_of(func: Any, args: Sequence[Any], out: Any) -> Work | None:
    """What an operation multiplies, or None when it multiplies nothing together but element by element."""
    space, _, name = name_of(func).partition(".")
    if space not in _KNOWN_SPACES:
        return Work(None, args)
    name = name.rstrip("_")
    strided = all(arg.layout is torch.strided for arg in args if isinstance(arg, Tensor))
    if name in FORMULAS and strided:
        work = FORMULAS[name](args, out)
        return work._replace(macs=4 * (work.macs or 0)) if out_of(out).is_complex() else work
    if name in FORMULAS or (_CONTRACTS.search(name) and not _HARMLESS.search(name)):
        return Work(None, args)
    if name == "mul" and all(isinstance(arg, Tensor) for arg in args[:2]):
        return _outer_product(args[0], args[1], out)
    return None


def name_of(func: Any) -> str:
    """``aten.mm`` for any overload of it; a higher order operator has its own name."""
    schema = getattr(func, "_schema", None)
    return schema.name.replace("::", ".") if schema is not None else f"higher_order.{func}"


def out_of(out: Any) -> Tensor:
    """The main output of an operation."""
    return out if isinstance(out, Tensor) else out[0]


def _outer_product(left: Tensor, right: Tensor, out: Tensor) -> Work | None:
    if out.numel() <= max(left.numel(), right.numel()) or not (out.is_floating_point() or out.is_complex()):
        return None
    matrices = all(sum(size > 1 for size in factor.shape) > 1 for factor in (left, right))
    return Work(out.numel() * (4 if out.is_complex() else 1), (left, right) if matrices else ())
