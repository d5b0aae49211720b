"""Recurrent: the layers stacked within one LSTM, GRU or RNN of torch, and the same with fewer of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from shoal.core.errors import Refused

KINDS = (nn.LSTM, nn.GRU, nn.RNN)


def unstacked(old: nn.Module, layers: Sequence[int], path: str) -> nn.RNNBase:
    """The same without some of its layers: what each took, the next one takes.

    Refused where it is no such module, where there are no such layers or no others, and where the first layer goes
    and takes another width than it gives.
    """
    if not isinstance(old, nn.RNNBase) or type(old) not in KINDS:
        raise Refused(f"{path}: {type(old).__name__} is no LSTM, GRU or RNN of torch, so it has no layers to name")
    if not set(layers) <= set(range(old.num_layers)) or len(set(layers)) != len(layers):
        raise Refused(f"{path}: layers {list(layers)} of {old.num_layers}; name some of them, each once")
    kept = [layer for layer in range(old.num_layers) if layer not in layers]
    if not kept:
        raise Refused(f"{path}: one of its {old.num_layers} layers must stay")
    given = (old.proj_size or old.hidden_size) * (2 if old.bidirectional else 1)
    if kept[0] > 0 and old.input_size != given:
        raise Refused(f"{path}: its first layer takes {old.input_size} numbers and gives {given}; keep it")
    settings = {"nonlinearity": old.nonlinearity} if isinstance(old, nn.RNN) else {}
    settings |= {"proj_size": old.proj_size} if isinstance(old, nn.LSTM) else {}
    like = next(old.parameters())
    cls: Any = type(old)  # each of torch's takes other arguments than their base
    new: nn.RNNBase = cls(
        old.input_size,
        old.hidden_size,
        num_layers=len(kept),
        bias=old.bias,
        batch_first=old.batch_first,
        dropout=old.dropout if len(kept) > 1 else 0.0,
        bidirectional=old.bidirectional,
        device="meta",
        dtype=like.dtype,
        **settings,
    ).to_empty(device=like.device)
    with torch.no_grad():
        for name, value in new.named_parameters():
            stem, _, end = name.rpartition("_l")  # weight_ih_l0, weight_hh_l1_reverse
            number, mark, rest = end.partition("_")
            before = old.get_parameter(f"{stem}_l{kept[int(number)]}{mark}{rest}")
            value.copy_(before)
            value.requires_grad_(before.requires_grad)
    return new.train(old.training)
