"""Products: multiply-adds of what contracts, by torch's name for it."""

from __future__ import annotations

from math import log2, prod

import torch
from torch import Tensor

from shoal.costing.counting.storage import is_sparse, numbers
from shoal.costing.counting.work import Call, Formula, Work, multiplied

ATTENTION_FLOPS = 5  # beside the products, a score: the softmax
LSTM_FLOPS = 22  # beside the products, a unit and step: three sigmoids, two tanhs, four sums of gates, the cell


def matrix_product(left: Tensor, right: Tensor) -> int | None:
    """Multiply-adds of ``left @ right``, either one possibly sparse or a batch, the right one possibly a vector."""
    if is_sparse(left) and is_sparse(right):
        return _pairs(left, right)
    if is_sparse(right):
        return numbers(right) * (left.shape[-2] if left.ndim > 1 else 1)
    return numbers(left) * (right.shape[-1] if right.ndim > 1 else 1)


def convolution(x: Tensor, weight: Tensor, out: Tensor, transposed: bool) -> int:
    """``weight`` is (out, in / groups, *kernel), or (in, out / groups, *kernel) when transposed."""
    return (x if transposed else out).numel() * prod(weight.shape[1:])


def scores(query: Tensor, key: Tensor) -> int:
    """Numbers in queries by keys; ``query`` is (..., heads, places, dim), keys may have fewer heads, then repeated."""
    return query[..., 0].numel() * key.shape[-2]


def transform(points: int, numbers: int, real: bool) -> int:
    """Multiply-adds of Fourier transforms of so many points each, with so many numbers in all."""
    return round((1.25 if real else 2.5) * numbers * log2(points))


def _pairs(left: Tensor, right: Tensor) -> int | None:
    """Stored numbers of two sparse matrices that meet."""
    if left.is_meta or left.ndim != 2:
        return None
    columns = torch.bincount(left.to_sparse_coo().coalesce().indices()[1], minlength=left.shape[1])
    rows = torch.bincount(right.to_sparse_coo().coalesce().indices()[0], minlength=left.shape[1])
    return int(columns @ rows)


def _complex(call: Call) -> int:
    return 4 if call.first.is_complex() else 1


def _product(first: int) -> Formula:
    def formula(call: Call) -> Work:
        left, right = call.args[first : first + 2]
        macs = matrix_product(left, right)
        return multiplied(None if macs is None else macs * _complex(call), (left, right))

    return formula


def _by_columns(call: Call) -> Work:
    """(..., inputs) times a matrix that may be packed, to (..., outputs)."""
    return multiplied(call.args[0].numel() * call.first.shape[-1] * _complex(call), call.args[:2])


def _grouped(call: Call) -> Work:
    """Rows or columns in groups, a matrix each; (groups, rows, inner) @ (inner, all columns) shares the columns out."""
    left, right = call.args[:2]
    return multiplied(left.numel() * right.shape[-1] // (left.shape[0] if left.ndim > right.ndim else 1), (left, right))


def _outer(call: Call) -> Work:
    return multiplied(call.first.numel() * _complex(call), call.args[1:3])


def _convolution(call: Call) -> Work:
    macs = convolution(call.args[0], call.args[1], call.first, bool(call.args[6]))
    return multiplied(macs * _complex(call), call.args[:2])


def _one_way(call: Call) -> Work:
    return multiplied(convolution(call.args[0], call.args[1], call.first, False), call.args[:2])


def _time_first(call: Call) -> Work:
    """The weight is (kernel, in, out)."""
    return multiplied(call.first.numel() * prod(call.args[1].shape[:2]), call.args[:2])


def _convolution_backward(call: Call) -> Work:
    """As much again for the gradient of the input, and of the weight, where they are asked for."""
    out, x, weight = call.args[:3]
    macs = convolution(x, weight, out, call.named("transposed")) * sum(call.named("output_mask")[:2])
    return multiplied(macs, (out, weight))


def _packed_convolution(call: Call) -> Work:
    x, packed = call.args[:2]
    weight, _ = packed.unpack()
    return multiplied(convolution(x, weight, call.first, bool(packed.transpose())), (x, packed))


def _attention(call: Call) -> Work:
    query, key, value = call.args[:3]
    found = scores(query, key)
    return multiplied(found * (query.shape[-1] + value.shape[-1]), (query, key, value), ATTENTION_FLOPS * found)


def _lstm_layer(call: Call) -> Work:
    x, into, back = call.args[:3]  # (places, batch, inputs), (4 units, inputs), (4 units, units)
    places = x.shape[0] * x.shape[1]
    macs = places * (into.numel() + back.numel())
    return multiplied(macs, (x, into), LSTM_FLOPS * places * back.shape[-1], x.shape[0])


def _cudnn_layers(call: Call) -> Work:
    x, weights = call.args[:2]
    places = x[..., 0].numel()
    steps = x.shape[1 if call.named("batch_first") else 0] * call.named("num_layers")
    macs = places * sum(weight.numel() for weight in weights if weight.ndim == 2)
    return multiplied(macs, (x, weights[0]), LSTM_FLOPS * call.first.numel(), steps)


def _packed_layers(gates: int) -> Formula:
    """Recurrent layers of packed weights, whose shapes follow from the input's and the state's."""

    def formula(call: Call) -> Work:
        if not call.func._overloadname.startswith("input"):
            return Work(None, factors=call.args)  # sequences of several lengths, laid end to end
        x, states, weights = call.args[:3]
        layers, ways = call.named("num_layers"), 2 if call.named("bidirectional") else 1
        units = (states[0] if gates == 4 else states).shape[-1]
        inputs = x.shape[-1] + (layers - 1) * ways * units  # of all layers
        macs = x[..., 0].numel() * ways * gates * units * (inputs + layers * units)
        steps = x.shape[1 if call.named("batch_first") else 0] * layers
        return multiplied(macs, (x, weights[0]), LSTM_FLOPS * x[..., 0].numel() * ways * units * layers, steps)

    return formula


def _bilinear(call: Call) -> Work:
    """Three factors, each spread along the axes it lacks, and summed: entries of the product of all three."""
    shapes = []
    for factor, spread in zip(call.args[:3], call.args[3:6], strict=True):
        shape = list(factor.shape)
        for axis in sorted(spread):
            shape.insert(axis, 1)
        shapes.append(shape)
    macs = prod(torch.broadcast_shapes(*shapes)) * _complex(call)
    return Work(macs, 3 * macs, call.args[:3])


def _distances(call: Call) -> Work:
    rows = call.args[0]
    return multiplied(call.first.numel() * rows.shape[-1], call.args[:2], call.first.numel())


def _grid(call: Call) -> Work:
    theta = call.args[0]  # (batch, axes, axes + 1)
    return multiplied(call.first.numel() * theta.shape[-1], (theta, None))


def _fourier(call: Call) -> Work:
    x, axes = call.args[:2]
    real = x if not x.is_complex() else call.first  # the side with all points
    points = prod(real.shape[axis] for axis in axes)
    return multiplied(transform(points, real.numel(), not (x.is_complex() and call.first.is_complex())), ())


PRODUCTS: dict[str, Formula] = {
    **dict.fromkeys(("mm", "bmm", "mv", "dot", "vdot", "_int_mm", "_scaled_mm", "hspmm"), _product(0)),
    **dict.fromkeys(("_sparse_sparse_matmul", "_sparse_mm"), _product(0)),
    **dict.fromkeys(("addmm", "baddbmm", "addbmm", "addmv", "_addmm_activation"), _product(1)),
    **dict.fromkeys(("_sparse_addmm", "sspaddmm"), _product(1)),
    **dict.fromkeys(("linear", "mkldnn_linear", "_weight_int8pack_mm"), _by_columns),
    **dict.fromkeys(
        [f"quantized.linear{relu}{how}" for relu in ("", "_relu") for how in ("", "_dynamic", "_dynamic_fp16")],
        _by_columns,
    ),
    **dict.fromkeys(("_grouped_mm", "_scaled_grouped_mm"), _grouped),
    "addr": _outer,
    **dict.fromkeys(("convolution", "_convolution", "convolution_overrideable"), _convolution),
    **dict.fromkeys(("mkldnn_convolution", "_slow_conv2d_forward", "slow_conv3d_forward"), _one_way),
    **dict.fromkeys(("slow_conv_dilated2d", "slow_conv_dilated3d"), _one_way),
    **dict.fromkeys(("_conv_depthwise2d", "conv_depthwise3d"), _one_way),
    "conv_tbc": _time_first,
    "convolution_backward": _convolution_backward,
    **dict.fromkeys(
        [
            f"quantized.conv{axes}d{relu}{how}"
            for axes in (1, 2, 3)
            for relu in ("", "_relu")
            for how in ("", "_dynamic")
        ]
        + [f"quantized.conv_transpose{axes}d{how}" for axes in (1, 2, 3) for how in ("", "_dynamic")],
        _packed_convolution,
    ),
    **dict.fromkeys(
        [f"_scaled_dot_product_{kind}_attention" for kind in ("flash", "efficient", "cudnn")]
        + ["_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_attention_math_for_mps"]
        + ["_scaled_dot_product_fused_attention_overrideable", "higher_order.flex_attention"],
        _attention,
    ),
    "mkldnn_rnn_layer": _lstm_layer,
    "_cudnn_rnn": _cudnn_layers,
    "quantized_lstm": _packed_layers(4),
    "quantized_gru": _packed_layers(3),
    "_trilinear": _bilinear,
    **dict.fromkeys(("_euclidean_dist", "_cdist_forward", "_pdist_forward"), _distances),
    "affine_grid_generator": _grid,
    **dict.fromkeys(("_fft_c2c", "_fft_r2c", "_fft_c2r"), _fourier),
}
