"""Page: a report as one HTML file that asks nothing of the network: its style and charts are in it.

Every value is escaped; the template decides the form and nothing else.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from shoal.report import format
from shoal.report.charts import Front, Line, Whiskers, front, line, whiskers
from shoal.report.reading import GLOSSARY, Report, figures, gain, headline, history, kind_of, present, quality_of, tone


def page(report: Report) -> str:
    """The HTML. Raises BadSetting for a report of an unknown kind."""
    kind, report = kind_of(report), present(report)
    compression = kind == "compression"
    rows = report.get("healing" if compression else "history") or []
    facts: dict[str, Any] = {
        "report": report,
        "kind": kind,
        "headline": headline(report),
        "figures": figures(report) if compression else [],
        "quality": _quality(report, compression),
        "quality_n": quality_of(report["after" if compression else "test"])["n"],
        "curves": _curves(report, rows),
        "front": _front(report) if compression else None,
        "glossary": _glossary(report),
        "against": {"better": "better than", "worse": "worse than", "equivalent": "equivalent to"},
        "steps": [{**edit, "gain": gain(edit)} for edit in report.get("edits") or []],
    }
    return environment().get_template("template.html.jinja").render(facts)


@cache
def environment() -> Environment:
    """What the pages are written with: their filters, and where their forms are."""
    loader = PackageLoader("shoal.report", ".")
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters |= {
        "count": format.count,
        "ms": format.bare_ms,
        "evidence": format.evidence,
        "seconds": format.seconds,
        "tone": tone,
    }
    made.globals |= {
        "amount": format.amount,
        "metric": format.metric,
        "fmt_count": format.count,
        "fmt_ms": format.bare_ms,
    }
    return made


def _quality(report: Report, compression: bool) -> Whiskers:
    """Quality with its interval: what was made, what it was made from, and the rivals."""
    if compression:
        rows = [("original", "before", report["before"]["quality"], "")]
        if report.get("folded"):
            rows.append(("original, folded", "before", report["folded"]["quality"], ""))
        rows.append(("compressed", "after", report["after"]["quality"], ""))
        rivals = report.get("controls") or []
    else:
        rows = [("test", "after", quality_of(report["test"]), "")]
        if report.get("valid"):
            rows.append(("valid (chosen on)", "before", quality_of(report["valid"]), ""))
        rivals = report.get("baselines") or []
    return whiskers([*rows, *((each["name"], "control", quality_of(each), "") for each in rivals)])


def _front(report: Report) -> Front | None:
    """Every network that was healed, by the first goal's metric and the quality on the validation part."""
    seen, goals = report.get("front") or [], report.get("goals") or []
    if not goals:
        return None
    name = goals[0]["metric"]
    roles = {"original": "before", "final": "after"}
    rows = [
        (one["name"], roles.get(one["stage"], "control"), one["values"][name], one["quality"]["value"])
        for one in seen
        if one.get("quality") and name in one["values"]
    ]
    title = f"{report['metric']['name']} on the validation part against {name}"
    return front(title, rows, lambda value: format.metric(name, value), report["metric"]["unit"])


def _curves(report: Report, rows: list[Report]) -> list[Line]:
    unit = report["metric"]["unit"]
    made = [
        line(f"{report['metric']['name']} on the validation part", history(rows, "quality"), unit),
        line("training loss", history(rows, "loss"), ""),
    ]
    return [each for each in made if each is not None]


def _glossary(report: Report) -> dict[str, str]:
    """The verdicts in this report first, then the other words."""
    words = [report["floor"]["word"]] if report.get("floor") else []
    words += [each.get("word") for each in [*(report.get("controls") or []), *(report.get("baselines") or [])]]
    return dict(sorted(GLOSSARY.items(), key=lambda item: item[0] not in words))
