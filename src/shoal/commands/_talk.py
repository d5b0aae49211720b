"""Talk: what a verb says. Results on stdout, progress on stderr; as JSON one object at the end, nothing before it."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

WIDTH = 120  # of tables, where stdout is no terminal
Tick = Callable[[float | None, str], None]  # (share that is done, or None where nobody knows; a few words)


class Talk:
    """`say` a line, `table` some rows, `done` with a result; `progress` while something takes long."""

    def __init__(self, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json, self.quiet = as_json, quiet

    def say(self, text: str = "") -> None:
        """A line for people, at once."""
        if not self.as_json:
            print(text, flush=True)

    def show(self, thing: Any) -> None:
        """Something that rich knows how to show, such as a table."""
        if not self.as_json:
            from rich.console import Console  # slow to import, and only needed here

            Console(file=sys.stdout, width=None if sys.stdout.isatty() else WIDTH, highlight=False).print(thing)

    def note(self, text: str) -> None:
        """A line beside the results, on stderr where that is a terminal."""
        if not self.quiet and sys.stderr.isatty():
            print(text, file=sys.stderr, flush=True)

    def table(self, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Rows in columns, numbers to the right."""
        self.say(columns(header, rows))

    def done(self, result: Mapping[str, Any]) -> None:
        """The result for machines; numbers that are not finite become null."""
        if self.as_json:
            print(json.dumps(plain(result), allow_nan=False), flush=True)

    @contextmanager
    def progress(self, what: str) -> Iterator[Tick]:
        """Inside, a bar on stderr where that is a terminal."""
        if self.quiet or not sys.stderr.isatty():
            yield _silent
            return
        from rich.console import Console  # slow to import, and only needed here
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        words = TextColumn("{task.description}", markup=False)
        note = TextColumn("{task.fields[note]}", markup=False)
        with Progress(
            words, BarColumn(), TimeElapsedColumn(), note, console=Console(stderr=True), transient=True
        ) as bar:
            task = bar.add_task(what, total=None, note="")
            yield lambda share, text: bar.update(task, total=share and 1.0, completed=share or 0.0, note=text)


def _silent(share: float | None, text: str) -> None:
    """No progress is shown."""


@contextmanager
def stdout_kept() -> Iterator[None]:
    """Inside, what others print (a user's own code, an exporter) goes to stderr: stdout is for results."""
    kept, sys.stdout = sys.stdout, sys.stderr
    try:
        yield
    finally:
        sys.stdout = kept


def columns(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table as text: words to the left, numbers to the right, two spaces between."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(row[i]) for row in [list(header), *cells]) for i in range(len(header))]
    right = [bool(rows) and all(isinstance(row[i], int | float | None) for row in rows) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        padded = (t.rjust(w) if r else t.ljust(w) for t, w, r in zip(row, widths, right, strict=True))
        return "  ".join(padded).rstrip()

    return "\n".join(line(row) for row in [list(header), *cells])


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def plain(value: Any) -> Any:
    """JSON values only: mappings, lists, words and finite numbers."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)
