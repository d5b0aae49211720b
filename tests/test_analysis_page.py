"""The page of an analysis: every number is there, drawn and in tables; it is whole, safe, asks nothing of the network,
and sorts in a browser. The tables for the terminal say the same in short."""

from __future__ import annotations

import copy
import html as markup
import json
import re
import shutil
import subprocess
from functools import cache
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from rich.console import Console
from torch import nn

from planted import FAMILIES, Deep, Row
from shoal import analysis
from shoal.core.errors import BadArtifact, BadSetting
from shoal.report import analysis_page, analysis_tables
from shoal.report.analysed import WORDS, headline
from shoal.report.band import Point, band
from shoal.report.held import dots
from shoal.report.maps import LEVELS, heat, level, shade, square
from test_report import Balance, evidence, hostile

PLAN = ("needed", "dead", "needed", "loopable", "duplicate", "linear", "skippable", "mergeable")


def effect(intervention: str, places: list[int], loss: float, half: float) -> dict[str, Any]:
    return {
        "intervention": intervention,
        "places": [[f"layers.{i}", 0] for i in places],
        "loss": evidence(loss, half, "", 1000),
        "quality": evidence(-loss / 5, half / 5, "pt", 1000),
        "distance": evidence(loss / 2, half / 4, "", 1000),
    }


def step(number: int, word: str) -> dict[str, Any]:
    return {
        "left": 8 - number,
        "without": ["layers.1", 0] if number else None,
        "word": word,
        "difference": evidence(-0.011 * number, 0.004, "pt", 1000),
        "quality": evidence(0.97 - 0.011 * number**2, 0.01, "%", 1000),
        "ms": 2.0 - 0.2 * number,
        "predicted": 0.1 * number,
        "realised": evidence(0.111 * number**2, 0.02, "", 1000),
    }


def span(i: int, word: str) -> dict[str, Any]:
    return {
        "path": f"layers.{i}",
        "visit": 0,
        "kind": "branch" if i % 2 else "stream",
        "siblings": 7,
        "inner": "64,16",
        "params": 4_672 + i,
        "macs": 294_912 * (i + 1),
        "ms": 0.11 * (8 - i),
        "harm": 0.1 * i,
        "harm_low": 0.1 * i - 0.02,
        "harm_high": 0.1 * i + 0.02,
        "quality": -0.02 * i,
        "distance": 0.05 * i,
        "verdict": word,
        "why": f"reason number {i}",
    }


def report() -> dict[str, Any]:
    """An analysis of eight spans with every section."""
    words = ("pass", "pass", "inconclusive", "fail", "fail")
    like = [[1.0 if i == j else abs(i - j) / 10 for j in range(8)] for i in range(8)]
    return {
        "kind": "analysis",
        "model": "my_model.py:trained",
        "data": "digits",
        "keep": "-1pt",
        "metric": {"name": "accuracy", "unit": "%"},
        "quality": evidence(0.97, 0.01, "%", 1000),
        "floor": 0.96,
        "ms": 2.0,
        "rows": 1000,
        "seconds": 42.0,
        "effective_depth": {**step(1, "pass"), "of": 8, "low": 6, "skipped": [["layers.1", 0]]},
        "curve": [step(number, word) for number, word in enumerate(words)],
        "spans": [span(i, word) for i, word in enumerate(PLAN)],
        "effects": [
            *(effect("skip", [i], 0.1 * i, 0.02) for i in range(8)),
            *(effect("swap", [i, i + 1], 0.033 * i, 0.02) for i in range(7)),
        ],
        "measures": {
            "influence": {
                "columns": ["path", "visit", "influence"],
                "rows": [[f"layers.{i}", 0, 0.0123 * i] for i in range(8)],
            },
        },
        "maps": {"similarity": {"labels": [f"layers.{i}" for i in range(8)], "values": like}},
        "held": {
            "spearman": 0.8765,
            "sets": 5,
            "largest": 4,
            "pairs": [
                {
                    "skipped": [[f"layers.{i}", 0], [f"layers.{i + 1}", 0]],
                    "predicted": 0.2 * i,
                    "realised": evidence(0.2 * i + 0.01, 0.03, "", 256),
                }
                for i in range(2)
            ],
        },
        "left": {"head.map": "it changes the shape, [32, 16] to [32, 10]"},
        "unfinished": ["depth_use"],
        "environment": {"seed": 0, "torch": "2.13.0"},
    }


class Reading(Balance):
    """A page whose script is no text of it."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        super().handle_starttag(tag, attrs)
        self.scripts += tag == "script"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "script":
            super().handle_data(data)


def read(html: str) -> Reading:
    parser = Reading()
    parser.feed(html)
    parser.close()
    assert (parser.wrong, parser.open) == ([], [])
    return parser


def terminal(found: dict[str, Any], width: int = 80) -> str:
    console = Console(file=StringIO(), width=width, color_system=None)
    for table in analysis_tables(found):
        console.print(table)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


SAID = [
    "Effective depth 7 of 8 spans [6, 7]: accuracy 97.0% → 95.9%, 0.90x the latency, floor -1pt: pass",
    "2.00 ms now, 1.80 ms without 1 of the spans (0.90x), by the measured times of each",
    "97.0% [96.0, 98.0]", "95.9% [94.9, 96.9]",
    "-1.1 pt [-1.5, -0.7]", "inconclusive", "+0.7", "[0.68, 0.72]", "0.7 [0.68, 0.72]", "-14.0 pt [-14.4, -13.6]",
    "0.35 [0.345, 0.355]", "4,679", "2.36 M", "64,16", "0.88", "reason number 3", "44.0% of the time", "head.map",
    "it changes the shape, [32, 16] to [32, 10]", "0.0861", "depth_use", "42.0 s", "my_model.py:trained", "digits",
    "2.13.0", "1,000", "layers.7", "from 0.22", "none shown", "Spearman 0.88 over 5 sets of 2 to 4 spans",
    "layers.1 and layers.2", "4 spans, last layers.1", "0.21 [0.18, 0.24]",
]  # fmt: skip


def test_the_page_says_everything() -> None:
    seen = read(analysis_page(report()))
    text = re.sub(r"\s+", " ", seen.text)
    assert [words for words in SAID if words not in text] == []
    assert [word for word in (*WORDS, *WORDS.values()) if word not in text] == []
    assert seen.tags >= {"svg", "polygon", "polyline", "rect", "table", "button"}


def test_the_page_asks_nothing_of_the_network() -> None:
    html = analysis_page(report())
    seen = read(html)
    assert seen.addresses == []
    assert seen.scripts == 1
    assert "default-src 'none'" in html
    assert not re.search(r"https?:|url\(|@import|<link|<iframe|fetch\(|XMLHttp|import\(", html)
    assert len(html.encode()) < 100_000


def test_verdicts_are_told_apart_without_colours() -> None:
    html = analysis_page(report())
    patterns = dict(re.findall(r"\.v-(\w+) \{ (background: [^}]*)\}", html))
    assert patterns.keys() == WORDS.keys()
    forms = [re.sub(r"#[0-9a-f]+", "", pattern) for pattern in patterns.values()]
    assert len(set(forms)) == len(forms)
    column = html[html.index('<ol class="column">') : html.index("</ol>")]
    assert re.findall(r"<b>(\w+)</b>", column) == list(PLAN)


def luminance(colour: str) -> float:
    """The relative luminance of WCAG."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_shades_are_steps_of_lightness_on_which_dark_text_is_read() -> None:
    steps = [luminance(shade(i / LEVELS)) for i in range(LEVELS + 1)]
    assert steps[0] == pytest.approx(1.0)
    assert all(a - b > 0.06 for a, b in pairwise(steps))
    ink = luminance("#15232b")
    assert all((step + 0.05) / (ink + 0.05) >= 4.5 for step in steps)


def test_levels_of_a_map() -> None:
    assert level(evidence(1.0, 0.1, ""), 1.0) == LEVELS
    assert level(evidence(0.3, 0.01, ""), 1.0) == LEVELS - 1
    assert level(evidence(0.05, 0.01, ""), 1.0) == LEVELS - 2
    assert level(evidence(1e-9, 1e-10, ""), 1.0) == 1
    assert level(evidence(0.3, 0.4, ""), 1.0) == 0
    assert level(evidence(-0.3, 0.1, ""), 1.0) == 0
    found = heat(report())
    assert found.columns == ("skip", "swap")
    assert found.rows[7][1][1] is None  # the last has no neighbour
    cells = [cells[0] for _, cells in found.rows]
    assert [cell.level for cell in cells if cell] == [0, 4, 4, 5, 5, 5, 5, 5]
    for step, text in found.key[2:]:  # what the key says is where the shade begins
        begin = float(text.removeprefix("from "))
        assert level(evidence(begin * 1.01, 0.0, ""), 0.7) == step
        assert level(evidence(begin * 0.99, 0.0, ""), 0.7) == step - 1


def test_a_square_has_a_cell_for_every_two_spans() -> None:
    found = square("similarity", report()["maps"]["similarity"])
    assert found is not None
    assert len(found.cells) == 64
    assert {(cell.row, cell.column) for cell in found.cells if cell.text == "1.00"} == {(i, i) for i in range(8)}
    assert (found.low, found.high, found.printed) == ("0.1", "1", True)
    assert square("one", {"labels": ["a"], "values": [[1.0]]}) is None
    same = square("same", {"labels": ["a", "b"], "values": [[0.0, 0.0], [0.0, 0.0]]})
    assert same is not None
    assert {cell.colour for cell in same.cells} == {"#ffffff"}


def test_dots_stand_at_their_ranks() -> None:
    found = dots(report())
    assert [one.pair for one in found] == [True, True, False, False, False]
    assert [one.x for one in found] == [0.0, 37.5, 37.5, 75.0, 100.0]  # two predictions of 0.2 share their places
    assert [one.y for one in found] == [100.0, 75.0, 50.0, 25.0, 0.0]
    assert dots({**report(), "curve": report()["curve"][:2], "held": {}}) == ()


def test_a_band_holds_its_curve() -> None:
    points = [Point(i, evidence(0.9 - 0.1 * i, 0.05), "pass", "") for i in range(5)]
    found = band(points, 0.45)
    assert found is not None
    assert [mark.x for mark in found.marks] == [0, 25, 50, 75, 100]
    assert all(0 <= mark.high < mark.y < mark.low <= 100 for mark in found.marks)
    assert found.line is not None
    assert found.marks[4].y < found.line < 100
    assert len(found.outline.split()) == 10
    assert band(points[:1], None) is None
    over = band([Point(i, {**evidence(0.99, 0.005), "high": 1.03}, "pass", "") for i in range(2)], None)
    assert over is not None
    assert over.up[-1].text == "100.0%"
    assert {mark.high for mark in over.marks} == {0.0}


def test_hostile_words_are_only_words() -> None:
    evil = {**hostile(report()), "kind": "analysis"}
    evil["effects"] = [{**one, "intervention": "skip"} for one in evil["effects"]]
    seen = read(analysis_page(evil))
    assert seen.scripts == 1
    assert "alert(1)" in seen.text
    assert "{{ 7 * 7 }}" in seen.text
    assert "[red]" in terminal(evil, 300)


def test_sections_that_are_not_there_are_left_out() -> None:
    for key in ("model", "data", "measures", "maps", "unfinished", "environment", "seconds", "floor", "held"):
        fewer = {name: value for name, value in report().items() if name != key}
        read(analysis_page(fewer))
        read(analysis_page({**report(), key: None}))
        terminal(fewer)
    text = read(analysis_page({**report(), "left": {}})).text
    assert "What was left alone" not in text


def test_nothing_can_be_left_out() -> None:
    found = copy.deepcopy(report())
    found["curve"] = found["curve"][:1]
    found["effective_depth"] = {**step(0, "pass"), "of": 8, "low": 8, "skipped": []}
    assert headline(found) == (
        "Effective depth 8 of 8 spans [8, 8]: accuracy 97.0% [96.0, 98.0]; no span can be left out at -1pt"
    )
    assert "<polygon" not in analysis_page(found)
    assert "no span can be left out" in " ".join(terminal(found).split())


def test_what_is_no_analysis_is_an_error() -> None:
    for make in (analysis_page, analysis_tables):
        with pytest.raises(BadSetting, match="report of kind 'training': is no analysis"):
            make({"kind": "training"})
        with pytest.raises(BadArtifact, match="has no curve; make the analysis again"):
            make({**report(), "curve": None})


def test_tables_stay_within_80_columns_and_say_the_words() -> None:
    shown = terminal(report())
    assert max(len(row) for row in shown.splitlines()) <= 80
    assert "…" not in shown
    rows = shown.splitlines()
    for i, word in enumerate(PLAN):
        assert re.search(rf"^layers\.{i} +{word} +{0.1 * i:.4g} \[", rows[2 + i]), rows[2 + i]
    text = " ".join(shown.split())
    assert "foreseen Predicted and realised growth of the loss: Spearman 0.88 over 5 sets of 2 to 4 spans" in text
    for words in ("7 of 8 spans [6, 7]", "0.90x", "95.9% [94.9, 96.9]", "difference -1.1 pt [-1.5, -0.7]", "depth_use"):
        assert words in text, words


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def browsed(page: Path, *options: str) -> str:
    """What a browser without network makes of a page."""
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=2000", *options]
    done = subprocess.run(
        [str(CHROMIUM), *words, f"--user-data-dir={page.parent / 'profile'}", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


PROBE = """<script>
const seen = [], spans = document.querySelector("#spans table"), wrong = [];
addEventListener("error", event => wrong.push(event.message));
const first = () => spans.tBodies[0].rows[0].cells[2].textContent + "/" + spans.tBodies[0].rows.length;
for (const at of [4, 4, 1, 0, 7]) { spans.tHead.rows[0].cells[at].firstElementChild.click(); seen.push(first()); }
const sorted = spans.querySelectorAll("[aria-sort]").length;
const swatches = [...document.querySelectorAll(".column .swatch")];
const colours = new Set(swatches.map(e => getComputedStyle(e).background)).size;
const out = { seen, sorted, wrong, colours, wide: document.documentElement.scrollWidth, window: innerWidth,
  marks: document.querySelectorAll("#depth .curve-box g").length, dots: document.querySelectorAll(".ranks g").length,
  square: document.querySelector(".ranks rect").getBoundingClientRect(),
  ground: getComputedStyle(document.body).backgroundColor, ink: getComputedStyle(document.body).color };
document.body.insertAdjacentHTML("beforeend", "<pre id=told></pre>");
document.querySelector("#told").textContent = JSON.stringify(out);
</script></body>"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
@pytest.mark.parametrize("width", [1280, 500])
def test_a_browser_draws_and_sorts_it(width: int, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text(analysis_page(report()).replace("</body>", PROBE), encoding="utf-8")
    dom = browsed(page, f"--window-size={width},900", "--dump-dom")
    found = re.search(r'<pre id="told">(.*?)</pre>', dom)
    assert found, dom[-2000:]
    told = json.loads(markup.unescape(found[1]))
    assert told["seen"] == [f"layers.{i}/8" for i in (0, 7, 0, 1, 7)]  # harm up and down, place, word, milliseconds
    assert (told["sorted"], told["wrong"], told["marks"]) == (1, [], 5)
    assert told["colours"] == len(set(PLAN))
    assert told["dots"] == 5
    assert told["square"]["width"] == pytest.approx(told["square"]["height"], abs=0.5)
    assert told["square"]["width"] > 150
    assert told["wide"] <= told["window"]
    assert told["ground"] == "rgb(243, 246, 247)"
    assert told["ink"] == "rgb(21, 35, 43)"


@cache
def found() -> analysis.Analysis:
    """A real one: the planted net of rows."""
    net = FAMILIES["mlp"]()
    return analysis.analyze(net.module, net.batches, interventions=("swap", "parallel"))


def test_an_analysis_as_json_and_as_a_page() -> None:
    told = found().to_json()
    best = found().effective_depth
    assert told["effective_depth"]["left"] == best.left
    assert told["effective_depth"]["low"] <= best.left < told["effective_depth"]["of"] == len(found().verdicts)
    assert [row["verdict"] for row in told["spans"]] == [said.word for said in found().verdicts]
    assert pd.DataFrame(told["spans"]).equals(found().spans)
    assert [tuple(step["without"]) for step in told["curve"][1:]] == [
        tuple(one.skipped[-1]) for one in found().curve[1:]
    ]
    assert told["floor"] == pytest.approx(found().quality.value - 0.01)
    text = re.sub(r"\s+", " ", read(found().to_html()).text)
    assert all(said.why in text for said in found().verdicts)
    assert "swap" in text


def test_a_floor_of_the_loss_is_drawn_at_so_much_more_of_it() -> None:
    torch.manual_seed(0)
    net = Deep(nn.Linear(4, 8), [Row(8, torch.tanh), Row(8, torch.tanh)], nn.Linear(8, 1))
    x = torch.randn(64, 4)
    told = analysis.analyze(net, [(x, torch.randn(64, 1))], keep="+5%", interventions=()).to_json()
    assert told["metric"]["unit"] == ""
    assert told["floor"] == pytest.approx(1.05 * told["quality"]["value"])
    assert told["quality"]["value"] < 0
    assert "Growth of the mean loss".lower() in analysis_page(told).lower()
