"""Tally: what the chains found for many inputs come to."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from shoal.chains.searching import Found
from shoal.core.errors import BadSetting


@dataclass(frozen=True)
class Tally:
    """What chains found for many inputs come to; rewards of at least `right` count as right answers.

    shorter    of the inputs that the net had right: the share for which a shorter chain is right as well
    fixed      of those that it had wrong: the share for which some chain is right
    layers     the mean length of the chains
    skipped    for each layer, the share of chains that do without it
    repeated   for each layer, the share of chains that run it more often than the net does
    """

    shorter: float
    fixed: float
    layers: float
    skipped: tuple[float, ...]
    repeated: tuple[float, ...]


def tally(found: Sequence[Found], right: float = 1.0) -> Tally:
    """The sums over what was found for inputs of one net; NaN where no input was right, or none wrong."""
    if not found:
        raise BadSetting("tally: nothing was found yet; give the results of at least one search")
    had = [one for one in found if one.base_reward >= right]
    not_had = [one for one in found if one.base_reward < right]
    own, counts = Counter(found[0].base), [Counter(one.chain) for one in found]
    return Tally(
        _share([len(one.chain) < len(one.base) for one in had]),
        _share([one.reward >= right for one in not_had]),
        sum(len(one.chain) for one in found) / len(found),
        tuple(_share([not count[layer] for count in counts]) for layer in sorted(own)),
        tuple(_share([count[layer] > own[layer] for count in counts]) for layer in sorted(own)),
    )


def _share(flags: Sequence[bool]) -> float:
    return sum(flags) / len(flags) if flags else math.nan
