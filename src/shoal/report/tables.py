"""Tables: a report for the terminal, in 80 columns. Text from data is never read as markup."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from shoal.report import held
from shoal.report.analysed import changed, checked, depth_of, gain, place, score_name
from shoal.report.analysed import headline as analysis_headline
from shoal.report.format import amount, bare_ms, count, evidence, metric, seconds
from shoal.report.reading import Report, figures, headline, kind_of, present, quality_of, tone

STYLES = {"good": "green", "bad": "red", "open": "yellow"}


def tables(report: Report) -> list[Table]:
    """All tables of a report, in the order they are read. Raises BadSetting for an unknown kind."""
    kind, report = kind_of(report), present(report)
    if kind == "training":
        return [training_table(report)]
    return [*([layer_table(report)] if report.get("layers") else []), summary_table(report)]


def layer_table(report: Report) -> Table:
    """Each layer of the original, what became of it, and its cost before => after."""
    table = _table("layers", "layer", "=>")
    for name in ("params", "MACs", "ms"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in report["layers"]:
        cells = [_change(row, key, form) for key, form in (("params", count), ("macs", count), ("ms", bare_ms))]
        gone = row["fate"] == "dropped"
        table.add_row(*(Text(each, "dim" if gone else "") for each in (row["path"], row["fate"], *cells)))
    return table


def _change(row: Mapping[str, Any], key: str, form: Callable[[float], str]) -> str:
    """``1.2 k => 590``; only one number where nothing changed."""
    before, after = row.get(key), (row.get("after") or {}).get(key)
    if before is None:
        return ""
    if after is None:
        return f"{form(before)} => 0" if row["fate"] == "dropped" else form(before)
    return form(before) if form(before) == form(after) else f"{form(before)} => {form(after)}"


def summary_table(report: Report) -> Table:
    """The original and the compressed network side by side, then floor, goals and controls."""
    table = _table(headline(report), "", "before", "after", "")
    for figure in figures(report):
        table.add_row(figure.name, figure.before, figure.after, figure.change)
    before, after = report["before"]["quality"], report["after"]["quality"]
    table.add_row(Text(report["metric"]["name"]), evidence(before), evidence(after))
    table.add_section()
    floor = report["floor"]
    table.add_row("floor", Text(str(report["keep"])), evidence(floor["difference"]), _word(floor["word"]))
    for goal in report.get("goals", []):
        word = Text("met", "green") if goal["met"] else Text("not met", "red")
        table.add_row("goal", Text(goal["text"]), metric(goal["metric"], goal["measured"]), word)
    for name, row in report.get("runtimes", {}).items():
        times = [f"{bare_ms(row[key])} ms" for key in ("before_ms", "after_ms")]
        table.add_row(Text(f"in {name}"), *times, evidence(row["ratio"]))
    table.add_section()
    for control in report.get("controls", []):
        found = evidence(control["quality"])
        table.add_row("control", Text(control["name"]), found, _word(control["word"]))
    return table


def training_table(report: Report) -> Table:
    """What was trained, its quality on both parts, and how it stands to the baselines."""
    kind_of(report)
    table = _table(headline(report), "", report["metric"]["name"], "difference", "")
    table.add_row("test", evidence(quality_of(report["test"])))
    if report.get("valid"):
        table.add_row("valid (chosen on)", evidence(quality_of(report["valid"])))
    table.add_section()
    for row in report.get("baselines", []):
        difference = row.get("difference")
        cells = [evidence(quality_of(row)), evidence(difference) if difference else ""]
        table.add_row(Text(row["name"]), *cells, _word(row["word"]) if row.get("word") else "")
    table.add_section()
    table.add_row("net", Text(str(report["spec"]), overflow="fold"))
    for key in ("params", "macs", "depth"):
        if report.get(key) is not None:
            table.add_row({"macs": "MACs"}.get(key, key), count(report[key]))
    rows = report.get("history", [])
    if rows:
        last = rows[-1]
        loss = f", loss {last['loss']:.4g}" if last.get("loss") is not None else ""
        quality = last.get("quality")
        reached = f", {amount(quality, report['metric']['unit'])}" if quality is not None else ""
        took = f" in {seconds(last['seconds'])}" if last.get("seconds") is not None else ""
        table.add_row("epochs", f"{last['epoch']}{took}{loss}{reached}")
    return table


def analysis_tables(report: Report) -> list[Table]:
    """The spans with their verdicts, then the depth that is needed and what leaving out the rest gains."""
    checked(report)
    found, spans = changed(report), _table("spans", "span", "verdict")
    for name in ("loss, skipped", "ms"):
        spans.add_column(name, justify="right", no_wrap=True)
    for row in report["spans"]:
        name = place(row["path"], row["visit"])
        style = "" if row["verdict"] == "needed" else "bold"
        spans.add_row(
            Text(name), Text(row["verdict"], style), evidence(found["skip", name]["loss"]), bare_ms(row["ms"])
        )
    depth = _table(analysis_headline(report), "", "")
    best = report["effective_depth"]
    depth.add_row("effective depth", depth_of(report))
    depth.add_row(
        Text(score_name(report)), f"{evidence(report['quality'])} whole, {evidence(best['quality'])} at that depth"
    )
    depth.add_row("floor", f"{report['keep']}: difference {evidence(best['difference'])}, n = {best['quality']['n']:,}")
    depth.add_row("latency", gain(report))
    if held.said(report):
        depth.add_row("foreseen", Text(held.said(report)))
    depth.add_row("left alone", f"{len(report['left'])} modules; the page says why")
    if report.get("unfinished"):
        depth.add_row("not in time", Text(", ".join(report["unfinished"])))
    return [spans, depth]


def _table(title: str, *columns: str) -> Table:
    table = Table(title=Text(title, "bold"), title_justify="left", box=None, pad_edge=False, show_edge=False)
    for name in columns:
        table.add_column(Text(name), overflow="fold")
    return table


def _word(word: str) -> Text:
    return Text(word, STYLES[tone(word)])
