"""Analyzed: what an analysis found, with its tables, its effective depth, its JSON and its page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from shoal.core.spans import Visit
from shoal.depth_curve import Depth
from shoal.evidence import Evidence, Keep
from shoal.intervening import Effect
from shoal.predicting import Prediction, agreement, summed
from shoal.verdicts import SpanVerdict


@dataclass(frozen=True)
class Analysis:
    """What was found; every table is a DataFrame, every number has its interval where it is uncertain."""

    spans: pd.DataFrame
    effects: tuple[Effect, ...]
    verdicts: tuple[SpanVerdict, ...]
    curve: tuple[Depth, ...]  # nothing left out, then one span more each time
    measures: Mapping[str, pd.DataFrame]
    left: Mapping[str, str]
    quality: Evidence
    metric: str
    ms: float
    keep: Keep
    rows: int
    seconds: float
    pairs: tuple[Prediction, ...] = ()  # neighbours that were left out together
    unfinished: tuple[str, ...] = ()
    maps: Mapping[str, pd.DataFrame] = field(default_factory=dict)  # spans against spans, of measures that have it

    @property
    def effective_depth(self) -> Depth:
        """The shallowest on the curve whose quality is above the floor for certain; nothing left out where none is."""
        return deepest(self.curve, self.rows)

    @property
    def held(self) -> float | None:
        """How well predictions held: Spearman of predicted and realised growth of the loss, over all sets of two spans
        and more that were left out together. None where there are too few."""
        return agreement(self._several())

    def _several(self) -> list[Prediction]:
        return [*self.pairs, *(one.harm for one in self.curve if len(one.skipped) > 1)]

    def predicted(self, sets: Iterable[Sequence[Visit]]) -> list[float]:
        """How much the loss should grow where all spans of a set are left out: the sum of what each did alone."""
        alone = {one.spans[0].at: one.loss.value for one in self.effects if one.intervention == "skip"}
        return [summed(alone, visits) for visits in sets]

    def to_json(self) -> dict[str, Any]:
        """All that was found, as JSON; the page is made of it."""
        points, relative = self.keep.points, self.keep.relative
        best, several = self.effective_depth, self._several()
        open_ones = [one.left for one in self.curve if one.floor.word != "fail" and one.quality.n == self.rows]
        below = points if points is not None else abs(self.quality.value) * (relative or 0.0)
        comparable = points is not None or self.quality.unit != "%"  # a growth of the loss is none of a share
        return {
            "kind": "analysis",
            "keep": str(self.keep),
            "metric": {"name": self.metric, "unit": self.quality.unit},
            "quality": self.quality.to_json(),
            "floor": self.quality.value - below if comparable else None,
            "ms": self.ms,
            "rows": self.rows,
            "seconds": self.seconds,
            "effective_depth": {
                **best.to_json(),
                "skipped": [list(at) for at in best.skipped],
                "of": len(self.verdicts),
                "low": min(best.left, *open_ones),
            },
            "curve": [one.to_json() for one in self.curve],
            "held": {
                "spearman": self.held,
                "sets": len(several),
                "largest": max((len(one.skipped) for one in several), default=0),
                "pairs": [one.to_json() for one in self.pairs],
            },
            "spans": self.spans.to_dict("records"),
            "effects": [_effect(one) for one in self.effects],
            "measures": {name: _split(table) for name, table in self.measures.items()},
            "left": dict(self.left),
            "unfinished": list(self.unfinished),
            "maps": {
                name: {"labels": [str(each) for each in one.index], "values": one.to_numpy().tolist()}
                for name, one in self.maps.items()
            },
        }

    def to_html(self) -> str:
        """One page that asks nothing of the network: the same, drawn, mapped and in tables."""
        from shoal.report import analysis_page  # jinja2 is only needed here

        return analysis_page(self.to_json())


def deepest(curve: Sequence[Depth], rows: int) -> Depth:
    """The last on a curve whose quality is above the floor for certain, on all rows; its first where none is."""
    return [one for one in curve if not one.skipped or (one.floor.word == "pass" and one.quality.n == rows)][-1]


def _effect(one: Effect) -> dict[str, Any]:
    """An effect as JSON."""
    numbers = {name: getattr(one, name).to_json() for name in ("loss", "quality", "distance")}
    return {"intervention": one.intervention, "places": [list(span.at) for span in one.spans], **numbers}


def _split(table: pd.DataFrame) -> dict[str, Any]:
    """A table as JSON: its columns and its rows."""
    parts = table.to_dict("split")
    return {"columns": [str(name) for name in parts["columns"]], "rows": parts["data"]}
