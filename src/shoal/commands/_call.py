"""Call: a verb's function with the words of the command line, by typer; what is wrong with them in one line."""

from __future__ import annotations

from difflib import get_close_matches
from itertools import pairwise
from types import ModuleType
from typing import Any

import typer

from shoal.core.errors import BadSetting

USAGE_ERROR: Any = typer.BadParameter.__mro__[1]  # click's own, which typer holds inside or beside, by version


def call(verb: str, module: ModuleType, words: list[str]) -> int:
    """Run it; its exit code. Raises BadSetting for words that it does not take."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(name=verb, help=_help(module.__doc__ or ""), context_settings={"help_option_names": ["--help", "-h"]})(
        module.run
    )
    command: Any = typer.main.get_command(app)
    try:
        with command.make_context(f"shoal {verb}", list(words)) as context:
            code = command.invoke(context)
    except typer.Exit as end:
        return end.exit_code
    except USAGE_ERROR as error:
        raise BadSetting(f"{_said(error, command, words)} (shoal {verb} --help)") from error
    return code if isinstance(code, int) else 0


def _help(doc: str) -> str:
    """The docstring as it is written: each paragraph is kept from being filled."""
    return "\n\n".join(f"\b\n{paragraph}" for paragraph in doc.strip().split("\n\n"))


def _said(error: Any, command: Any, words: list[str]) -> str:
    """What click says, in the house's words."""
    option = getattr(error, "option_name", None)
    known = [name for parameter in command.params for name in parameter.opts if name.startswith("-")]
    if option is not None and option not in known:
        near = get_close_matches(option, known, n=1)
        return f"no such option {option}; " + (f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}")
    options = getattr(getattr(error, "param", None), "opts", ())
    given = next((f" {value!r}" for word, value in pairwise(words) if word in options), "")
    text = " ".join(error.format_message().split()).rstrip(".") + given
    return text[:1].lower() + text[1:]
