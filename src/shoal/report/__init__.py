"""Report: the JSON of a run as tables for the terminal and as one self-contained HTML page.

format.py    numbers as people read them, the same everywhere
reading.py   what a report says: its headline, its figures before and after, its verdicts
charts.py    the geometry of the page's charts
tables.py    tables for the terminal
page.py      the page; its form is template.html.jinja, its style style.css

analysed.py, band.py, held.py, maps.py, analysis_page.py    the same for an analysis; its form is analysis.html.jinja
"""

from shoal.report.analysis_page import analysis_page
from shoal.report.page import page
from shoal.report.tables import analysis_tables, layer_table, summary_table, tables, training_table

__all__ = [
    "analysis_page",
    "analysis_tables",
    "layer_table",
    "page",
    "summary_table",
    "tables",
    "training_table",
]
