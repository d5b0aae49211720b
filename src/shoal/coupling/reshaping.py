"""Reshaping: rules of the operations that move, cut, copy and make axes and compute nothing; views are in ``views``."""

from __future__ import annotations

import numpy as np

from shoal.coupling.following import Follow, Rule, alike, axis_of, listed, made_here, together, unknown
from shoal.coupling.labels import Axes
from shoal.coupling.recording import Operation
from shoal.coupling.views import view


def permute(follow: Follow, op: Operation) -> list[Axes]:
    """Axes in another order."""
    axes = follow.of(op.given["self"])
    return [tuple(axes[axis_of(place, len(axes))] for place in op.given["dims"])]


def transpose(follow: Follow, op: Operation) -> list[Axes]:
    """Two axes change places; the only two where none are named."""
    axes = list(follow.of(op.given["self"]))
    if len(axes) > 1:
        one, other = (axis_of(op.given.get(f"dim{i}", i), len(axes)) for i in (0, 1))
        axes[one], axes[other] = axes[other], axes[one]
    return [tuple(axes)]


def unsqueeze(follow: Follow, op: Operation) -> list[Axes]:
    """One more axis, of size one."""
    axes = list(follow.of(op.given["self"]))
    axes.insert(axis_of(op.given["dim"], len(axes) + 1), follow.labels.fresh(1))
    return [tuple(axes)]


def squeeze(follow: Follow, op: Operation) -> list[Axes]:
    """Axes of size one go: those named, or all."""
    axes, dim = follow.of(op.given["self"]), op.given.get("dim")
    named = range(len(axes)) if dim is None else [axis_of(d, len(axes)) for d in listed(dim)]
    return [tuple(axis for place, axis in enumerate(axes) if place not in named or len(axis) > 1)]


def expand(follow: Follow, op: Operation) -> list[Axes]:
    """Single axes repeated; the copies are as many as whatever they meet."""
    axes, shape = follow.of(op.given["self"]), follow.shape(op.made[0])
    made = [follow.labels.fresh(size) for size in shape]
    for place in range(-len(axes), 0):
        if len(axes[place]) == shape[place]:
            made[place] = axes[place]
    for axis in made:
        follow.note(len(axis), axis)
    return [tuple(made)]


def repeat(follow: Follow, op: Operation) -> list[Axes]:
    """Whole axes repeated, one copy behind the other."""
    axes, times = follow.of(op.given["self"]), list(op.given["repeats"])
    lead = len(times) - len(axes)
    new = [follow.labels.fresh(n) for n in times[:lead]]
    return [(*new, *(np.tile(axis, n) for axis, n in zip(axes, times[lead:], strict=True)))]


def slice_(follow: Follow, op: Operation) -> list[Axes]:
    """Some of an axis; its ends may be numbers of the code."""
    axes = list(follow.of(op.given["self"]))
    place = axis_of(op.given.get("dim", 0), len(axes))
    whole = axes[place]
    start, stop, step = (op.given.get(name) for name in ("start", "end", "step"))
    axes[place] = whole[slice(start, stop, step)]
    for bound in (start, stop):
        if bound and 0 < abs(bound) < len(whole):
            follow.note(abs(bound), whole[:bound] if bound > 0 else whole[bound:])
    return [tuple(axes)]


def select(follow: Follow, op: Operation) -> list[Axes]:
    """One index of an axis, by its number."""
    axes = list(follow.of(op.given["self"]))
    gone = axes.pop(axis_of(op.given["dim"], len(axes)))
    follow.labels.pin(gone, f"one of it is picked by its number {follow.here}")
    return [tuple(axes)]


def unbind(follow: Follow, op: Operation) -> list[Axes]:
    """Every index of an axis for itself."""
    return select(follow, op) * len(op.made)


def split(follow: Follow, op: Operation) -> list[Axes]:
    """Pieces of an axis. Where they are alike, what lies at one place of each goes together, so that they stay so."""
    axes = list(follow.of(op.given["self"]))
    place = axis_of(op.given.get("dim", 0), len(axes))
    sizes = [follow.shape(number)[place] for number in op.made]
    pieces = np.split(axes[place], np.cumsum(sizes)[:-1])
    if len(set(sizes)) == 1:
        for piece in pieces[1:]:
            follow.labels.unite(pieces[0], piece)
    for piece in pieces:
        follow.note(len(piece), piece)
    return [(*axes[:place], piece, *axes[place + 1 :]) for piece in pieces]


def cat(follow: Follow, op: Operation) -> list[Axes]:
    """One behind the other along an axis; all others go together."""
    shape = follow.shape(op.made[0])
    given = [axes for axes in map(follow.of, op.given["tensors"]) if len(axes) == len(shape)]
    place = axis_of(op.given.get("dim", 0), len(shape))
    along = np.concatenate([axes[place] for axes in given])
    return [(*_rest(follow, [axes[:place] for axes in given]), along, *_rest(follow, [a[place + 1 :] for a in given]))]


def stack(follow: Follow, op: Operation) -> list[Axes]:
    """A new axis, along which there are so many tensors."""
    given = [follow.of(value) for value in op.given["tensors"]]
    axes = list(_rest(follow, given))
    place = axis_of(op.given.get("dim", 0), len(axes) + 1)
    axes.insert(place, follow.labels.fixed(len(given), f"so many tensors are stacked {follow.here}"))
    return [tuple(axes)]


def _rest(follow: Follow, given: list[Axes]) -> Axes:
    for axes in given[1:]:
        for one, other in zip(given[0], axes, strict=True):
            follow.labels.unite(one, other)
    return given[0]


def pad(follow: Follow, op: Operation) -> list[Axes]:
    """Zeros before and behind. Where there are as many on both sides, they go in pairs: one number says how many."""
    axes, widths = list(follow.of(op.given["self"])), list(op.given["pad"])
    for i in range(len(widths) // 2):
        place, (before, behind) = len(axes) - 1 - i, widths[2 * i : 2 * i + 2]
        inner = axes[place][max(-before, 0) : len(axes[place]) - max(-behind, 0)]
        sides = [follow.labels.fresh(max(n, 0)) for n in (before, behind)]
        if before == behind:
            follow.labels.unite(*sides)
        for side in sides:
            if len(side):
                follow.note(len(side), side)
        axes[place] = np.concatenate([sides[0], inner, sides[1]])
    return [tuple(axes)]


def flip(follow: Follow, op: Operation) -> list[Axes]:
    """Some axes backwards."""
    axes = list(follow.of(op.given["self"]))
    for dim in op.given["dims"]:
        place = axis_of(dim, len(axes))
        axes[place] = axes[place][::-1]
    return [tuple(axes)]


def restrided(follow: Follow, op: Operation) -> list[Axes]:
    """The same tensor in another order of memory; whatever else it may be is not known."""
    axes = follow.of(op.given["self"])
    same = follow.shape(op.made[0]) == follow.shape(op.values()[0])
    return [axes] if same else unknown(follow, op)


def shuffled_out(follow: Follow, op: Operation) -> list[Axes]:
    """Pixel shuffle: channels laid out into places; the channels of one place go together."""
    *lead, channels, _, _ = follow.of(op.given["self"])
    grid = channels.reshape(follow.shape(op.made[0])[-3], -1)
    follow.labels.unite(grid, grid[:, :1])
    places = [follow.labels.fixed(size, "it is a place") for size in follow.shape(op.made[0])[-2:]]
    return [(*lead, grid[:, 0], *places)]


def shuffled_in(follow: Follow, op: Operation) -> list[Axes]:
    """Pixel unshuffle: places laid into channels."""
    *lead, channels, _, _ = follow.of(op.given["self"])
    times = follow.shape(op.made[0])[-3] // len(channels)
    places = [follow.labels.fixed(size, "it is a place") for size in follow.shape(op.made[0])[-2:]]
    return [(*lead, np.repeat(channels, times), *places)]


def windows(follow: Follow, op: Operation) -> list[Axes]:
    """Windows that slide along an axis: it stays, and so do they."""
    axes = list(follow.of(op.given["self"]))
    place, why = axis_of(op.given["dimension"], len(axes)), f"windows slide along it {follow.here}"
    follow.labels.pin(axes[place], why)
    *_, size = shape = follow.shape(op.made[0])
    axes[place] = follow.labels.fixed(shape[place], why)
    return [(*axes, follow.labels.fixed(size, why))]


def like(follow: Follow, op: Operation) -> list[Axes]:
    """A new tensor of the shape of another."""
    return [follow.of(op.given["self"])]


def as_real(follow: Follow, op: Operation) -> list[Axes]:
    """A complex number as two."""
    return [(*follow.of(op.given["self"]), follow.labels.fixed(2, "it is a complex number's two halves"))]


def as_complex(follow: Follow, op: Operation) -> list[Axes]:
    """Two numbers as a complex one."""
    *axes, halves = follow.of(op.given["self"])
    follow.labels.pin(halves, "it is a complex number's two halves")
    return [tuple(axes)]


def shuffled(follow: Follow, op: Operation) -> list[Axes]:
    """The channels of all groups in turn; those at one place of every group go together."""
    batch, channels, *places = follow.of(op.given["self"])
    grid = channels.reshape(op.given["groups"], -1)
    follow.labels.unite(grid, grid[:1])
    return [(batch, grid.T.ravel(), *places)]


RESHAPING: dict[str, Rule] = {
    **alike("view _unsafe_view reshape _reshape_alias _reshape_copy", view),
    **alike("transpose t", transpose),
    **alike("cat concat", cat),
    **alike("split split_with_sizes unsafe_split unsafe_split_with_sizes chunk unsafe_chunk", split),
    **alike("clone detach alias copy _to_copy lift_fresh lift_fresh_copy contiguous", together),
    **alike("fill zero bernoulli normal uniform native_dropout dropout _conj resolve_conj complex polar", together),
    **alike(
        "_prelu_kernel hardswish log_sigmoid_forward rrelu_with_noise floor_divide _weight_norm_interface", together
    ),
    **alike("zeros_like ones_like full_like empty_like rand_like randn_like", like),
    **alike("new_zeros new_ones new_full new_empty", made_here),
    **alike("channel_shuffle native_channel_shuffle", shuffled),
    "as_strided": restrided,
    "pixel_shuffle": shuffled_out,
    "pixel_unshuffle": shuffled_in,
    "unfold": windows,
    "permute": permute,
    "unsqueeze": unsqueeze,
    "squeeze": squeeze,
    "expand": expand,
    "repeat": repeat,
    "slice": slice_,
    "select": select,
    "unbind": unbind,
    "stack": stack,
    "constant_pad_nd": pad,
    "flip": flip,
    "view_as_real": as_real,
    "view_as_complex": as_complex,
}
