"""Predicting: what should become of the loss where several spans go, and how well that held.

predicted   the sum of the growths that each span made alone
held        Spearman of predicted and realised growth, over all sets of spans that were really left out together
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from shoal.core.spans import Visit
from shoal.evidence import Evidence

LEAST = 3  # sets: an order of fewer says nothing


@dataclass(frozen=True)
class Prediction:
    """A set of spans: how much the loss was to grow without them, and how much it grew."""

    skipped: tuple[Visit, ...]
    predicted: float
    realised: Evidence

    def to_json(self) -> dict[str, Any]:
        """Its numbers."""
        return {
            "skipped": [list(at) for at in self.skipped],
            "predicted": self.predicted,
            "realised": self.realised.to_json(),
        }


def summed(alone: Mapping[Visit, float], skipped: Sequence[Visit]) -> float:
    """How much the loss should grow where all of these are left out."""
    return sum(alone[at] for at in skipped)


def agreement(seen: Sequence[Prediction]) -> float | None:
    """Spearman of what was predicted and what came; None where there are too few sets, or all are alike."""
    wanted, came = [one.predicted for one in seen], [one.realised.value for one in seen]
    if len(seen) < LEAST or not np.std(wanted) > 0 or not np.std(came) > 0:
        return None
    return float(spearmanr(wanted, came).statistic)
