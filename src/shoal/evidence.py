"""Evidence: a number with its interval and its n; comparisons are paired, with a margin.

Scores belong to the same held-out examples, in the same order; higher is better: 0/1 for correct, or minus the loss.

0/1 scores: Tango's score interval for a difference of paired proportions, with a continuity correction; n identical
answers do not prove a difference of exactly 0. Other scores: Student's t or Hall's correction of it for skewness, which
losses have, whichever is wider, and for a floor the row furthest out counts twice; there, n identical scores do give an
interval of width 0. Timings: the bootstrap.
Examples must be independent: pool the rows of one patient into one score before.

Longer than the house's 250 lines by a few: every interval and every test is read on one sheet.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

from shoal.core.errors import BadData, BadSetting

Array = NDArray[np.float64]
Bounds: TypeAlias = Callable[[Array, float], tuple[Any, Any]]
UNPROMISED = "not promised"


@dataclass(frozen=True)
class Evidence:
    """A number, the interval around it at `level`, and the `n` independent observations it rests on.

    With unit "%" or "pt" (points) the numbers are fractions and are shown as percent, as in ``f"{0.984:.1%}"``; any
    other unit is only written behind the number. So 0.984 shows as ``98.4% [97.1, 99.2] n=360``."""

    value: float
    low: float
    high: float
    n: int
    level: float = 0.95
    unit: str = ""

    def __str__(self) -> str:
        form, scale = {"%": (".1f", 100), "pt": ("+.2f", 100)}.get(self.unit, (".4g", 1))
        value, low, high = (format(scale * number, form) for number in (self.value, self.low, self.high))
        return f"{value}{self.unit} [{low}, {high}] n={self.n}"

    def to_json(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Evidence:
        """The inverse of :meth:`to_json`."""
        return cls(**data)


@dataclass(frozen=True)
class Keep:
    """The quality to keep: lose at most `points` (0.005: half a point), or at most `relative` more loss (0.01: 1%)."""

    points: float | None = None
    relative: float | None = None

    def __post_init__(self) -> None:
        given = [number for number in (self.points, self.relative) if number is not None]
        if len(given) != 1 or not 0 <= given[0] < np.inf:
            raise BadSetting(f"keep: points={self.points}, relative={self.relative}: give one of them, 0 or above")

    def __str__(self) -> str:
        return f"-{100 * self.points:.10g}pt" if self.points is not None else f"+{100 * (self.relative or 0):.10g}%"


@dataclass(frozen=True)
class Verdict:
    """`word` is better, equivalent, worse or unclear; `difference` is mean(b - a) with its interval."""

    word: str
    difference: Evidence
    margin: float

    def __str__(self) -> str:
        return f"{self.word}: {self.difference}"


@dataclass(frozen=True)
class Floor:
    """`word` is pass, fail or inconclusive.

    `difference` is mean(b - a) for a floor in points; for a relative floor it is the growth of the mean loss (0.01: b
    loses 1% more). Its two ends are one-sided bounds, each at the level asked for: together an interval at 90% for 95%.
    With no ``keep`` nothing was promised, and the word says so.
    """

    word: str
    difference: Evidence
    keep: Keep | None

    def __str__(self) -> str:
        return f"{self.word}: {self.difference}" + ("" if self.keep is None else f", floor {self.keep}")


def parse_keep(text: str) -> Keep:
    """Read ``"-0.5pt"`` (at most half a point of the score lost) or ``"+1%"`` (at most one percent more loss)."""
    found = re.fullmatch(r"\s*(?:-(\d+\.?\d*|\.\d+)\s*pt|\+(\d+\.?\d*|\.\d+)\s*%)\s*", text)
    if not found:
        raise BadSetting(f"keep {text!r}: write '-0.5pt' (points of the score lost) or '+1%' (growth of the loss)")
    return Keep(*(float(number) / 100 if number else None for number in found.groups()))


def parse_promise(text: str | None) -> Keep | None:
    """Read what is to be kept, as :func:`parse_keep` does; None or ``"none"`` promises nothing."""
    return None if text is None or text.strip().lower() == "none" else parse_keep(text)


def proportion(correct: ArrayLike, level: float = 0.95) -> Evidence:
    """The share of ones among 0/1 values, shape (n,), with Wilson's interval; unit "%"."""
    hits = _scores(correct, "correct")
    if not np.isin(hits, (0, 1)).all():
        raise BadData("correct: expected only 0 and 1; for other scores use mean")
    n, z, share = len(hits), stats.norm.ppf(_upper(level)), float(hits.mean())
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Evidence(share, min(share, float(middle - half)), max(share, float(middle + half)), n, level, "%")


def mean(values: ArrayLike, level: float = 0.95, unit: str = "") -> Evidence:
    """The mean of values, shape (n,) with n >= 2, with the wider of Student's and Hall's interval."""
    found = _scores(values, "values")
    low, high = _mean_bounds(found, _upper(level))
    return Evidence(float(found.mean()), float(low), float(high), len(found), level, unit)


def ratio_of_medians(a: ArrayLike, b: ArrayLike, *, paired: bool = False, level: float = 0.95) -> Evidence:
    """How many times as large a is as b, by medians, with a bootstrap interval (seeded: the same every time).

    Unpaired: median(a) / median(b), each drawn again from itself. Paired (a[i] and b[i] measured side by side, in
    order of time): the median of a[i] / b[i], which a drift of both leaves alone; neighbours are drawn together, so
    that a slow spell does not pass for many values. BadData below 2 values or for values that are not above 0.
    """
    first, second = _scores(a, "a"), _scores(b, "b")
    if min(len(first), len(second)) < 2 or min(first.min(), second.min()) <= 0:
        raise BadData("a and b: expected 2 or more timings of each, all above 0")
    first, second, length = np.log(first), np.log(second), 1
    random, n = np.random.default_rng(0), min(len(first), len(second))

    def medians(x: Array) -> Array:  # of x drawn again 2000 times, in runs of `length`
        shape, run = (100, -(-len(x) // length), 1), np.arange(length)
        draws = ((random.integers(0, len(x), shape) + run).reshape(100, -1)[:, : len(x)] for _ in range(20))
        return np.concatenate([np.median(x[draw % len(x)], axis=1) for draw in draws])

    if paired:
        ratios, length = np.subtract(*_same_length(first, second)), round(n**0.5)
        value, drawn = np.median(ratios), medians(ratios)
    else:
        value, drawn = np.median(first) - np.median(second), medians(first) - medians(second)
    runs = max(2.0, n / length)  # percentiles of few are too narrow by about t against the normal
    wide = stats.t.ppf(_upper(level), runs - 1) * np.sqrt(runs / (runs - 1))
    middle, low, high = np.exp([value, *np.quantile(drawn, [stats.norm.cdf(-wide), stats.norm.cdf(wide)])]).tolist()
    return Evidence(middle, low, high, n, level, "x")


def compare(a: ArrayLike, b: ArrayLike, margin: float, level: float = 0.95) -> Verdict:
    """Is b better than a? Scores of the same examples, shape (n,); differences below `margin` do not matter.

    equivalent   the interval of mean(b - a) lies inside (-margin, margin)
    better       else, when it lies above 0;   worse: below 0;   unclear: neither, more examples are needed
    """
    if not margin >= 0:
        raise BadSetting(f"margin {margin}: must be 0 or above")
    first, second = _same_length(_scores(a, "a"), _scores(b, "b"))
    found = _difference(first, second, _upper(level), level, _mean_bounds)
    same = -margin < found.low and found.high < margin
    word = "equivalent" if same else "better" if found.low > 0 else "worse" if found.high < 0 else "unclear"
    return Verdict(word, found, margin)


def floor(a: ArrayLike, b: ArrayLike, drop: float | Keep | None, level: float = 0.95) -> Floor:
    """Was the quality of a kept by b? A test of non-inferiority on scores of the same examples, shape (n,).

    `drop` is the score that may be lost, in the unit of the scores, or a :class:`Keep`. pass: the lower bound
    (one-sided, at `level`) of mean(b - a) is above -drop; fail: the upper bound is below -drop; inconclusive: neither.
    None promises nothing, and only the difference is told.
    For a relative Keep the scores are minus the losses; mean(loss of b) / mean(loss of a) - 1 is tested instead.
    """
    keep = Keep(points=drop) if isinstance(drop, float | int) else drop
    first, second = _same_length(_scores(a, "a"), _scores(b, "b"))
    both = 2 * _upper(level) - 1
    if keep is None:
        return Floor(UNPROMISED, _difference(first, second, both, 2 * both - 1, _wary_bounds), None)
    if keep.points is not None:
        found = _difference(first, second, both, 2 * both - 1, _wary_bounds)
        kept, lost = found.low > -keep.points, found.high < -keep.points
    else:
        if not first.mean() < 0:
            raise BadData(f"a: its mean loss is not above 0, so {keep} has no meaning; keep points ('-0.5pt') instead")
        growth = _growth(first, second)
        low, high = _wary_bounds(growth, both)
        found = Evidence(float(growth.mean()), float(low), float(high), len(first), 2 * both - 1, "%")
        kept, lost = found.high < (keep.relative or 0.0), found.low > (keep.relative or 0.0)
    return Floor("pass" if kept else "fail" if lost else "inconclusive", found, keep)


def _growth(a: Array, b: Array) -> Array:
    """How much the mean loss grows, row by row: the ratio of means, made linear at its value; of shape (..., n)."""
    middle = a.mean(axis=-1, keepdims=True)
    ratio = b.mean(axis=-1, keepdims=True) / middle
    grown: Array = ratio - 1 + (b - ratio * a) / middle
    return grown


def _difference(a: Array, b: Array, side: float, level: float, bounds: Bounds) -> Evidence:
    if not np.isin((a, b), (0, 1)).all():
        low, high = bounds(b - a, side)
        return Evidence(float((b - a).mean()), float(low), float(high), len(a), level)
    gained, lost = int((b > a).sum()), int((a > b).sum())
    return Evidence((gained - lost) / len(a), *_tango(gained, lost, len(a), side), len(a), level, "pt")


def _tango(gained: int, lost: int, n: int, side: float) -> tuple[float, float]:
    """Bounds of (gained - lost) / n among n pairs, each one-sided at level `side`: Tango's score interval.

    A difference d is inside when |gained - lost - n d| - 1/2 <= z sqrt(n (2 q + d (1 - d))), q being the likeliest
    share of lost pairs given d. The half is a continuity correction: without it, 6.7% of false passes can come at 5%.
    """
    z = float(stats.norm.ppf(side))

    def excess(d: float, up: int, down: int) -> float:
        linear = (2 * n - up + down) * d - up - down
        q = (np.sqrt(max(0.0, linear * linear + 8 * n * down * d * (1 - d))) - linear) / (4 * n)
        return float(up - down - n * d - 0.5 - z * np.sqrt(max(0.0, n * (2 * q + d * (1 - d)))))

    def lower(up: int, down: int) -> float:
        return float(optimize.brentq(excess, -1.0, (up - down) / n, (up, down))) if excess(-1.0, up, down) > 0 else -1.0

    return lower(gained, lost), -lower(lost, gained)


def _mean_bounds(values: Array, side: float) -> tuple[Any, Any]:
    """Bounds of a mean, each one-sided at level `side`: the wider of Student's t and Hall's cubic transformation.

    Of values of shape (..., n), bounds of shape (...): simulations ask for many at once.
    """
    n, centre = values.shape[-1], values.mean(axis=-1)
    if n < 2:
        raise BadData("scores: 1 example is too few for an interval; give 2 or more")
    spread, t, root = values.std(axis=-1, ddof=1), float(stats.t.ppf(side, n - 1)), float(np.sqrt(n))
    varied = spread > 1e-12 * np.abs(centre)
    unit = np.where(varied, spread, 1.0)
    third = (((values - centre[..., None]) / unit[..., None]) ** 3).mean(axis=-1) / 3
    skewed = np.abs(third) > 1e-6
    safe = np.where(skewed, third, 1.0)

    def hall(x: float) -> Any:  # the statistic whose transformed value is x
        found = root / safe * (np.cbrt(1 + 3 * third / root * (x - third / (2 * root))) - 1)
        return np.where(skewed, found, x)

    step = np.where(varied, spread, 0.0) / root
    return centre - step * np.maximum(hall(t), t), centre - step * np.minimum(hall(-t), -t)


def _wary_bounds(values: Array, side: float) -> tuple[Any, Any]:
    """The same for a floor: for each bound the value that is furthest out counts twice, for what comes once in n rows
    or less was hardly seen. Without it, 6 to 8% of false passes can come at 5% where few rows lose most."""
    low, high = _mean_bounds(values, side)
    least, most = values.min(axis=-1, keepdims=True), values.max(axis=-1, keepdims=True)
    lower, _ = _mean_bounds(np.concatenate([values, least], axis=-1), side)
    _, upper = _mean_bounds(np.concatenate([values, most], axis=-1), side)
    return np.minimum(low, lower), np.maximum(high, upper)


def _upper(level: float) -> float:
    if not 0.5 < level < 1:
        raise BadSetting(f"level {level}: must be above 0.5 and below 1, such as 0.95")
    return (1 + level) / 2


def _scores(values: ArrayLike, name: str) -> Array:
    found = np.asarray(values, dtype=np.float64)
    if found.ndim != 1 or not len(found) or not np.isfinite(found).all():
        raise BadData(f"{name}: expected one finite number an example, shape (n,), found {found!r}".replace("\n", " "))
    return found


def _same_length(a: Array, b: Array) -> tuple[Array, Array]:
    if len(a) != len(b):
        raise BadData(f"a and b: {len(a)} and {len(b)} values; give those of the same examples, in the same order")
    return a, b
