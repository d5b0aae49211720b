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
from shoal.core.example import evaluating
from shoal.core.inputs import answer_to, run_on
from shoal.edits._surgery import PassThrough
from shoal.edits.fold import Fold
from shoal.net import Net
from shoal.recipe import edited, replayed

log = logging.getLogger("shoal")
TOLERANCE = 1e-3  # how far folding may move an output in float32, relative to the largest


def folds(module: nn.Module, example: Any) -> tuple[Edit, ...]:
    """The one fold that takes in all that can be folded exactly; none where nothing can."""
    if not isinstance(module, Net):
        pairs = anatomy(module, example).folds
        idle = _idle(module, [behind for _, behind in pairs], example)
        return (Fold(pairs=pairs, idle=idle),) if pairs or idle else ()
    try:
        edited(module, Fold())
    except Refused as why:
        log.info("%s", why)
        return ()
    return (Fold(),)


def _idle(module: nn.Module, behind: Sequence[str], example: Any) -> tuple[str, ...]:
    """What passes its input on in a Sequential that runs as a whole: where a span was dropped, and what folds into what
    stands before it, if it has no matrix itself. Nothing, where a Sequential is only taken apart."""
    parts = dict(module.named_modules())
    found: list[str] = []
    for path, part in parts.items():
        gone = type(part) is PassThrough or (path in behind and not isinstance(part, nn.Linear))
        if gone and type(parts[path.rpartition(".")[0]]) is nn.Sequential:
            found.append(path)
    rows = {path.rpartition(".")[0] for path in found}
    ran: set[str] = set()
    hooks = [parts[row].register_forward_hook(_noting(ran, row)) for row in rows]
    try:
        if rows:
            with evaluating(module), torch.inference_mode():
                run_on(module, example)
    finally:
        for hook in hooks:
            hook.remove()
    return tuple(path for path in found if path.rpartition(".")[0] in ran)


def _noting(ran: set[str], row: str) -> Any:
    return lambda *_: ran.add(row)


def flat(module: nn.Module, example: Any) -> nn.Module:
    """The module as it will be in the end, with all that folds folded."""
    return replayed(module, folds(module, example)).eval()


def folded(module: nn.Module, edits: Sequence[Edit], example: Any) -> nn.Module:
    """The folded module in eval mode, checked on the example against the one that was folded."""
    made = replayed(module, edits).eval()
    with torch.inference_mode():
        wanted, got = answer_to(module.eval(), example), answer_to(made, example)
    if (wanted - got).abs().max() > TOLERANCE * wanted.abs().max():
        raise BadModel(f"{type(module).__name__}: folding moved its outputs; report the module with this message")
    return made
