"""Streams: the layers in streams side by side, each at a coarser resolution than the one before; then merged.

    x_0 = x,  x_s = join_s(x_{s-1})               every `stride`-th as many places
    y_s = the layers of stream s on x_s           each adds to its stream, unless `plain`
    fine      z = y_last,  z <- y_s + map_s(spread z)        back to the places of x
    coarse    z = y_0,     z <- y_s + merge_s(z)             merge: a join like those before

The depth is that of the longest stream. No stream reads another before they are merged, so they may run in any order or
side by side. Where there are no places a stream is only another width.

Shapes   x: (batch, *places, dim);  x_s: (batch, *ceil(places / stride^s), widths[s])
         out: (batch, *places, widths[0]), or with `out` coarse that of the last x_s
Cost     widths[s] * widths[s + 1] multiply-adds a place of x_s for a join or a map (joins of one place)
Exact when count = 1: the residual net, or the plain one
Papers   non-deep-networks
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from shoal.core.base import Branch, MakeLinear, MakeNorm, Wiring
from shoal.core.errors import BadSetting, Refused
from shoal.core.part import Part, Value
from shoal.kinds import JOINS


class Streams(Wiring):
    """Settings: `count` of streams (at most one a layer); `depths`, layers in each (as even as can be, more of them at
    the coarse end, where not said); `widths` of each (dim where not said); `stride` and `join`, the name of what leads
    to the next resolution; `out`, the resolution that leaves: "fine" or "coarse"; `plain`, no stream past a layer."""

    tiny = {"count": 2, "stride": 1}  # a mask in the context fits one number of places only

    def __init__(
        self,
        dim: int,
        depth: int,
        linear: MakeLinear,
        norm: MakeNorm,
        *,
        count: int = 3,
        depths: tuple[int, ...] = (),
        widths: tuple[int, ...] = (),
        stride: int = 2,
        join: str = "downsample",
        out: Literal["fine", "coarse"] = "fine",
        plain: bool = False,
    ) -> None:
        super().__init__(dim, depth)
        if count < 1 or stride < 1:
            raise BadSetting(f"wiring streams: count={count}, stride={stride}; give at least 1 of each")
        count = len(depths) or min(count, depth)
        self.depths = list(depths) or [(depth + s) // count for s in range(count)]
        self.widths = list(widths) or [dim] * count
        if sum(self.depths) != depth or min(self.depths) < 1:
            raise BadSetting(f"wiring streams: depths {list(depths)} must be at least 1 and add up to depth {depth}")
        if len(self.widths) != count or min(self.widths) < 1:
            raise BadSetting(f"wiring streams: widths {list(widths)} must be {count}, each at least 1")
        self.stride, self.coarse, self.plain = stride, out == "coarse", plain
        alike: dict[str, Value] = {"stride": stride, "join": join, "out": out, "plain": plain}
        self.settings = {**alike, "widths": tuple(self.widths)}

        def leads(inputs: int, outputs: int) -> nn.Module:
            offers = {"linear": linear, "norm": norm}
            made: nn.Module = JOINS.make(Part(join, {"stride": stride}), inputs, outputs, dim=outputs, offers=offers)
            return made

        pairs = list(zip(self.widths, self.widths[1:], strict=False))
        self.enter = linear(dim, self.widths[0]) if self.widths[0] != dim else None
        self.joins = nn.ModuleList(leads(*pair) for pair in pairs)
        self.maps = nn.ModuleList(leads(a, b) if self.coarse else linear(b, a) for a, b in pairs)

    def ends(self) -> list[tuple[int, int]]:
        return [(width, width) for width, depth in zip(self.widths, self.depths, strict=True) for _ in range(depth)]

    def out(self) -> int:
        return self.widths[-1 if self.coarse else 0]

    def reads(self) -> list[set[int]]:
        rows: list[set[int]] = []
        last: set[int] = set()
        for depth in self.depths:
            start = len(rows)
            for i in range(start, start + depth):
                rows.append({i if i > start else 0} if self.plain else {0, *range(start + 1, i + 1)})
            last |= {len(rows)} if self.plain else {0, *range(start + 1, len(rows) + 1)}
        return [*rows, last]

    def without(self, index: int) -> dict[str, Value]:
        left = list(self.depths)
        stream = next(s for s in range(len(left)) if index < sum(left[: s + 1]))
        if left[stream] == 1:
            raise Refused(f"wiring streams: layer {index} is the only one of stream {stream}; keep it")
        left[stream] -= 1
        return {**self.settings, "depths": tuple(left)}

    def forward(self, x: Tensor, layers: Sequence[Branch]) -> Tensor:
        x = x if self.enter is None else self.enter(x)
        given, start = [], 0
        for stream, depth in enumerate(self.depths):
            x = self.joins[stream - 1](x) if stream else x
            given.append(self._run(x, layers[start : start + depth]))
            start += depth
        if self.coarse:
            z = given[0]
            for y, merge in zip(given[1:], self.maps, strict=True):
                z = y + merge(z)
            return z
        z = given[-1]
        for y, back in zip(given[-2::-1], reversed(self.maps), strict=True):
            z = y + self._spread(back(z), y)
        return z

    def _run(self, x: Tensor, layers: Sequence[Branch]) -> Tensor:
        for layer in layers:
            x = layer(x) if self.plain else x + layer(x)
        return x

    def _spread(self, z: Tensor, like: Tensor) -> Tensor:
        """Each place of z as often as the stride says, along every axis, up to the places of ``like``."""
        for axis in range(1, z.dim() - 1):
            repeated = z.unsqueeze(axis + 1).expand(*z.shape[: axis + 1], self.stride, *z.shape[axis + 1 :])
            z = repeated.flatten(axis, axis + 1).narrow(axis, 0, like.shape[axis])
        return z
