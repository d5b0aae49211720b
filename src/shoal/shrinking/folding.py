"""Folding: a module as it will be in the end, with all folded that folds exactly."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from shoal.anatomy import anatomy
from shoal.core.base import Edit
from shoal.core.errors import BadModel, Refused
from shoal.edits.fold import Fold
from shoal.net import Net
from shoal.recipe import edited, replayed

log = logging.getLogger("shoal")
TOLERANCE = 1e-3  # how far folding may move an output in float32, relative to the largest


def folds(module: nn.Module, example: Any) -> tuple[Edit, ...]:
    """The one fold that takes in all that can be folded exactly; none where nothing can."""
    if not isinstance(module, Net):
        pairs = anatomy(module, example).folds
        return (Fold(pairs=pairs),) if pairs else ()
    try:
        edited(module, Fold())
    except Refused as why:
        log.info("%s", why)
        return ()
    return (Fold(),)


def flat(module: nn.Module, example: Any) -> nn.Module:
    """The module as it will be in the end, with all that folds folded."""
    return replayed(module, folds(module, example)).eval()


def folded(module: nn.Module, edits: Sequence[Edit], example: Any) -> nn.Module:
    """The folded module in eval mode, checked on the example against the one that was folded."""
    made = replayed(module, edits).eval()
    with torch.inference_mode():
        wanted, got = module.eval()(example), made(example)
    if (wanted - got).abs().max() > TOLERANCE * wanted.abs().max():
        raise BadModel(f"{type(module).__name__}: folding moved its outputs; report the module with this message")
    return made
