"""Wide: which units of spans that stand side by side stay, and the edits that leave them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from shoal.compressors._importance import Importance, Place
from shoal.compressors._joints import Joint, united
from shoal.core.base import Edit
from shoal.core.errors import Refused
from shoal.coupling import Width, cut_together
from shoal.edits.narrow import Narrow

log = logging.getLogger("shoal")


def narrowed(
    several: Sequence[Joint], paths: Sequence[str], importance: Importance, wide: Sequence[int]
) -> Iterator[Edit]:
    """The edits that leave of each inner width of a merged span so many times what one of its parts had."""
    widths = united(several, paths[0])
    weights = [
        [_weight(joint.widths[i], path, importance) for joint, path in zip(several, paths, strict=True)]
        for i in range(len(widths))
    ]
    for times in wide:
        keeps = [most(of_parts, times) for of_parts in weights]
        if not all(keeps):
            continue
        try:
            slices, settings = cut_together(widths, keeps)
        except Refused as why:
            log.info("%s: merged, not narrowed: %s", ", ".join(paths), why)
            continue
        yield Narrow(path=paths[0], slices=slices, settings=settings)


def most(weights: Sequence[Tensor | None], times: int) -> tuple[int, ...]:
    """The most important units of all that stand side by side, so many times what one part has; none where that is all
    of them, or where nothing is known of some."""
    known = [one for one in weights if one is not None]
    count = times * max(len(one) for one in known) if known else 0
    every = torch.cat(known) if known else torch.empty(0)
    if len(known) < len(weights) or count >= len(every):
        return ()
    chosen: list[int] = every.argsort(descending=True, stable=True)[:count].sort().values.tolist()
    return tuple(chosen)


def _weight(width: Width, path: str, importance: Importance) -> Tensor | None:
    places = [Place(f"{path}.{one.weight}", one.axis, torch.from_numpy(one.units)) for one in width.held]
    return importance.of(places, width.units)
