"""Reports: every number is there, in a page that is whole, safe and small, and in tables of 80 columns."""

from __future__ import annotations

import copy
import re
from html.parser import HTMLParser
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from shoal.core.errors import BadArtifact, BadSetting
from shoal.report import format, layer_table, page, tables
from shoal.report.charts import line, whiskers
from shoal.report.reading import headline

VOID = {"meta", "link", "br", "hr", "img", "input"}
HOSTILE = """"'><script>alert(1)</script>[red]{{ 7 * 7 }}"""


def evidence(value: float, half: float, unit: str = "%", n: int = 360) -> dict[str, Any]:
    return {"value": value, "low": value - half, "high": value + half, "n": n, "level": 0.95, "unit": unit}


def measured(quality: float, ms: float, params: int, macs: int, depth: int) -> dict[str, Any]:
    time = {"median": ms, "p10": ms * 0.96, "p90": ms * 1.09, "n": 200}
    counts = {"params": params, "macs": macs, "bytes": 4 * params, "depth": depth}
    return {"quality": evidence(quality, 0.012), "latency_ms": time, **counts}


def layer(index: int, fate: str, after: dict[str, Any] | None) -> dict[str, Any]:
    cost = {"params": 4_672, "macs": 294_912, "ms": 0.0412}
    return {"path": f"stages.0.layers.{index}", "type": "Layer", **cost, "fate": fate, "after": after}


def compression() -> dict[str, Any]:
    """A compression report with every section."""
    wide = {"path": "stages.0.layers.1", "params": 14_016, "macs": 884_736, "ms": 0.0688}
    kept = {"path": "stages.0.layers.0", "params": 4_672, "macs": 294_912, "ms": 0.0401}
    fates = [
        "kept",
        "merged into stages.0.layers.1",
        "merged into stages.0.layers.1",
        "dropped",
        "dropped",
        "side by side",
    ]
    after = [kept, wide, None, None, None, {**kept, "path": "stages.0.layers.2", "macs": 147_456}]
    return {
        "kind": "compression",
        "model": "Net",
        "spec_before": "convolution[channels=1] | residual(conv) 24x16 | pool[outputs=10]",
        "spec_after": "convolution[channels=1] | grouped[size=[1,3,3]](conv norm=none) 7x16 | pool[outputs=10]",
        "data": {
            "name": "digits",
            "fingerprint": "9b1c7e55d0",
            "task": "classification[classes=10]",
            "notes": ["2 rows with missing values were left out"],
            "sizes": {"train": 1077, "valid": 360, "test": 361},
        },
        "goals": [
            {"text": "latency<=50%", "metric": "latency", "bound": 0.565, "measured": 0.463, "met": True},
            {"text": "bytes<=0.2MB", "metric": "bytes", "bound": 200_000, "measured": 213_456, "met": False},
        ],
        "keep": "-1pt",
        "floor": {"word": "pass", "difference": evidence(-0.002, 0.007, "pt")},
        "metric": {"name": "accuracy", "unit": "%"},
        "before": measured(0.983, 1.13, 114_250, 7_234_560, 26),
        "folded": measured(0.983, 1.05, 113_000, 7_234_560, 26),
        "after": measured(0.981, 0.463, 53_364, 3_120_000, 9),
        "ratio": {**evidence(0.41, 0.01, "x"), "n": 200},
        "runtimes": {
            "eager": {"before_ms": 1.13, "after_ms": 0.463, "ratio": evidence(0.41, 0.01, "x")},
            "onnxruntime": {"before_ms": 0.312, "after_ms": 0.151, "ratio": evidence(0.48, 0.02, "x")},
        },
        "layers": [layer(index, fate, now) for index, (fate, now) in enumerate(zip(fates, after, strict=True))],
        "edits": [
            {"text": "drop stages.0.layers.3", "harm": 0.00231, "gain_ms": 0.0412, "quality": 0.978},
            {"text": "parallel stages.0.layers.1, stages.0.layers.2", "harm": 0.0173, "gain_params": 4_672},
        ],
        "controls": [
            {
                "name": "same shape from scratch",
                "quality": evidence(0.969, 0.017),
                "difference": evidence(0.012, 0.011, "pt"),
                "word": "better",
            },
            {
                "name": "random edits",
                "quality": evidence(0.934, 0.025),
                "difference": evidence(0.047, 0.022, "pt"),
                "word": "better",
            },
            {
                "name": "magnitude",
                "quality": evidence(0.978, 0.015),
                "difference": evidence(0.003, 0.012, "pt"),
                "word": "unclear",
            },
        ],
        "healing": [
            {
                "epoch": e,
                "loss": None if e == 0 else 0.9 * 0.7**e + 0.06,
                "quality": 0.98 - 0.4 * 0.5**e,
                "seconds": 2.1 * e,
            }
            for e in range(9)
        ],
        "refused": [
            {"place": "stem.first", "why": "it changes the shape, [32, 1, 8, 8] to [32, 16, 8, 8]"},
            {"place": "head.map", "why": "it changes the shape, [32, 16] to [32, 10]"},
        ],
        "environment": {
            "threads": 2,
            "torch": "2.13.0",
            "shoal": "0.1.0",
            "processor": "x86_64",
            "seed": 0,
            "seconds": 204.0,
        },
    }


def training() -> dict[str, Any]:
    """A training report with every section."""
    whole = compression()
    return {
        "kind": "training",
        "spec": "residual(mlp) 3x64",
        "data": whole["data"],
        "metric": {"name": "R2", "unit": ""},
        "valid": evidence(0.8421, 0.021, ""),
        "test": evidence(0.8312, 0.024, ""),
        "params": 42_433,
        "macs": 42_000,
        "depth": 8,
        "history": [
            {"epoch": e, "loss": 1 / (e + 1), "quality": 0.84 - 0.8 / (e + 1), "seconds": 1.5 * e} for e in range(41)
        ],
        "baselines": [
            {
                "name": "mean",
                "quality": evidence(-0.0012, 0.001, ""),
                "difference": evidence(0.83, 0.03, ""),
                "word": "better",
            },
            {
                "name": "gradient boosting",
                "quality": evidence(0.829, 0.02, ""),
                "difference": evidence(0.002, 0.02, ""),
                "word": "unclear",
            },
        ],
        "environment": whole["environment"],
    }


class Balance(HTMLParser):
    """Reads a page: its text, and whether every element that is opened is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.tags: set[str] = set()
        self.addresses: list[str | None] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "action", "xlink:href")]
        self.wrong += [name for name, _ in attrs if name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += f" {data.strip()}" if data.strip() else ""


def read(html: str) -> Balance:
    parser = Balance()
    parser.feed(html)
    parser.close()
    assert parser.wrong == []
    assert parser.open == []
    return parser


def terminal(report: dict[str, Any], width: int = 80) -> str:
    console = Console(file=StringIO(), width=width, color_system=None)
    for table in tables(report):
        console.print(table)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


NUMBERS = [
    "Depth 26 became 9: 0.41x [0.40, 0.42] the latency, accuracy 98.3% → 98.1%, floor -1pt: pass",
    "98.3% [97.1, 99.5]", "98.1% [96.9, 99.3]", "96.9% [95.2, 98.6]", "+4.7 pt [+2.5, +6.9]", "-0.2 pt [-0.9, +0.5]",
    "1.13 ms", "0.46 ms", "114 k", "53.4 k", "7.23 M", "3.12 M", "457 kB", "213 kB", "0.43x", "0.48x [0.46, 0.50]",
    "latency<=50%: met", "bytes<=0.2MB: not met", "213 kB of at most 200 kB", "0.31", "0.15",
    "4,672", "14.0 k", "295 k",
    "0.041", "0.069", "0.00231", "0.041 ms", "4,672 params", "97.8%", "same shape from scratch", "random edits",
    "stem.first", "[32, 1, 8, 8] to [32, 16, 8, 8]", "9b1c7e55d0", "1,077", "2 rows with missing values", "2.13.0",
    "3 min 24 s", "grouped[size=[1,3,3]](conv norm=none) 7x16", "p10 to p90: 1.08 ms to 1.23 ms",
]  # fmt: skip


def test_the_page_of_a_compression_says_everything() -> None:
    seen = read(page(compression()))
    text = re.sub(r"\s+", " ", seen.text)
    for words in NUMBERS:
        assert words in text, words
    assert seen.text.count("=>") >= 6
    assert seen.tags >= {"svg", "circle", "polyline", "table"}


def test_the_page_of_a_training_says_everything() -> None:
    text = re.sub(r"\s+", " ", read(page(training())).text)
    for words in ("R2 0.8312 [0.8072, 0.8552] on the test part", "0.8421 [0.8211, 0.8631]", "42.4 k", "42.0 k",
                  "gradient boosting", "unclear", "residual(mlp) 3x64", "0.02439 at the end"):  # fmt: skip
        assert words in text, words


@pytest.mark.parametrize("report", [compression(), training()], ids=["compression", "training"])
def test_the_page_is_self_contained_and_small(report: dict[str, Any]) -> None:
    html = page(report)
    seen = read(html)
    assert len(html.encode()) < 300_000
    assert seen.addresses == []
    assert not re.search(r"https?:|//[a-z]|url\(|@import|<script|<link|<iframe", html)
    assert "prefers-color-scheme: dark" in html


def test_a_page_of_a_thousand_layers_is_still_small() -> None:
    report = compression()
    report["layers"] = [layer(index, "dropped", None) for index in range(500)]
    assert len(page(report).encode()) < 300_000


def hostile(data: Any) -> Any:
    """The same with every word replaced by one that means harm."""
    if isinstance(data, dict):
        return {
            key: value if key in ("kind", "unit", "metric", "level") and isinstance(value, str) else hostile(value)
            for key, value in data.items()
        }
    if isinstance(data, list):
        return [hostile(value) for value in data]
    return HOSTILE if isinstance(data, str) else data


@pytest.mark.parametrize("report", [compression(), training()], ids=["compression", "training"])
def test_hostile_words_are_only_words(report: dict[str, Any]) -> None:
    evil = hostile(report)
    seen = read(page(evil))
    assert "script" not in seen.tags
    assert "alert(1)" in seen.text
    assert "{{ 7 * 7 }}" in seen.text
    shown = terminal(evil, 200)
    assert "[red]" in shown


@pytest.mark.parametrize("report", [compression(), training()], ids=["compression", "training"])
def test_sections_that_are_not_there_are_left_out(report: dict[str, Any]) -> None:
    needed = {"kind", "model", "metric", "before", "after", "ratio", "floor", "keep", "spec", "test"}
    for key in report.keys() - needed:
        fewer = {name: value for name, value in report.items() if name != key}
        read(page(fewer))
        terminal(fewer)
        read(page({**report, key: None if key != "environment" else {}}))
    least = {name: value for name, value in report.items() if name in needed}
    text = read(page(least)).text
    for title in ("Layer by layer", "Edits", "Healing", "left alone", "controls", "baselines", "Latency by runtime"):
        assert title not in text
    terminal(least)


def test_what_is_no_report_is_an_error() -> None:
    for make in (page, tables):
        with pytest.raises(BadSetting, match="report of kind 'study': not known; known: compression, training"):
            make({"kind": "study"})
        with pytest.raises(BadSetting, match="kind None"):
            make({})
        with pytest.raises(BadArtifact, match="has no metric, test; make the report again"):
            make({"kind": "training", "spec": "x"})


@pytest.mark.parametrize("report", [compression(), training()], ids=["compression", "training"])
def test_tables_stay_within_80_columns(report: dict[str, Any]) -> None:
    shown = terminal(report)
    assert max(len(row) for row in shown.splitlines()) <= 80
    assert "…" not in shown


def test_tables_say_what_became_of_each_layer() -> None:
    console = Console(file=StringIO(), width=120, color_system=None)
    console.print(layer_table(compression()))
    assert isinstance(console.file, StringIO)
    rows = console.file.getvalue().splitlines()
    assert re.search(r"layers\.0 +kept +4,672 +295 k +0.041 => 0.040", rows[2])
    assert re.search(r"layers\.1 +merged into stages\.0\.layers\.1 +4,672 => 14\.0 k +295 k => 885 k", rows[3])
    assert re.search(r"layers\.3 +dropped +4,672 => 0 +295 k => 0 +0\.041 => 0", rows[5])
    shown = terminal(compression(), 120)
    for words in ("98.1% [96.9, 99.3]", "0.41x", "not met", "pass", "-0.2 pt [-0.9, +0.5]", "0.15 ms", "onnxruntime"):
        assert words in shown, words


def test_a_relative_floor_is_said_as_growth() -> None:
    report = {**compression(), "keep": "+1%", "floor": {"word": "fail", "difference": evidence(0.023, 0.004)}}
    text = re.sub(r"\s+", " ", read(page(report)).text)
    assert "Floor +1%: fail Growth of the mean loss: 2.3% [1.9, 2.7], n = 360." in text


def test_the_headline_when_nothing_changed() -> None:
    report = copy.deepcopy(compression())
    report["after"]["depth"] = 26
    report["floor"]["word"] = "inconclusive"
    assert headline(report).startswith("Depth stayed at 26: ")
    assert headline(report).endswith("floor -1pt: inconclusive")


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        (format.count(0), "0"), (format.count(9_408), "9,408"), (format.count(12_345), "12.3 k"),
        (format.count(999_600), "1.00 M"), (format.count(1_234_567), "1.23 M"), (format.count(4.56e9), "4.56 G"),
        (format.count(3e15), "3000 T"), (format.size(512), "512 B"), (format.size(4_100), "4.10 kB"),
        (format.milliseconds(0.0042), "4.2 µs"), (format.milliseconds(0.456), "0.46 ms"),
        (format.milliseconds(0.0), "0.000 ms"),
        (format.milliseconds(123.4), "123.4 ms"), (format.seconds(4.2), "4.2 s"), (format.seconds(200), "3 min 20 s"),
        (format.seconds(7500), "2 h 5 min"), (format.evidence(evidence(0.983, 0.01)), "98.3% [97.3, 99.3]"),
        (format.evidence(evidence(0.41, 0.01, "x")), "0.41x [0.40, 0.42]"),
        (format.evidence(evidence(-0.5, 0.25, "")), "-0.5 [-0.75, -0.25]"),
    ],
)  # fmt: skip
def test_numbers_as_people_read_them(said: str, wanted: str) -> None:
    assert said == wanted


def test_charts_hold_all_their_marks() -> None:
    for value, half in ((0.98, 0.01), (1.0, 0.0), (0.0, 0.0), (-3.2, 0.5), (1e-9, 1e-10), (12345.0, 1.0)):
        chart = whiskers(
            [("a", "before", evidence(value, half, ""), ""), ("b", "after", evidence(value, 2 * half, ""), "")]
        )
        assert all(0 <= at <= 100 for row in chart.rows for at in (row.low, row.dot, row.high))
        assert 2 <= len(chart.ticks) <= 8
    assert line("x", [(0, 1.0)], "") is None
    flat = line("x", [(0, 1.0), (1, 1.0)], "")
    assert flat is not None
    assert [point[0] for point in flat.points] == [0, 100]
