"""Experts side by side: what the blocks ``moe`` and ``gumbel_moe`` share.

sum_e g_e W_e act(V_e x)   =   W [g_1 act(V_1 x), g_2 act(V_2 x), ...]        V, W: all the experts' matrices as one
"""

from __future__ import annotations

from torch import Tensor


def gated(units: Tensor, gates: Tensor) -> Tensor:
    """Each expert's units times its gate: (..., experts * hidden) and (..., experts) -> (..., experts * hidden)."""
    return (units.unflatten(-1, (gates.shape[-1], -1)) * gates.unsqueeze(-1)).flatten(-2)
