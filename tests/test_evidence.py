"""Evidence: intervals cover, floors are not passed wrongly, words follow from intervals."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from shoal.core.errors import BadData, BadSetting
from shoal.evidence import (
    Evidence,
    Keep,
    _growth,
    _wary_bounds,
    compare,
    floor,
    mean,
    parse_keep,
    proportion,
    ratio_of_medians,
)

RUNS, MANY = 300, 2000
SLACK = 3 * np.sqrt(0.05 * 0.95 / RUNS)  # three standard errors of a rate of 5% among as many runs

binary = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=80)
real = st.lists(st.tuples(*[st.floats(-100, 100).map(lambda x: round(x, 3))] * 2), min_size=2, max_size=80)


def columns(pairs):
    return np.array(pairs, dtype=float).T


def right_or_wrong(random, n, lost, gained):
    """0/1 scores of n examples; a is right in 80%; the shares `lost` and `gained` change, of all examples."""
    a, u = random.random(n) < 0.8, random.random(n)
    return a.astype(float), np.where(a, u >= lost / 0.8, u < gained / 0.2).astype(float)


def test_text_and_json():
    share = Evidence(0.984, 0.971, 0.992, 360, unit="%")
    assert str(share) == "98.4% [97.1, 99.2] n=360"
    assert str(Evidence(0.4623, 0.45, 0.5, 40, unit="x")) == "0.4623x [0.45, 0.5] n=40"
    assert Evidence.from_json(json.loads(json.dumps(share.to_json()))) == share
    assert str(compare([0, 1] * 50, [0, 1] * 50, 0.1)) == "equivalent: +0.00pt [-4.61, +4.61] n=100"
    assert str(floor([0, 1] * 400, [0, 1] * 400, 0.005)) == "pass: +0.00pt [-0.45, +0.45] n=800, floor -0.5pt"


@pytest.mark.parametrize("hits", [0, 1, 27, 29, 30])
def test_proportion_is_wilsons(hits):
    found = proportion([1] * hits + [0] * (30 - hits))
    assert found.value == hits / 30
    for end in (found.low, found.high):  # the ends are where the score test just does not reject
        if 0 < end < 1:
            assert abs(found.value - end) == pytest.approx(1.959964 * np.sqrt(end * (1 - end) / 30), rel=1e-5)


@pytest.mark.parametrize("text", ["-0.5pt", "-2pt", "+1%", "+0.25%", "-0pt"])
def test_keep_reads_what_it_writes(text):
    assert str(parse_keep(text)) == text


def test_keep_forms():
    assert parse_keep(" -0.5 pt") == Keep(points=0.005)
    assert parse_keep("+1%") == Keep(relative=0.01)


@pytest.mark.parametrize("text", ["0.5pt", "+0.5pt", "-1%", "-0.5", "half", "", "-.pt"])
def test_keep_names_both_forms(text):
    with pytest.raises(BadSetting, match=r"'-0\.5pt'.*'\+1%'"):
        parse_keep(text)


@pytest.mark.parametrize(("points", "relative"), [(None, None), (0.1, 0.1), (-0.1, None), (float("nan"), None)])
def test_keep_is_one_number(points, relative):
    with pytest.raises(BadSetting, match="one of them"):
        Keep(points, relative)


def test_no_changed_answers_are_not_certainty():
    same = np.ones(360)
    found = compare(same, same, 0.01).difference
    assert -0.02 < found.low < -(1.96**2) / (360 + 1.96**2) < 0 < found.high < 0.02
    assert floor(same, same, 0.005).word == "inconclusive"
    assert floor(same, same, 0.011).word == "pass"


def test_words_of_a_comparison():
    a, zeros, ones = [0, 1] * 200, [0] * 400, [1] * 400
    assert compare(a, ones, 0.1).word == "better"
    assert compare(a, zeros, 0.1).word == "worse"
    assert compare(a, a, 0.1).word == "equivalent"
    assert compare(a, a, 0.001).word == "unclear"
    assert floor(a, zeros, 0.1).word == "fail"


@pytest.mark.parametrize(
    ("n", "drop", "gained"), [(200, 0.02, 0.0), (539, 0.005, 0.0), (1000, 0.01, 0.05), (2000, 0.005, 0.01)]
)
def test_floor_is_rarely_passed_at_the_margin(n, drop, gained):
    random = np.random.default_rng(n)
    words = [floor(*right_or_wrong(random, n, drop + gained, gained), drop).word for _ in range(RUNS)]
    assert words.count("pass") / RUNS <= 0.05 + SLACK
    assert words.count("fail") / RUNS <= 0.07 + SLACK


def false_passes(n, drop, gained):
    """The chance, exactly, that a floor is passed at its margin: of all counts of answers gained and lost."""
    lost, middle = drop + gained, round(n * gained)
    gains = np.arange(*stats.binom.interval(1 - 1e-9, n, gained), dtype=int) if gained else [middle]
    found, most = 0.0, 0
    for up in range(int(min(gains, default=0)), int(max(gains, default=0)) + 2):
        while most <= n - up and floor(*counted(n, up, most), drop).word == "pass":
            most += 1  # more gained, more may be lost
        found += stats.binom.pmf(up, n, gained) * stats.binom.cdf(most - 1, n - up, lost / (1 - gained))
    return found


def counted(n, gained, lost):
    a = np.r_[np.zeros(gained), np.ones(n - gained)]
    return a, np.r_[np.ones(gained), np.zeros(lost), np.ones(n - gained - lost)]


@pytest.mark.parametrize(
    ("n", "drop", "gained"),
    [
        (200, 0.02, 0.0),
        (360, 0.01, 0.01),
        (539, 0.005, 0.0),
        (1000, 0.01, 0.05),
        (2000, 0.005, 0.01),
        (7326, 0.01, 0.02),
    ],
)
def test_shares_are_passed_at_the_margin_in_one_of_twenty_at_most(n, drop, gained):
    assert false_passes(n, drop, gained) <= 0.05


def of_regression(random, runs, n, growth, tail):
    """Squared errors of predictions that moved: the mean loss grows by so much, and each row's goes up or down."""
    error = random.standard_t(tail, (runs, n)) / np.sqrt(tail / (tail - 2))
    moved = 0.9 * error + random.normal(size=(runs, n)) * np.sqrt(1 + growth - 0.81)
    return _growth(-(error**2), -(moved**2)), growth


def of_losses(random, runs, n, growth, tail):
    """Losses that become others, some of them many times as large."""
    a = random.exponential(1, (runs, n))
    return _growth(-a, -a * random.exponential(1 + growth, (runs, n))), growth


def of_fidelity(random, runs, n, lost, tail):
    """Cosines to the original, which were 1; the loss is that of many rows, and more of few."""
    return -random.lognormal(np.log(lost) - tail**2 / 2, tail, (runs, n)), lost


@pytest.mark.parametrize("n", [100, 300, 1000])
@pytest.mark.parametrize(
    ("pairs", "margin", "tail"),
    [
        (of_regression, 0.1, 30),
        (of_regression, 0.1, 5),
        (of_losses, 0.1, 0),
        (of_fidelity, 0.02, 0.5),
        (of_fidelity, 0.02, 1),
    ],
)
def test_scores_of_other_kinds_are_passed_at_the_margin_in_one_of_twenty_at_most(pairs, margin, tail, n):
    """The true difference is the margin. At a rate of 5% more passes than allowed come once in 1000 times."""
    values, true = pairs(np.random.default_rng(n), MANY, n, margin, tail)
    low, high = _wary_bounds(values, 0.95)
    passed = int((high < true).sum() if values.mean() > 0 else (low > -true).sum())
    assert passed <= stats.binom.ppf(0.999, MANY, 0.05)
    assert passed >= 0.01 * MANY, "so wary that nothing can be shown"


def test_bounds_of_many_are_those_of_each():
    random = np.random.default_rng(5)
    a, b = random.exponential(1, (2, 6, 50))
    low, high = _wary_bounds(_growth(-a, -b), 0.95)
    for row in range(6):
        found = floor(-a[row], -b[row], Keep(relative=0.1)).difference
        assert (found.low, found.high) == pytest.approx((low[row], high[row]))
        assert found.value == pytest.approx(b[row].mean() / a[row].mean() - 1)
        found = floor(a[row], b[row], 0.1).difference
        assert (found.low, found.high) == pytest.approx([end.item() for end in _wary_bounds(b[row] - a[row], 0.95)])


def test_floor_has_power():
    random = np.random.default_rng(1)
    words = [floor(*right_or_wrong(random, 2000, 0.01, 0.01), 0.01).word for _ in range(100)]
    assert words.count("pass") > 85
    words = [floor(*right_or_wrong(random, 2000, 0.06, 0.01), 0.01).word for _ in range(100)]
    assert words.count("fail") > 85


@pytest.mark.parametrize(("lost", "gained"), [(0.002, 0.002), (0.03, 0.01), (0.1, 0.15)])
def test_difference_of_proportions_covers(lost, gained):
    random = np.random.default_rng(2)
    found = [compare(*right_or_wrong(random, 300, lost, gained), 0.1).difference for _ in range(RUNS)]
    assert np.mean([one.low <= gained - lost <= one.high for one in found]) >= 0.95 - SLACK


def test_mean_covers_where_tails_are_long():
    random = np.random.default_rng(3)
    found = [mean(random.exponential(1, 100)) for _ in range(RUNS)]
    assert np.mean([one.low <= 1 <= one.high for one in found]) >= 0.94 - SLACK


def test_paired_ratio_is_blind_to_drift():
    random, drift = np.random.default_rng(4), np.exp(np.linspace(0, 2, 40))
    a, b = (factor * drift * random.lognormal(0, 0.02, 40) for factor in (1.2, 1.0))
    paired, unpaired = ratio_of_medians(a, b, paired=True), ratio_of_medians(a, b)
    assert 1 < paired.low < 1.2 < paired.high < 1.25
    assert unpaired.low < 1 < unpaired.high
    assert ratio_of_medians(a, b, paired=True) == paired


def test_ratio_covers():
    random = np.random.default_rng(5)
    for paired in (False, True):
        found = [ratio_of_medians(*random.lognormal(0, 1, (2, 40)), paired=paired) for _ in range(40)]
        assert sum(one.low <= 1 <= one.high for one in found) >= 34


@settings(deadline=None, max_examples=60)
@given(st.one_of(binary, real))
def test_swapping_turns_the_difference_round(pairs):
    a, b = columns(pairs)
    one, other = compare(a, b, 0.1), compare(b, a, 0.1)
    assert (one.difference.low, one.difference.high) == pytest.approx(
        (-other.difference.high, -other.difference.low), abs=1e-6, rel=1e-6
    )
    turned = {"better": "worse", "worse": "better"}
    assert other.word == turned.get(one.word, one.word)


@settings(deadline=None, max_examples=60)
@given(st.one_of(binary, real), st.floats(0, 1), st.floats(0, 1))
def test_a_wider_margin_forgives_more(pairs, one, other):
    (a, b), (narrow, wide) = columns(pairs), sorted((one, other))
    if compare(a, b, narrow).word == "equivalent":
        assert compare(a, b, wide).word == "equivalent"
    if floor(a, b, narrow).word == "pass":
        assert floor(a, b, wide).word == "pass"
    if floor(a, b, wide).word == "fail":
        assert floor(a, b, narrow).word == "fail"


@settings(deadline=None, max_examples=60)
@given(st.one_of(binary, real))
def test_the_value_lies_in_its_interval_which_grows_with_the_level(pairs):
    a, b = columns(pairs)
    found, wide = compare(a, b, 0).difference, compare(a, b, 0, level=0.99).difference
    assert wide.low - 1e-9 <= found.low - 1e-9 <= found.value <= found.high + 1e-9 <= wide.high + 2e-9
    assert found.value == pytest.approx((b - a).mean(), abs=1e-9)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: compare([1, 0], [1], 0.1), BadData, "2 and 1 values"),
        (lambda: compare([1.5, float("nan")], [1, 1], 0.1), BadData, "a: expected one finite number"),
        (lambda: compare([], [], 0.1), BadData, "shape"),
        (lambda: compare([1, 0], [1, 0], -0.1), BadSetting, "margin"),
        (lambda: compare([1, 0], [1, 0], 0.1, level=95), BadSetting, "level 95"),
        (lambda: floor([1, 0], [1, 0], Keep(relative=0.01)), BadData, "keep points"),
        (lambda: mean([1.0]), BadData, "2 or more"),
        (lambda: proportion([0.5]), BadData, "0 and 1"),
        (lambda: ratio_of_medians([1, 0], [1, 1]), BadData, "above 0"),
        (lambda: ratio_of_medians([1, 2, 3], [1, 1], paired=True), BadData, "same examples"),
    ],
)
def test_what_cannot_be_compared_is_said_in_one_line(call, error, says):
    with pytest.raises(error, match=says) as caught:
        call()
    assert "\n" not in str(caught.value)
