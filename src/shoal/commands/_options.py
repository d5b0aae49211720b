"""Options that verbs share, and how durations are read."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from shoal.core.errors import BadSetting

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout and nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]
Seed = Annotated[int, typer.Option(min=0, help="Of all that is drawn, but for the split of the data.")]
Out = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="Where to save; a new folder under runs/ if not said.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the folder if it is there.")]
Within = Annotated[str | None, typer.Option(metavar="TIME", help="Wall clock for all of it: 90s, 2min, 1h.")]
Target = Annotated[str | None, typer.Option(metavar="COLUMN", help="The column to learn, for tables.")]
RecipeFile = Annotated[Path | None, typer.Option("--recipe", metavar="FILE.json", help="How to train, as JSON.")]

UNITS = {"s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def seconds(text: str | None, option: str = "--within") -> float | None:
    """The seconds in ``90s``, ``2min`` or ``1h``. Raises BadSetting for anything else."""
    if text is None:
        return None
    found = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*(s|sec|m|min|h)\s*", text)
    if not found or not float(found[1]):
        raise BadSetting(f"{option} {text!r}: is no duration; write a number above 0 and a unit: 90s, 2min or 1h")
    return float(found[1]) * UNITS[found[2]]


def read_json(path: Path, option: str) -> Any:
    """What a JSON file holds. Raises BadSetting where there is none, or it is no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadSetting(f"{option} {path}: cannot be read ({error.strerror}); give a JSON file") from error
    except ValueError as error:
        raise BadSetting(f"{option} {path}: is no JSON ({error}); correct it") from error
