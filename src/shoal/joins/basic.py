"""Basic: the block `basic` with a stride, its shortcut beside it, and an activation behind their sum.

    y = act( shortcut x + norm( second( act( norm( first x ) ) ) ) )        first keeps every `stride`-th place

The shortcut is itself a join: `pad` is option A of the first residual nets, a convolution of 1 x 1 option B.

Shapes   x: (batch, *places, inputs);  y: (batch, *ceil(places / stride), outputs);  places: as many as kernel has sizes
Cost     (inputs + outputs) * outputs * kernel multiply-adds a place of y, as many weights, and what the shortcut costs
Exact when folded in eval with norms of single channels: the same join without norms, its convolutions with biases
Papers   deep-residual-learning-for-image-recognition
"""

from __future__ import annotations

from torch import Tensor

from shoal.core.activations import activation
from shoal.core.base import Join, MakeLinear
from shoal.core.folding import normed
from shoal.core.part import Part, Value
from shoal.joins._shortcut import shortcut_of
from shoal.joins._stride import require_stride
from shoal.kinds import NORMS


class BasicJoin(Join):
    """Settings: `stride`, places a step; `kernel`, its size along each place, odd; `norm`, the norms' kind; `act`, the
    activation's name; `bias`, whether the convolutions have one; `shortcut`, a join as text, without its stride."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        linear: MakeLinear,
        *,
        stride: int = 2,
        kernel: tuple[int, ...] = (3, 3),
        norm: str = "batch",
        act: str = "relu",
        bias: bool = False,
        shortcut: str = "pad",
    ) -> None:
        super().__init__()
        require_stride("basic", stride)
        self.first = linear(inputs, outputs, bias=bias, kernel=kernel)
        self.inner = NORMS.make(Part.parse(norm), outputs, dim=outputs)
        self.second = linear(outputs, outputs, bias=bias, kernel=kernel)
        self.outer = NORMS.make(Part.parse(norm), outputs, dim=outputs)
        self.shortcut = shortcut_of(shortcut, inputs, outputs, stride, linear, norm)
        self.act, self.stride = activation(act), stride
        said: dict[str, Value] = {"stride": stride, "kernel": kernel, "act": act, "shortcut": shortcut}
        self.bare = Part("basic", {**said, "norm": "none", "bias": True})
        self.has_norms = Part.parse(norm).name != "none"

    def folded(self) -> tuple[Part, dict[str, Tensor]] | None:
        """The join without norms of its own that gives the same in eval, and its weights."""
        if not (self.has_norms and self.inner.channelwise and self.outer.channelwise):
            return None
        first, shift = normed(self.first, self.inner)
        second, offset = normed(self.second, self.outer)
        weights = {"first.weight": first, "first.bias": shift, "second.weight": second, "second.bias": offset}
        beside = {f"shortcut.{name}": value for name, value in self.shortcut.state_dict().items()}
        return self.bare, {**weights, **beside}

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.inner.planes(self.first.convolve(x.movedim(-1, 1), self.stride)))
        y = self.outer.planes(self.second.convolve(y)).movedim(1, -1)
        return self.act(self.shortcut(x) + y)
