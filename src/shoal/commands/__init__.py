"""The command line: ``shoal VERB ...``. One file a verb; this folder is the list of them.

    exit codes   0 done   1 a bug of ours   2 bad usage or input   3 floor not met   4 out of reach   130 interrupted

A verb's file has a docstring, which is its help, and a function ``run``, whose signature is its options. It is imported
only when it is run. All that can be mended is told in one line on stderr; ``SHOAL_DEBUG=1`` shows the traceback too.
"""

from __future__ import annotations

import ast
import importlib
import io
import logging
import os
import sys
import traceback
from pathlib import Path

from shoal import __version__
from shoal.core.errors import BadSetting, ShoalError

BUG, USAGE, INTERRUPTED, PIPE = 1, 2, 130, 141
FOLDER = Path(__file__).parent


def main() -> None:
    """Run the command line of this process, and leave with its exit code."""
    logging.captureWarnings(True)  # what libraries warn of is for those who debug
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal of few letters gets a ? and not a traceback
    code = _guarded(sys.argv[1:])
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = _unread()
    sys.exit(code)


def _guarded(words: list[str]) -> int:
    """Run, and tell every failure in one line."""
    try:
        return _run(words)
    except ShoalError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        return _unread()
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        return _fail(f"bug: {why}; please report it with the traceback (SHOAL_DEBUG=1 shows it)", BUG)


def _fail(message: str, code: int) -> int:
    if os.environ.get("SHOAL_DEBUG"):
        traceback.print_exc()
    print("shoal:", " ".join(message.split()), file=sys.stderr)
    return code


def _unread() -> int:
    """Whoever read our output has gone, as in ``shoal list | head``: nothing more is written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return PIPE


def _run(words: list[str]) -> int:
    verb, *rest = words or ["--help"]
    if verb in ("--help", "-h", "help") and not rest:
        print(_overview())
        return 0
    if verb in ("--version", "-V"):
        print(f"shoal {__version__}")
        return 0
    if verb == "help":
        verb, rest = rest[0], ["--help"]
    if verb not in verbs():
        raise BadSetting(_unknown(verb))
    from shoal.commands._call import call  # brings typer

    return call(verb, importlib.import_module(f"shoal.commands.{verb}"), rest)


def verbs() -> dict[str, str]:
    """Every verb and what it does: the files of this folder and their first docstring lines, read without importing."""
    found = {}
    for path in sorted(FOLDER.glob("[a-z]*.py")):
        doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        found[path.stem] = doc.partition("\n")[0].partition(": ")[2]
    return found


def _overview() -> str:
    lines = [f"  {verb:10} {does}" for verb, does in verbs().items()]
    return "\n".join(
        [
            "Usage: shoal VERB ...",
            "",
            "Shoal finds the depth a neural network needs. Begin with: shoal demo",
            "",
            *lines,
            "",
            "  shoal VERB --help    what a verb takes",
            "  shoal --version      which shoal this is",
        ]
    )


def _unknown(word: str) -> str:
    from difflib import get_close_matches

    known = verbs()
    near = get_close_matches(word, known, n=1)
    what = "no such option" if word.startswith("-") else "no such verb:"
    return f"{what} {word}; {f'did you mean {near[0]}? ' if near else ''}verbs: {', '.join(known)} (shoal --help)"
