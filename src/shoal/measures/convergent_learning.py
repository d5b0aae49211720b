"""Convergent learning: whether units behind a span are those before it, or those of another network.

    semi         mean over units of the largest correlation with one of the other side
    one_to_one   mean correlation where no unit is taken twice (Hungarian method)
    unmatched    share of those pairs whose correlation is below 1/2
    cka, cca, procrustes        the same after any turn, any map of what holds 99% of the variance, the best turn

The table compares the stream behind a span with the one before it; ``between`` every span of one module with every span
of another, on the same examples; ``predicted`` units of one from few of the other. An example counts once, by the mean
over its places. Units that do not vary are left out; ``units`` is how many do.

Cost     one run of `rows` examples; a pair of spans takes two decompositions of its widths
Exact when all examples are looked at
Papers   convergent-learning-do-different-neural-networks
"""

from __future__ import annotations

from collections.abc import Sequence

from pandas import DataFrame

from shoal.core.base import Measure
from shoal.core.errors import BadSetting
from shoal.core.scene import Scene
from shoal.measures._alone import at_least
from shoal.measures._likeness import Units, compared, features, sparse
from shoal.measures._tables import table


class ConvergentLearning(Measure):
    """Settings: `rows` that are looked at."""

    tiny = {"rows": 12}

    def __init__(self, *, rows: int = 1024) -> None:
        self.rows = at_least("convergent_learning", "rows", rows, 2)

    def table(self, scene: Scene) -> DataFrame:
        given, made = features(scene, self.rows)
        found = [compared(given[span.at], made[span.at]) for span in scene.spans]
        living = {"units": [_living(made[span.at]) for span in scene.spans]}
        return table(scene, living | {name: [one[name] for one in found] for name in found[0]})

    def between(self, scene: Scene, other: Scene) -> DataFrame:
        """Every span of one module against every span of another; both scenes hold the same examples in their order.

        Raises BadData where they do not give as many rows.
        """
        ours, theirs = features(scene, self.rows)[1], features(other, self.rows)[1]
        rows = [
            {"path": a.path, "visit": a.number, "other_path": b.path, "other_visit": b.number, **compared(x, y)}
            for a, x in ours.items()
            for b, y in theirs.items()
        ]
        return DataFrame(rows)

    def predicted(self, scene: Scene, other: Scene, penalties: Sequence[float] = (0.3, 0.1, 0.03, 0.01)) -> DataFrame:
        """Units of the other module from few units of the first (LASSO), span by span in their order, for each penalty:
        how many are used, and the share of the variance that is left. As far as both have spans."""
        if min(penalties) <= 0:
            raise BadSetting(f"measure convergent_learning: penalties {list(penalties)}; give numbers above 0")
        ours, theirs = features(scene, self.rows)[1], features(other, self.rows)[1]
        rows = [
            {"path": a.path, "visit": a.number, "other_path": b.path, "other_visit": b.number, "penalty": each}
            | sparse(ours[a], theirs[b], each)
            for a, b in zip(ours, theirs, strict=False)
            for each in penalties
        ]
        return DataFrame(rows)


def _living(units: Units) -> int:
    return units.standard.shape[1]
