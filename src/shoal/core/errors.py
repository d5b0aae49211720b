"""Errors: everything that a user can mend is a ShoalError, told in one line.

    ShoalError               exit 2: names the thing, what is wrong, and the fix
      UnknownName            a kind has no method of that name
      BadSetting             a setting that is unknown, missing or out of range
      BadSpec                a spec that cannot be read or built
      BadData                data that cannot be found, read or learned from
      BadModel               a module that does not run on its example, or cannot be edited so
      BadArtifact            a saved folder that is truncated, tampered with or of another version
      MissingExtra           an optional package that the method asked for needs
      Refused                an edit that cannot be expressed here
      Diverged               training that left the finite numbers
      FloorNotMet            exit 3: the goal was met, the quality was not shown to be kept
      OutOfReach             exit 4: budget too small or goal out of reach; the best so far is kept
      Interrupted            exit 130: somebody pressed Ctrl-C; what is finished is kept

Anything else that is raised is a bug of ours (exit 1).
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "BadArtifact",
    "BadData",
    "BadModel",
    "BadSetting",
    "BadSpec",
    "Diverged",
    "FloorNotMet",
    "Interrupted",
    "MissingExtra",
    "OutOfReach",
    "Refused",
    "ShoalError",
    "UnknownName",
    "suggest",
]


class ShoalError(Exception):
    """Something the user can mend: one line that names the thing, what is wrong, and the fix."""

    exit_code = 2


class UnknownName(ShoalError):
    """No method of that name in its kind."""


class BadSetting(ShoalError):
    """A setting that is unknown, missing, of the wrong type or out of range."""


class BadSpec(ShoalError):
    """A spec that cannot be read or built."""


class BadData(ShoalError):
    """Data that cannot be found, read or learned from."""


class BadModel(ShoalError):
    """A module that does not run on its example, or cannot be edited as asked."""


class BadArtifact(ShoalError):
    """A saved folder that is truncated, tampered with or of another version."""


class MissingExtra(ShoalError):
    """An optional package is needed by what was asked for, and is not installed."""


class Refused(ShoalError):
    """An edit that cannot be expressed at this place; nothing was changed."""


class Diverged(ShoalError):
    """Training left the finite numbers."""


class FloorNotMet(ShoalError):
    """The quality floor was not shown to hold; the best so far was saved."""

    exit_code = 3


class OutOfReach(ShoalError):
    """The budget is too small or the goal out of reach; the best so far was saved."""

    exit_code = 4


class Interrupted(ShoalError):
    """Somebody pressed Ctrl-C; what is finished is kept, and it is said where."""

    exit_code = 130


def suggest(wrong: str, known: Iterable[str]) -> str:
    """A tail for an error: the nearest known name, and the list of them all."""
    names = sorted(known)
    near = get_close_matches(wrong, names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}known: {', '.join(names) if names else 'none'}"
