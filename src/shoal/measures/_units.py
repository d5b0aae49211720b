"""Units: what is kept of the activations of many units, batch by batch."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

ALIKE = 0.999  # a correlation: units that go together by more are twins


@dataclass
class Units:
    """What is kept of the units behind one call of an activation function."""

    zero: int = 0
    near: int = 0
    count: int = 0
    squares: float = 0.0
    peak: Tensor = field(default_factory=lambda: torch.zeros(()))  # (units,) the largest that each ever was
    sample: list[Tensor] = field(default_factory=list)

    def add(self, a: Tensor, eps: float, rows: int) -> None:
        """(places, units) of another batch; the first places are kept, so many in all."""
        a = a.double()
        self.zero += int((a == 0).sum())
        self.near += int((a.abs() <= eps * a.square().mean().sqrt()).sum())
        self.count += a.numel()
        self.squares += float(a.square().sum())
        self.peak = torch.maximum(self.peak, a.abs().amax(dim=0))
        left = rows - sum(len(kept) for kept in self.sample)
        if left > 0:
            self.sample.append(a[:: max(1, len(a) // left)][:left])

    def dead(self, eps: float) -> Tensor:
        """(units,) whether each stayed near 0."""
        return self.peak <= eps * (self.squares / self.count) ** 0.5

    def twin(self, eps: float) -> Tensor:
        """(units,) whether each goes with another before it; the dead go with none."""
        z = torch.cat(self.sample)
        z = z - z.mean(dim=0)
        z = z / z.norm(dim=0).clamp_min(1e-30) * ~self.dead(eps)
        return ((z.T @ z).triu(1) > ALIKE).any(dim=0)
