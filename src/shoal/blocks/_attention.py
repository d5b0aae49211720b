"""Attention over all places: the helper that the blocks ``attention`` and ``transformer`` share."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from shoal.core.errors import BadSetting
from shoal.core.part import Value


def heads_for(dim: int, _: Mapping[str, Value]) -> int:
    """As many heads of about 32 channels as divide dim."""
    return next(heads for heads in range(max(dim // 32, 1), 0, -1) if dim % heads == 0)


def head_dim_for(dim: int, before: Mapping[str, Value]) -> int:
    """Channels of a head, such that all heads together have dim."""
    heads = before["heads"]
    if not isinstance(heads, int) or heads < 1 or dim % heads:
        raise BadSetting(f"attention: {heads} heads do not divide width {dim}; say head_dim too, or other heads")
    return dim // heads


def rotary(x: Tensor, positions: Tensor) -> Tensor:
    """Turn each pair of channels by its position, so that scores depend on distances (RoPE, base 10000).

    x: (batch, heads, places, head_dim), head_dim even; positions: (places,) or (batch, places).
    """
    half = x.shape[-1] // 2
    rate = 10000.0 ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
    angle = (positions.to(torch.float32).unsqueeze(-1) * rate).to(x.dtype)
    angle = angle.unsqueeze(-3)  # one for all heads
    a, b = x.chunk(2, dim=-1)
    cos, sin = angle.cos(), angle.sin()
    return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)


def attend(
    query: Tensor, key: Tensor, value: Tensor, heads: int, causal: bool, mask: Tensor | None, positions: Tensor | None
) -> Tensor:
    """softmax(q k / sqrt(head_dim)) v, a head at a time; (batch, places, heads * head_dim) each, and back.

    ``mask``: True where a place may be read, (batch, places) or broadcastable to (batch, heads, places, places).
    """
    q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (query, key, value))
    if positions is not None:
        q, k = rotary(q, positions), rotary(k, positions)
    if mask is not None and mask.dim() == 2:
        mask = mask[:, None, None, :]
    if mask is not None and causal:
        size = q.shape[2]
        mask = mask & torch.ones(size, size, dtype=torch.bool, device=q.device).tril()
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal and mask is None)
    return y.transpose(1, 2).flatten(2)
