"""Encoders: from raw new input to what a net takes, as fitted on the training part alone.

    Given    arrays and tensors, untouched
    Shares   each row divided by its sum, for counts such as words of a node
    Bytes    text, as the numbers 0..255
    Pixels   (x / scale - mean) / std, for images and for sequences of numbers
    Table    rows of a table (in columns.py)

Each is a frozen value that goes to JSON and back, so a saved net can be fed raw input anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from shoal.core.errors import BadArtifact, BadData, suggest
from shoal.core.inputs import Inputs
from shoal.data.columns import Table
from shoal.data.given import read_given
from shoal.data.tensors import to_pixels, to_tensor


class Encoder(Protocol):
    """Raw input to prepared input; `kind` is its name in JSON."""

    kind: ClassVar[str]

    def __call__(self, raw: Any) -> Inputs: ...

    def to_json(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Given:
    """Tensors untouched; arrays as tensors of bool, uint8, int64 or float32 (NumPy's own default is float64); a dict of
    such as one."""

    kind: ClassVar[str] = "given"

    def __call__(self, raw: Any) -> Inputs:
        return read_given(raw, "x")

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind}

    @classmethod
    def from_json(cls, _: dict[str, Any]) -> Given:
        return cls()


@dataclass(frozen=True)
class Shares:
    """Rows of counts as shares of their sum; a row of zeros stays."""

    kind: ClassVar[str] = "shares"

    def __call__(self, raw: Any) -> Tensor:
        x = to_tensor(raw, "x").to(torch.float32)
        total = x.sum(dim=-1, keepdim=True)
        return x / torch.where(total == 0, torch.ones_like(total), total)

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind}

    @classmethod
    def from_json(cls, _: dict[str, Any]) -> Shares:
        return cls()


@dataclass(frozen=True)
class Bytes:
    """Text, or a list of texts of one length in bytes, to (n, length) int64."""

    kind: ClassVar[str] = "bytes"

    def __call__(self, raw: str | bytes | Sequence[str | bytes]) -> Tensor:
        texts = [raw] if isinstance(raw, str | bytes) else list(raw)
        coded = [text.encode() if isinstance(text, str) else bytes(text) for text in texts]
        sizes = sorted({len(text) for text in coded})
        if len(sizes) != 1 or sizes[0] == 0:
            raise BadData(f"text: lengths in bytes are {sizes}; give texts of one length, at least 1")
        return torch.tensor([list(text) for text in coded], dtype=torch.int64)

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind}

    @classmethod
    def from_json(cls, _: dict[str, Any]) -> Bytes:
        return cls()


@dataclass(frozen=True)
class Pixels:
    """Numbers at places, standardised a channel: (x / scale - mean) / std.

    A scale of 255 means whole numbers 0..255, held as uint8; a scale of 1 means floats. Raw input is
    (n, *places, channels) or (n, channels, *places); (n, *places) where there is one channel.
    """

    kind: ClassVar[str] = "pixels"
    mean: tuple[float, ...]
    std: tuple[float, ...]
    places: tuple[int, ...]
    scale: float = 255.0

    def __call__(self, raw: Any) -> Tensor:
        x, channels = to_pixels(raw, "x"), len(self.mean)
        if (x.dtype == torch.uint8) != (self.scale == 255):
            wanted = "whole numbers 0..255" if self.scale == 255 else "floats"
            raise BadData(f"x: holds {x.dtype}, and the training data held {wanted}; convert it to those")
        shape = tuple(x.shape[1:])
        if shape == (*self.places, channels):
            return self.prepare(x)
        if shape == (channels, *self.places):
            return self.prepare(x.movedim(1, -1).contiguous())
        if channels == 1 and shape == self.places:
            return self.prepare(x.unsqueeze(-1))
        raise BadData(f"x: shape {tuple(x.shape)}; expected {('n', *self.places, channels)}, as in training")

    def prepare(self, x: Tensor) -> Tensor:
        """Stored values, (n, *places, channels), to standardised float32."""
        y = x.to(torch.float32, copy=True)
        if self.scale != 1:
            y.div_(self.scale)
        return y.sub_(torch.tensor(self.mean, device=x.device)).div_(torch.tensor(self.std, device=x.device))

    @classmethod
    def fit(cls, x: Tensor, rows: Tensor) -> Pixels:
        """Means and standard deviations of the channels over some rows of x, (n, *places, channels)."""
        scale = 255.0 if x.dtype == torch.uint8 else 1.0
        moments = [_moments(x[..., channel][rows]) for channel in range(x.shape[-1])]
        means = tuple(mean / scale for mean, _ in moments)
        stds = tuple(std / scale if std > 0 else 1.0 for _, std in moments)
        return cls(means, stds, tuple(x.shape[1:-1]), scale)

    def to_json(self) -> dict[str, Any]:
        sizes = {"mean": list(self.mean), "std": list(self.std), "places": list(self.places)}
        return {"kind": self.kind, "scale": self.scale, **sizes}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Pixels:
        return cls(tuple(data["mean"]), tuple(data["std"]), tuple(data["places"]), data["scale"])


def _moments(values: Tensor) -> tuple[float, float]:
    """Mean and standard deviation; exact for bytes, by counting them."""
    if values.dtype == torch.uint8:
        counts = torch.bincount(values.reshape(-1), minlength=256).double()
        levels, total = torch.arange(256, dtype=torch.float64), counts.sum()
        mean = (counts * levels).sum() / total
        return float(mean), float(((levels - mean) ** 2 * counts).sum().div(total).sqrt())
    exact = values.double()
    return float(exact.mean()), float(exact.std(correction=0))


def encoder_from_json(data: Any) -> Encoder:
    """The encoder that :meth:`to_json` wrote. Raises BadArtifact for anything else."""
    kinds: dict[str, type[Given] | type[Shares] | type[Bytes] | type[Pixels] | type[Table]] = {
        made.kind: made for made in (Given, Shares, Bytes, Pixels, Table)
    }
    kind = data.get("kind") if isinstance(data, dict) else None
    if kind not in kinds:
        raise BadArtifact(f"encoder {kind!r}: unknown kind; {suggest(str(kind), kinds)}")
    try:
        return kinds[kind].from_json(data)
    except (KeyError, TypeError, ValueError) as error:
        raise BadArtifact(f"encoder {kind!r}: cannot be read ({error!r}); save it again") from error
