"""Dataset: three splits of tensors, and what a net must know of them.

Inputs are kept as they are cheapest to hold (bytes for pixels) and prepared a batch at a time; targets are ready for
the loss: class numbers, standardised outputs, or the next token at each place.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from shoal.core.errors import BadArtifact, BadSetting
from shoal.core.graphs import normalised
from shoal.core.inputs import Inputs, taken
from shoal.core.part import Part
from shoal.data.encoders import Encoder


@dataclass(frozen=True)
class Signature:
    """What goes into a net and what must come out.

    places       () tables, (n,) sequences, (h, w) images
    channels     numbers a place holds: features of a table row, colours of a pixel; 0 for tokens
    vocabulary   how many token ids there are where x holds tokens, else None
    task         classification[classes=..], regression[outputs=..] or next_token[vocabulary=..]
    """

    places: tuple[int, ...]
    channels: int
    vocabulary: int | None
    task: Part

    def to_json(self) -> dict[str, Any]:
        """A JSON object; :meth:`from_json` gives the signature back."""
        return {
            "places": list(self.places),
            "channels": self.channels,
            "vocabulary": self.vocabulary,
            "task": self.task.to_json(),
        }

    @classmethod
    def from_json(cls, data: Any) -> Signature:
        """The inverse of :meth:`to_json`."""
        try:
            places, task = tuple(int(size) for size in data["places"]), Part.from_json(data["task"])
            return cls(places, int(data["channels"]), data["vocabulary"], task)
        except (KeyError, TypeError, ValueError) as error:
            raise BadArtifact(f"signature {data!r}: cannot be read ({error!r}); save it again") from error


@dataclass(frozen=True, eq=False, repr=False)
class Graph:
    """All nodes of a graph and the edges between them.

    x         (nodes, features) float32, prepared
    edges     (2, edges) int64: where each begins, and where it ends
    """

    x: Tensor
    edges: Tensor
    _kept: dict[Hashable, Any] = field(default_factory=dict)

    def context(self) -> dict[str, Tensor]:
        """What a net may read of it, by name: the edges, and the matrix made of them."""
        made = self.once("adjacency", lambda: normalised(self.edges, len(self.x)))
        return {"edges": self.edges, "adjacency": made}

    def once(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What `make` gives, worked out the first time and kept with the graph."""
        if key not in self._kept:
            with torch.inference_mode(False), torch.no_grad():  # whoever asks first: others may train with it
                self._kept[key] = make()
        return self._kept[key]

    def to(self, device: torch.device) -> Graph:
        """The same on a device."""
        if self.x.device == device:
            return self
        moved: Graph = self.once(("on", device), lambda: Graph(self.x.to(device), self.edges.to(device)))
        return moved


@dataclass(frozen=True, eq=False, repr=False)
class Split:
    """Rows with their targets.

    x         (n, *places, channels), bytes or floats; or (n, length) int64 tokens; or whatever was passed as given, a
              dict of tensors too: the arguments of a module by their names
    y         (n,) int64 classes, (n, outputs) float32, or (n, length) int64 tokens
    prepare   turns rows of x into what a net takes; None where they already are
    graph     the graph that the rows are nodes of, and `nodes`, (n,) which they are; None where they are of none
    """

    x: Inputs
    y: Tensor
    prepare: Callable[[Tensor], Tensor] | None = None
    graph: Graph | None = None
    nodes: Tensor | None = None

    def __len__(self) -> int:
        return len(self.y)

    def __repr__(self) -> str:
        named = self.x if isinstance(self.x, dict) else {"x": self.x}
        inputs = ", ".join(f"{name} {tuple(value.shape[1:])} {value.dtype}" for name, value in named.items())
        return f"Split({len(self)} rows, {inputs}, y {self.y.dtype})"

    def batch(self, index: Tensor | slice) -> tuple[Inputs, Tensor]:
        """The prepared inputs and the targets of some rows."""
        x = taken(self.x, index)
        return (x if self.prepare is None else self.prepare(x)), self.y[index]

    def batches(self, size: int, *, shuffle: torch.Generator | None = None) -> Iterator[tuple[Inputs, Tensor]]:
        """Every row once, `size` at a time (the last batch may be smaller), in order or shuffled by a generator."""
        if size < 1:
            raise BadSetting(f"batch size {size}: must be at least 1")
        order = None if shuffle is None else torch.randperm(len(self), generator=shuffle)
        for start in range(0, len(self), size):
            rows = slice(start, start + size)
            yield self.batch(rows if order is None else order[rows])

    def take(self, n: int, seed: int) -> Split:
        """A random subset of at most `n` rows, in their old order; the same seed takes the same rows."""
        if n < 1:
            raise BadSetting(f"take {n} rows: must be at least 1")
        if n >= len(self):
            return self
        chosen = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))[:n].sort().values
        nodes = None if self.nodes is None else self.nodes[chosen]
        return Split(taken(self.x, chosen), self.y[chosen], self.prepare, self.graph, nodes)


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Data that was opened: what :func:`shoal.data.open_data` returns.

    notes          what was found and decided, a sentence each
    fingerprint    16 hex digits of the SHA-256 of the raw values and of which row went where
    classes        the names of the classes, or None
    target_scale   (means, standard deviations), one number an output, by which a regression target was standardised
                   on the training part; None for classes, tokens and targets left as given
    """

    name: str
    train: Split
    valid: Split
    test: Split
    signature: Signature
    encoder: Encoder
    notes: tuple[str, ...]
    fingerprint: str
    classes: tuple[str, ...] | None = None
    target_scale: tuple[tuple[float, ...], tuple[float, ...]] | None = None

    def __repr__(self) -> str:
        parts = f"train={len(self.train)}, valid={len(self.valid)}, test={len(self.test)}"
        return f"Dataset({self.name!r}, {self.signature.task}, {parts}, {self.fingerprint})"

    def example(self, n: int = 1) -> Inputs:
        """The first `n` training inputs, prepared."""
        return self.train.batch(slice(0, n))[0]

    def unscaled(self, outputs: Tensor) -> Tensor:
        """Regression outputs, (n, outputs), in the units of the raw target; anything else as it is."""
        if self.target_scale is None:
            return outputs
        mean, std = (outputs.new_tensor(values) for values in self.target_scale)
        return outputs * std + mean
