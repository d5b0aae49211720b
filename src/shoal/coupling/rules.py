"""Rules of the operations that compute: products, convolutions, norms, sums, pools, attention.

A product unites what it sums over; a norm, a mean, a maximum or a softmax along an axis pins it, for there the others
change when one goes.

Longer than the house's 250 lines by a few: each rule is a few lines, and is checked against those beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from shoal.coupling.following import Follow, Rule, alike, axis_of, listed
from shoal.coupling.labels import Axes, Axis
from shoal.coupling.lookups import LOOKUPS
from shoal.coupling.recording import Operation, Value
from shoal.coupling.reshaping import RESHAPING


def product(follow: Follow, op: Operation) -> list[Axes]:
    """Matrices and rows of them: (..., m, k) (..., k, n); what is added to it goes with it."""
    one, other = (follow.of(number) for number in op.values()[-2:])
    follow.labels.unite(one[-1], other[-2] if len(other) > 1 else other[-1])
    batch = follow.joined([one[:-2], other[:-2]], tuple(len(axis) for axis in one[:-2]))
    made = (*batch, *one[-2:-1], *(other[-1:] if len(other) > 1 else ()))
    if len(op.values()) > 2:  # a bias
        made = follow.joined([made, follow.of(op.given["self"])], follow.shape(op.made[0]))
    return [made]


def linear(follow: Follow, op: Operation) -> list[Axes]:
    """x W^T + b, where it is one operation."""
    x, weight = follow.of(op.given["input"]), follow.of(op.given["weight"])
    follow.labels.unite(x[-1], weight[1])
    _unite_all(follow, weight[0], [op.given.get("bias")])
    return [(*x[:-1], weight[0])]


def trilinear(follow: Follow, op: Operation) -> list[Axes]:
    """Three tensors multiplied number by number, each with axes of one put in where it has none, and some summed."""
    summed_over = [
        axis_of(dim, len(op.given["expand1"]) + len(follow.of(op.given["i1"]))) for dim in op.given["sumdim"]
    ]
    places: dict[int, list[Axis]] = {}
    for name, expand in (("i1", "expand1"), ("i2", "expand2"), ("i3", "expand3")):
        axes = list(follow.of(op.given[name]))
        for place in range(len(axes) + len(op.given[expand])):
            if place not in op.given[expand]:
                places.setdefault(place, []).append(axes.pop(0))
    for several in places.values():
        for other in several[1:]:
            follow.labels.unite(several[0], other)
    return [tuple(places[place][0] for place in sorted(places) if place not in summed_over)]


def convolution(follow: Follow, op: Operation) -> list[Axes]:
    """Channels in and out as a matrix has them, kernels and places stay. In groups: see :func:`_groups`."""
    x, weight, groups = follow.of(op.given["input"]), follow.of(op.given["weight"]), op.given["groups"]
    for axis in weight[2:]:
        follow.labels.pin(axis, "it is an axis of a kernel")
    ins, outs = weight[1], weight[0]
    if op.given["transposed"]:
        ins, outs = outs, ins
        if groups > 1:
            why = f"a transposed convolution in groups {follow.here} is not followed"
            for axis in (x[1], *weight):
                follow.labels.pin(axis, why)
            return [follow.fixed(op.made[0], why)]
    follow.note(len(x[1]), x[1], "in_channels")
    follow.note(len(outs), outs, "out_channels")
    if groups > 1:
        _groups(follow, x[1], ins, outs, groups)
    else:
        follow.labels.unite(x[1], ins)
    _unite_all(follow, outs, [op.given.get("bias")])
    places = [follow.labels.fixed(size, "it is a place, not a channel") for size in follow.shape(op.made[0])[2:]]
    return [(x[0], outs, *places)]


def _groups(follow: Follow, channels: Axis, ins: Axis, outs: Axis, groups: int) -> None:
    """Few large groups shrink all alike, a channel at one place of each going together; many small ones go whole.

    In a depthwise convolution a group is a channel, and takes what is made of it with it.
    """
    grid, made = channels.reshape(groups, -1), outs.reshape(groups, -1)
    if grid.shape[1] >= groups:
        follow.labels.unite(grid, ins[None])
        follow.labels.unite(made, made[:1])
        return
    follow.labels.unite(grid, grid[:, :1])
    follow.labels.unite(made, grid[:, :1])
    follow.labels.pin(ins, f"it stands within a group {follow.here}, and groups go whole")
    follow.note(groups, grid[:, 0], "groups")


def channel_norm(follow: Follow, op: Operation) -> list[Axes]:
    """In eval, a scale and a shift of each channel."""
    x = follow.of(op.given["input"])
    _unite_all(follow, x[1], [op.given.get(name) for name in ("weight", "bias", "running_mean", "running_var")])
    return [x]


def group_norm(follow: Follow, op: Operation) -> list[Axes]:
    """A group of channels is normed together, and goes as a whole."""
    x, groups = follow.of(op.given["input"]), op.given["group"]
    grid = x[1].reshape(groups, -1)
    follow.labels.unite(grid, grid[:, :1])
    follow.note(groups, grid[:, 0], "num_groups")
    _unite_all(follow, x[1], [op.given.get(name) for name in ("weight", "bias")])
    return [x]


def layer_norm(follow: Follow, op: Operation) -> list[Axes]:
    """Along its last axes every number is seen by all."""
    x = follow.of(op.given["input"])
    last = x[len(x) - len(op.given["normalized_shape"]) :]
    for name in ("weight", "bias"):
        value = op.given.get(name)
        if isinstance(value, Value):
            for axis, own in zip(last, follow.of(value), strict=True):
                follow.labels.unite(axis, own)
    for axis in last:
        follow.labels.pin(axis, f"a norm runs along it {follow.here}")
    return [x]


def summed(follow: Follow, op: Operation) -> list[Axes]:
    """A sum: zeros that go change nothing."""
    return _reduced(follow, op, "")


def seen_whole(follow: Follow, op: Operation) -> list[Axes]:
    """A mean, a maximum: what it runs along stays."""
    return _reduced(follow, op, f"{op.name} runs along it {follow.here}")


def along(follow: Follow, op: Operation) -> list[Axes]:
    """A softmax, a running sum, an order: of the same shape, and what it runs along stays."""
    x = follow.of(op.given["self"])
    follow.labels.pin(x[axis_of(op.given.get("dim", -1), len(x))], f"{op.name} runs along it {follow.here}")
    return [x] * len(op.made)


def rolled(follow: Follow, op: Operation) -> list[Axes]:
    """What leaves at one end comes in at the other: by so many, a number of the code."""
    x = follow.of(op.given["self"])
    for axis in [x[place] for place in op.given["dims"]] or x:
        follow.labels.pin(axis, f"it is rolled by a number {follow.here}")
    return [x]


def triangle(follow: Follow, op: Operation) -> list[Axes]:
    """What lies above or below a diagonal: places have numbers."""
    x = follow.of(op.given["self"])
    for axis in x[-2:]:
        follow.labels.pin(axis, f"{op.name} runs along it {follow.here}")
    return [x]


def _reduced(follow: Follow, op: Operation, why: str) -> list[Axes]:
    x, dim = follow.of(op.given["self"]), op.given.get("dim")
    dims = range(len(x)) if dim is None or dim == [] else [axis_of(d, len(x)) for d in listed(dim)]
    if why:
        for place in dims:
            follow.labels.pin(x[place], why)
    kept: list[Axis] = []
    for place, axis in enumerate(x):
        if place not in dims:
            kept.append(axis)
        elif op.given.get("keepdim"):
            kept.append(follow.labels.fresh(1))
    return [tuple(kept)] * len(op.made)


def pool(follow: Follow, op: Operation) -> list[Axes]:
    """Each channel for itself; its places become others."""
    x, shape = follow.of(op.values()[0]), follow.shape(op.made[0])
    spatial = int(next(letter for letter in op.name if letter.isdigit()))  # of a name such as max_pool2d_with_indices
    places = [follow.labels.fixed(size, "it is a place, not a channel") for size in shape[len(shape) - spatial :]]
    return [(*x[: len(x) - spatial], *places)] * len(op.made)


def unfolded(follow: Follow, op: Operation) -> list[Axes]:
    """Patches laid into channels: each channel as many times as the kernel has places."""
    batch, channels, *_ = follow.of(op.given["self"])
    times = follow.shape(op.made[0])[1] // len(channels)
    return [(batch, np.repeat(channels, times), follow.labels.fixed(follow.shape(op.made[0])[2], "it is a place"))]


def attention(follow: Follow, op: Operation) -> list[Axes]:
    """(..., heads, places, size): heads go with heads, and keys that several queries share with all of those."""
    query, key, value = (follow.of(op.given[name]) for name in ("query", "key", "value"))
    batch = list(query[:-2])
    for other in (key[:-2], value[:-2]):
        for place, axis in enumerate(other):
            if len(batch[place]) % len(axis) == 0 and len(axis) > 1:
                follow.labels.unite(batch[place], np.repeat(axis, len(batch[place]) // len(axis)))
    follow.labels.unite(query[-1], key[-1])
    if op.given.get("scale") is None:
        follow.labels.pin(query[-1], f"the scale of the attention {follow.here} is made of it")
    follow.labels.unite(key[-2], value[-2])
    follow.labels.pin(key[-2], f"softmax runs along it {follow.here}")
    mask = op.given.get("attn_mask")
    if isinstance(mask, Value):
        scores = (*batch, query[-2], key[-2])
        follow.joined([scores, follow.of(mask)], tuple(len(axis) for axis in scores))
    return [(*batch, query[-2], value[-1])]


def fourier(follow: Follow, op: Operation) -> list[Axes]:
    """A Fourier transform along some axes, which stay."""
    axes = list(follow.of(op.given["self"]))
    for dim in listed(op.given["dim"]):
        place, why = axis_of(dim, len(axes)), f"a Fourier transform runs along it {follow.here}"
        follow.labels.pin(axes[place], why)
        axes[place] = follow.labels.fixed(follow.shape(op.made[0])[place], why)
    return [tuple(axes)]


def gated(follow: Follow, op: Operation) -> list[Axes]:
    """GLU: one half of an axis scaled by the other."""
    axes = list(follow.of(op.given["self"]))
    place = axis_of(op.given.get("dim", -1), len(axes))
    first, second = np.split(axes[place], 2)
    follow.labels.unite(first, second)
    axes[place] = first
    return [tuple(axes)]


def _unite_all(follow: Follow, axis: Axis, values: Sequence[Any]) -> None:
    for value in values:
        if isinstance(value, Value):
            follow.labels.unite(axis, follow.of(value)[0])


_ADAPTIVE = [f"{way}_pool{n}d" for way in ("_adaptive_avg", "adaptive_avg", "adaptive_max", "avg") for n in (1, 2, 3)]
_UPSAMPLED = [
    f"upsample_{way}" for way in ("nearest1d", "nearest2d", "nearest3d", "linear1d", "bilinear2d", "bicubic2d")
]
_PADDED = [f"{way}_pad{n}d" for way in ("reflection", "replication") for n in (1, 2, 3)]
_SDPA = ("flash_attention_for_cpu", "attention_math", "flash_attention", "efficient_attention", "cudnn_attention")

RULES: dict[str, Rule] = {
    **RESHAPING,
    **LOOKUPS,
    **alike("mm bmm mv dot addmm addmv baddbmm matmul", product),
    **alike("convolution _convolution", convolution),
    **alike("native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training", channel_norm),
    **alike("_batch_norm_with_update batch_norm cudnn_batch_norm", channel_norm),
    **alike("native_layer_norm layer_norm rms_norm _fused_rms_norm", layer_norm),
    **alike("sum linalg_vector_norm norm", summed),
    **alike("mean amax amin argmax argmin max min var std var_mean", seen_whole),
    **alike("logsumexp prod any all median std_mean", seen_whole),
    **alike("_softmax _log_softmax softmax log_softmax _safe_softmax cumsum cumprod", along),
    **alike("sort argsort", along),
    **alike("tril triu", triangle),
    "roll": rolled,
    **dict.fromkeys([f"max_pool{n}d_with_indices" for n in (2, 3)], pool),
    **dict.fromkeys([*_ADAPTIVE, *_UPSAMPLED, *_PADDED], pool),
    **dict.fromkeys([f"_scaled_dot_product_{way}" for way in _SDPA], attention),
    **alike("_fft_r2c _fft_c2c _fft_c2r", fourier),
    "linear": linear,
    "_trilinear": trilinear,
    "native_group_norm": group_norm,
    "im2col": unfolded,
    "glu": gated,
}
