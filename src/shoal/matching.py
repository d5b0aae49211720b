"""Matching: the net of a family that costs what is asked, found by its width and its block's inner size.

match("mlp", like=data, params=100_000)                    weights, within 1%
match("conv[kernel=[5,5]]", like=data, macs=2e6, depth=8)  multiply-adds of one example, within 1%
match("mlp norm=rms", like=data, latency=0.1)              milliseconds as predicted for this machine, within 2%

The width is found whose default sizes come near the budget; then the inner size is fitted at the widths about it, the
nearest first. Multiples of 8 come first, of 4 next: kernels are made for them, and a width of 48 can be faster than 44.
Nets are priced on the meta device, where nothing is computed, however wide they are.

Longer than the house's 250 lines: what is searched, how and why is one story.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from shoal.building import complete_spec
from shoal.core.errors import BadModel, BadSetting, BadSpec, OutOfReach
from shoal.core.part import Part, Reader
from shoal.core.spec import Spec
from shoal.costing import cost
from shoal.data import Dataset, Signature, open_data
from shoal.kinds import BLOCKS
from shoal.net import Net, empty

TOLERANCE = {"params": 0.01, "macs": 0.01, "latency": 0.02}
# What width and inner size are multiples of, and how far the inner size may be from its default share, as a factor:
GRAINS = ((8, 8, 1.25), (4, 4, 1.25), (8, 1, 1.25), (4, 1, 1.25), (1, 1, 1.25), (1, 1, 2.0))
START, WIDEST = 32, 2**16
REFUSALS = 64  # a family that refuses every width up to here is refused
# In logarithms: default sizes this near a budget are fitted to it, those this far are out of reach:
NEAR, FAR = 0.1, 1.0
FITS = 3  # inner sizes fitted at one width
STEPS = 40  # of an inner size that is scanned, from nothing to its share
MOST = 200  # nets priced before the search gives up

Size = tuple[int, int | None]  # the width, and the inner size where it is not the default


def match(
    block: str | Part,
    *,
    like: Any,
    params: float | None = None,
    macs: float | None = None,
    latency: float | None = None,
    depth: int = 4,
    wiring: str | Part = "residual",
    batch: int = 1,
) -> Spec:
    """The complete spec of that block, wiring and depth whose net comes within 1% of the budget (2% of a latency).

    block       its name and the settings to keep; norm= and linear= may follow, as in the text of a spec
    like        a Dataset, its Signature, or what ``open_data`` takes
    params, macs, latency    one of them: weights, multiply-adds of one example, predicted milliseconds a call
    batch       rows a call, of a latency

        spec = shoal.match("mlp", like="digits", params=30_000)
        net = shoal.build(spec)

    Raises BadSetting for a budget that is no number above 0, BadSpec for a block that does not run on such data,
    OutOfReach with the nearest below and above where no net lands.
    """
    budget = _budget({"params": params, "macs": macs, "latency": latency})
    if depth < 1 or batch < 1:
        raise BadSetting(f"match: depth={depth}, batch={batch}: both must be at least 1")
    if batch != 1 and latency is None:
        raise BadSetting(f"match: batch={batch} is said of a latency only; leave it out for {budget.name}")
    data = like if isinstance(like, Dataset | Signature) else open_data(like)
    signature = data.signature if isinstance(data, Dataset) else data
    return _Search(_Family(str(block), str(wiring), depth, signature), budget, _example(signature, batch)).run()


@dataclass(frozen=True)
class _Budget:
    name: str
    value: float

    def gap(self, price: float) -> float:
        """How far a price is above the budget, in logarithms."""
        return math.log(price / self.value)

    def meets(self, price: float) -> bool:
        return abs(price - self.value) <= TOLERANCE[self.name] * self.value

    def text(self, price: float) -> str:
        return f"{price:.4g} ms" if self.name == "latency" else f"{price:,.0f} {self.name}"


def _budget(asked: dict[str, float | None]) -> _Budget:
    given = {name: value for name, value in asked.items() if value is not None}
    if len(given) != 1:
        raise BadSetting(f"match: {' and '.join(given) or 'no budget'} given; give exactly one of {', '.join(asked)}")
    [(name, value)] = given.items()
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 < value <= sys.float_info.max:
        raise BadSetting(f"match: {name}={value!r}: give a finite number above 0")
    return _Budget(name, float(value))


def _example(signature: Signature, rows: int) -> Tensor:
    """What such a net takes, with no values in it."""
    if signature.vocabulary is not None:
        return torch.empty(rows, *signature.places, dtype=torch.int64, device="meta")
    return torch.empty(rows, *signature.places, signature.channels, device="meta")


class _Family:
    """The nets of one block in one wiring at one depth, by width and inner size.

    `inner` names the setting that is fitted: the last of the block's sizes that is not given, for no other follows from
    it; None where all are given.
    """

    def __init__(self, block: str, wiring: str, depth: int, like: Signature) -> None:
        reader = Reader(block)
        self.part, self.wiring, self.depth, self.like = reader.part(), Part.parse(wiring), depth, like
        self.rest = block[reader.at :]
        while block[reader.at :].strip():
            reader.match(re.compile(r"[a-z][a-z0-9_.]*"), "norm= or linear= of the one block")
            reader.expect("=")
            reader.part()
        given = {name for name, value in self.part.settings.items() if value is not None}
        self.inner = next((name for name in reversed(BLOCKS.get(self.part.name).sizes) if name not in given), None)

    def __str__(self) -> str:
        return f"{self.part} {self.rest}".rstrip()

    def spec(self, width: int, inner: int | None = None) -> Spec:
        """Raises BadSetting or BadSpec where one of the parts does not accept such a size."""
        part = self.part if self.inner is None or inner is None else self.part.with_settings(**{self.inner: inner})
        return complete_spec(f"{self.wiring}({part} {self.rest}) {self.depth}x{width}", self.like)

    def share(self, width: int) -> int | None:
        """The inner size at its default; None where there is none to fit, or the width is refused."""
        if self.inner is None:
            return None
        try:
            value = self.spec(width).stages[0].layers[0].block.settings[self.inner]
        except (BadSetting, BadSpec):
            return None
        return value if isinstance(value, int) else None

    def text(self, width: int, inner: int | None) -> str:
        """``width 48, hidden 192``."""
        size = self.share(width) if inner is None else inner
        return f"width {width}" if size is None else f"width {width}, {self.inner} {size}"


@dataclass(frozen=True)
class _Trend:
    """A net and how prices change about it: by `pull` with the inner size (relative to relative), by `slope` with the
    width at one inner size (in logarithms)."""

    width: int
    inner: int
    price: float
    pull: float
    slope: float

    def width_at(self, price: float) -> float:
        """The width whose default sizes should cost so much: the inner size grows with it."""
        return self.width * (price / self.price) ** (1 / max(self.slope + self.pull, 0.5))

    def inner_at(self, width: int, price: float) -> float:
        """The inner size that should cost so much at that width."""
        missing = price / self.price * (self.width / width) ** self.slope - 1
        return self.inner * (1 + missing / self.pull)


class _Search:
    """One search for one budget; a size is priced once."""

    def __init__(self, family: _Family, budget: _Budget, example: Tensor) -> None:
        self.family, self.budget, self.example = family, budget, example
        self.prices: dict[Size, float] = {}
        self.refusals: dict[Size, BadSetting | BadSpec] = {}

    def run(self) -> Spec:
        """The first net that meets the budget, in order of preference."""
        start = self._nearest(START, 0, REFUSALS + 1)
        if start is None:
            raise self.refusals[START, None]
        smooth = self.budget.name != "latency"
        centre = self._centre(start) if smooth else self._scanned()
        near = min(self.prices, key=lambda size: abs(self.budget.gap(self.prices[size])))[0]
        if abs(self.budget.gap(self.prices[near, None])) > FAR:
            raise self._failure()
        trend = self._trend(near) if smooth else None
        if trend is not None:
            centre = trend.width_at(self.budget.value)
        for grain, fine, stretch in GRAINS:
            reach = math.sqrt(stretch)  # the price grows with both sizes: one gives way about as much as the other
            first, last = math.ceil(centre / reach / grain), math.floor(min(centre * reach, WIDEST) / grain)
            widths = [grain * count for count in range(max(first, 1), last + 1)]
            for width in sorted(widths, key=lambda width: abs(math.log(width / centre))):
                for inner in self._inners(width, trend, fine, stretch):
                    price = self.price(width, inner)
                    if price is not None and self.budget.meets(price):
                        return self.family.spec(width, inner)
        raise self._failure()

    def price(self, width: int, inner: int | None = None) -> float | None:
        """What that net costs; None where one of its parts does not accept the size."""
        size = width, inner
        if size not in self.prices and size not in self.refusals:
            if len(self.prices) == MOST:
                raise self._failure()
            try:
                net = empty(self.family.spec(width, inner))
            except (BadSetting, BadSpec) as error:  # heads that do not divide it, say; run() raises it where all refuse
                self.refusals[size] = error
            else:
                if not self.prices:
                    _check_runs(net, self.example, self.family)
                self.prices[size] = _price(net, self.example, self.budget.name)
        return self.prices.get(size)

    def _nearest(self, width: int, low: int, high: int) -> int | None:
        """The accepted width nearest to that one, of those strictly between low and high."""
        for step in range(max(width - low, high - width)):
            for near in (width + step, width - step):
                if low < near < high and self.price(near) is not None:
                    return near
        return None

    def _centre(self, width: int) -> float:
        """Where default sizes should cost the budget: false position, price over width in logarithms."""
        low, high, slope = 0, WIDEST + 1, 1.5
        while True:
            gap = self.budget.gap(self.prices[width, None])
            centre = width * math.exp(min(-gap / slope, math.log(WIDEST)))
            low, high = (width, high) if gap < 0 else (low, width)
            guess = min(max(round(centre), 1), WIDEST)
            if not low < guess < high:
                guess = round(math.sqrt(max(low, 1) * high))
            found = None if abs(gap) < NEAR else self._nearest(min(max(guess, low + 1), high - 1), low, high)
            if found is None:
                return centre
            slope = (self.budget.gap(self.prices[found, None]) - gap) / math.log(found / width)
            width, slope = found, min(max(slope, 0.5), 3.0)

    def _scanned(self) -> float:
        """The width whose default sizes come nearest the budget; all are looked at, for latency does not only grow."""
        width, above = self._nearest(1, 0, REFUSALS + 1), 0
        while width is not None and above < 2:
            above += self.prices[width, None] > 1.5 * self.budget.value
            rung = 2 * width if width < 8 else 8 * math.ceil(1.15 * width / 8)
            width = self._nearest(rung, width, WIDEST + 1) if rung <= WIDEST else None
        return min(self.prices, key=lambda size: abs(self.budget.gap(self.prices[size])))[0]

    def _trend(self, width: int) -> _Trend | None:
        """The trend about a width at its default sizes; None where no inner size changes the price."""
        share, price = self.family.share(width), self.prices[width, None]
        if share is None:
            return None
        larger, wider = (share + max(share // 4, 1), 2 * share), range(width + max(width // 8, 1), 2 * width + 1)
        more = next((size for size in larger if self.price(width, size) is not None), None)
        other = next((size for size in wider if self.price(size, share) is not None), None)
        if more is None or other is None or self.prices[width, more] < 1.01 * price:
            return None
        pull = (self.prices[width, more] / price - 1) / (more / share - 1)
        slope = math.log(self.prices[other, share] / price) / math.log(other / width)
        return _Trend(width, share, price, pull, slope)

    def _inners(self, width: int, trend: _Trend | None, fine: int, stretch: float) -> Iterator[int | None]:
        """Inner sizes to try at a width, multiples of `fine`. With a trend: what should meet the budget, then again by
        what that one's price says. Without: all, the nearest to the default share first."""
        share = self.family.share(width)
        if share is None and trend is not None:  # the width is refused at default sizes: as large as elsewhere
            share = max(round(trend.inner * width / trend.width), 1)
        if share is None:
            yield None
        elif trend is None:
            step = fine * max(round(share / STEPS / fine), 1)
            sizes = range(step * math.ceil(share / stretch / step), math.floor(share * stretch) + 1, step)
            yield from sorted(sizes, key=lambda size: abs(math.log(size / share)))
        else:
            want = trend.inner_at(width, self.budget.value)
            for _ in range(FITS):
                inner = fine * round(want / fine)
                rounded = trend.pull * abs(inner - want) / share
                if not share / stretch <= inner <= share * stretch or rounded > 3 * TOLERANCE[self.budget.name]:
                    return
                yield inner
                price = self.price(width, inner)
                if price is None:
                    return
                want = inner + share * (self.budget.value / price - 1) / trend.pull

    def _failure(self) -> OutOfReach:
        budget, family = self.budget, self.family
        tried = sorted(self.prices, key=lambda size: self.prices[size])
        below = [size for size in tried if self.prices[size] <= budget.value][-1:]
        above = [size for size in tried if self.prices[size] > budget.value][:1]
        near = "; ".join(f"{family.text(*size)}: {budget.text(self.prices[size])}" for size in below + above)
        none = "" if below and above else ", none above" if below else ", none below"
        sizes = f"width up to {WIDEST}" + (f", {family.inner} about its default" if family.inner else "")
        return OutOfReach(
            f"match {str(family)!r}: none of {len(tried)} nets of depth {family.depth} ({sizes}) comes within "
            f"{TOLERANCE[budget.name]:.0%} of {budget.text(budget.value)}; the nearest: {near}{none}; "
            "give another budget, depth or wiring"
        )


def _price(net: Net, example: Tensor, budget: str) -> float:
    if budget == "params":
        return sum(weight.numel() for weight in net.parameters())  # as cost() counts them, without running the net
    if budget == "latency":
        return _predicted(net, example)
    found = cost(net, example, training=False)
    if found.lower_bound:
        raise BadModel(f"macs of {net.spec}: {', '.join(found.uncounted)} cannot be counted; ask for params or latency")
    return found.macs


def _predicted(net: Net, example: Tensor) -> float:
    """Milliseconds a call takes, as predicted for this machine; no other place asks."""
    from shoal.costing.predicting.prediction import (
        latency_model,  # brings scikit-learn, which weights and macs do without
    )

    return latency_model().ms(cost(net, example, training=False))


def _check_runs(net: Net, example: Tensor, family: _Family) -> None:
    """Raises BadSpec where such nets do not run on such data."""
    try:
        with torch.no_grad():
            net.eval()(example)
    except Exception as error:
        said = str(error).partition("\n")[0]
        fix = "give another block, or its settings for such data, such as conv[kernel=[3]] for sequences"
        data = f"data of {len(family.like.places)} places"
        raise BadSpec(f"match {str(family)!r}: does not run on {data}: {said}; {fix}") from error
