"""Folders: where a verb saves, known to be free before any work is done; what is left to go on from."""

from __future__ import annotations

import re
from glob import escape
from itertools import count
from pathlib import Path

from shoal.core.errors import BadSetting
from shoal.core.folders import vanish

RUNS = Path("runs")


def place(out: Path | None, name: str, *, overwrite: bool = False, resume: bool = False) -> Path:
    """The folder to save in: the one asked for, else the first of runs/NAME, runs/NAME-2 ... that is free.

    With `resume`, the one that was begun and not finished; what is unfinished is replaced only with `overwrite`.
    Raises BadSetting where it is taken, or could not be made.
    """
    if out is None:
        stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.") or "run"
        names = (RUNS / (stem if number == 1 else f"{stem}-{number}") for number in count(1))
        out = next(path for path in names if (resume if unfinished(path).is_dir() else not path.exists()))
    begun = unfinished(out).is_dir()
    if begun and not (resume or overwrite):
        raise BadSetting(
            f"--out {out}: was begun and not finished ({unfinished(out)}); go on with --resume, or begin anew with "
            "--overwrite"
        )
    if out.is_dir() and any(out.iterdir()):
        if not overwrite and not (resume and begun):
            why = "is finished, there is nothing to go on with" if resume else "exists already"
            raise BadSetting(f"--out {out}: {why}; choose another folder, or replace it with --overwrite")
        if not (out / "shoal.json").is_file():
            raise BadSetting(f"--out {out}: was not written by shoal, so it is not replaced; choose another folder")
    for path in [out, *out.parents]:
        if path.exists() and not path.is_dir():
            raise BadSetting(f"--out {out}: {path} is a file; choose another folder")
    return out


def unfinished(out: Path) -> Path:
    """Where a verb keeps what it needs to go on, beside the folder it will become."""
    return out.with_name(out.name + ".part")


def forget(out: Path) -> None:
    """All is over: nothing is left to go on from, nor what a writing that was killed has left beside."""
    vanish(unfinished(out))
    for word in ("partial", "old"):
        for left in out.parent.glob(f".{escape(out.name)}-{word}-*"):
            vanish(left)
