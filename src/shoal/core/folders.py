"""Folders: one that goes, goes at once; killed in the middle, no half of it is left under its name."""

from __future__ import annotations

import shutil
from pathlib import Path


def vanish(folder: Path) -> None:
    """Remove a folder with all that is in it, if it is there; the first step takes its name away."""
    gone = folder.with_name(f".{folder.name}-gone")
    for _ in range(2):  # what an earlier removal that was killed has left, then this one
        if gone.exists():
            shutil.rmtree(gone)
        if folder.is_dir():
            folder.rename(gone)
