"""Heads: ``nn.MultiheadAttention`` whose heads together may be narrower than what it reads and gives.

    y = out_proj( softmax( q k^T / sqrt(head_dim) + mask ) v ),    q, k, v = in_proj x,    a head at a time

Torch's own takes the width of its heads from its input, and so can lose none. This one has the weights of the same
names, is called the same way and gives the same.

Exact when no head is gone: nn.MultiheadAttention
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def why_no_heads(attention: nn.MultiheadAttention) -> str:
    """Why this class cannot stand in its place; empty where it can."""
    if not attention._qkv_same_embed_dim:
        return "its keys or values have a width of their own"
    if attention.bias_k is not None or attention.add_zero_attn:
        return "it adds a key of its own"
    return ""


class Heads(nn.Module):
    """Made of an attention of torch, whose parameters it takes over; ``num_heads`` may be set lower with them."""

    _qkv_same_embed_dim = False  # so torch's layers call it, and do not reach for its weights

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        self.embed_dim, self.num_heads, self.head_dim = attention.embed_dim, attention.num_heads, attention.head_dim
        self.batch_first, self.dropout = attention.batch_first, attention.dropout
        self.in_proj_weight, self.out_proj = attention.in_proj_weight, attention.out_proj
        self.in_proj_bias = attention.in_proj_bias
        self.train(attention.training)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As torch's: (batch, places, width) where ``batch_first``, else (places, batch, width), or no batch."""
        lone = query.dim() == 2
        rows = [part.unsqueeze(0) if lone else part if self.batch_first else part.transpose(0, 1)
                for part in (query, key, value)]  # fmt: skip
        q, k, v = self._projected(rows)
        mask = self._mask(q, k, key_padding_mask, attn_mask)
        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = q @ k.transpose(-1, -2) * self.head_dim**-0.5
            weights = (scores if mask is None else scores + mask).softmax(dim=-1)
            y = F.dropout(weights, dropout) @ v
            weights = weights.mean(dim=1) if average_attn_weights else weights
            weights = weights[0] if lone else weights
        else:
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
        y = self.out_proj(y.transpose(1, 2).flatten(2))
        return (y[0] if lone else y if self.batch_first else y.transpose(0, 1)), weights

    def _projected(self, rows: list[Tensor]) -> list[Tensor]:
        """Queries, keys and values, (batch, heads, places, head_dim) each."""
        weights = self.in_proj_weight.chunk(3)
        biases = [None] * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        made = [F.linear(row, weight, bias) for row, weight, bias in zip(rows, weights, biases, strict=True)]
        return [part.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2) for part in made]

    def _mask(self, q: Tensor, k: Tensor, padding: Tensor | None, attention: Tensor | None) -> Tensor | None:
        """Both masks as one that is added to the scores; a head's own mask must fit the heads that are left."""
        found: Tensor | None = None
        if attention is not None:
            shaped = attention.view(len(q), -1, *attention.shape[-2:]) if attention.dim() == 3 else attention
            found = _added(shaped, q)
        if padding is not None:
            padded = _added(padding, q).view(-1, 1, 1, k.shape[-2])
            found = padded if found is None else found + padded
        return found


def _added(mask: Tensor, like: Tensor) -> Tensor:
    """A mask of booleans, True where not to read, as numbers that are added."""
    if mask.dtype != torch.bool:
        return mask.to(like.dtype)
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, float("-inf"))
