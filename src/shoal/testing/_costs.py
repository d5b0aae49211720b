"""Costs: that the counter knows every operation of a method, so that no cost of a net is a mere lower bound."""

from __future__ import annotations

from typing import Any

from torch import nn

from shoal.costing import cost
from shoal.testing._samples import require


def require_costed(module: nn.Module, example: Any) -> None:
    """No operation of a run is without a formula, and the calls' work adds up to the whole."""
    found = cost(module, example)
    require(not found.uncounted, f"operations without a formula: {', '.join(found.uncounted)}")
    require(sum(call.macs for call in found.calls) == found.macs, "the macs of the calls do not add up")
