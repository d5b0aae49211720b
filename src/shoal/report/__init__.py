"""Report: the JSON of a run as tables for the terminal and as one self-contained HTML page.

format.py    numbers as people read them, the same everywhere
reading.py   what a report says: its headline, its figures before and after, its verdicts
charts.py    the geometry of the page's charts
tables.py    tables for the terminal
page.py      the page; its form is template.html.jinja
"""

from shoal.report.page import page
from shoal.report.tables import layer_table, summary_table, tables, training_table

__all__ = ["layer_table", "page", "summary_table", "tables", "training_table"]
