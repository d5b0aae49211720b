"""Proposing: what can be edited and what is left out, which is said."""

from __future__ import annotations

import logging

from torch import Tensor, nn

from shoal.compressors._units import weight_of
from shoal.core.base import Linear, Proposal
from shoal.core.errors import Refused
from shoal.edits._matrices import matrices_in
from shoal.edits.mask import Mask
from shoal.net import Net
from shoal.recipe import rewritten

log = logging.getLogger("shoal")


def possible(module: nn.Module, proposal: Proposal) -> bool:
    """Whether a Net can say the edits in its spec; where it cannot, the reason is logged. What is proposed for another
    module was tried when it was found."""
    if not isinstance(module, Net):
        return True
    try:
        rewritten(module, proposal.edits)
    except Refused as reason:
        log.info("%s: not proposed: %s", ", ".join(proposal.paths), reason)
        return False
    return True


def maskable(module: nn.Module, span: str) -> dict[str, Tensor]:
    """The weights of the matrices within a span that a mask can be put on, by their paths."""
    if isinstance(module, Net):
        parts = module.get_submodule(span).named_modules()
        inside = {f"{span}.{name}": part for name, part in parts if isinstance(part, Linear)}
        plain = {path: part for path, part in inside.items() if not dict(part.named_buffers())}
        able = [path for path in plain if possible(module, Proposal((Mask(path=path),), (span,)))]
        return {path: weight_of(module, path) for path in able}
    try:
        found = matrices_in(module, span)
    except Refused as reason:
        log.info("%s: not proposed: %s", span, reason)
        return {}
    return {path: part.weight.detach().cpu() for path, part in found}
