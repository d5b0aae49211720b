"""What every test may ask for: the real data sets, and the command line as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Protocol

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent


class CommandLine(Protocol):
    """Runs `shoal ...` in a process of its own: (exit code, stdout, stderr)."""

    def __call__(self, *arguments: str, cwd: Path | None = None, **environment: str) -> tuple[int, str, str]: ...


def pytest_configure() -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the cores: one thread each
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets: $SHOAL_DATA, else shared/data beside the project."""
    named = os.environ.get("SHOAL_DATA")
    folder = Path(named) if named else ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs $SHOAL_DATA: the real data sets are not part of the project")
    return folder


@pytest.fixture
def cli(tmp_path: Path) -> CommandLine:
    """The command line, run in `tmp_path` unless told where."""

    def run(*arguments: str, cwd: Path | None = None, **environment: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [sys.executable, "-m", "shoal", *arguments],
            cwd=cwd or tmp_path,
            env={**os.environ, "NO_COLOR": "1", "COLUMNS": "120", **environment},
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=600,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    return run
