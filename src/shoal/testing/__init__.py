"""The battery: what every method of a kind must do, shipped, so that plug-ins are held to it as well.

    shoal.testing.check("block", "my_block")                    all checks of the kind; raises at the first that fails
    shoal.testing.run("block", "my_block", "keeps_shape")       one of them; the reason back where it is known to fail

A check is a public function of the kind's file here; it takes a Subject and raises where the method breaks a promise.
Settings come from the class's ``tiny``. A class that cannot pass a check says so: ``known = {"check": "reason"}``. That
is strict: a known failure that passes is an error until ``known`` no longer lists it.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType

import torch

from shoal.core.errors import UnknownName, suggest
from shoal.core.kind import Kind
from shoal.kinds import KINDS
from shoal.testing import (
    all_kinds,
    blocks,
    compressors,
    edits,
    interventions,
    linears,
    measures,
    nets,
    norms,
    stems_joins_heads,
    tasks,
    wirings,
)
from shoal.testing._samples import Check, CheckFailed, Subject

__all__ = ["BATTERY", "CheckFailed", "check", "checks", "run"]

BATTERY: Mapping[str, tuple[ModuleType, str]] = {  # kind -> its file, and what its checks' names begin with there
    "stem": (stems_joins_heads, "stem_"),
    "block": (blocks, ""),
    "linear": (linears, ""),
    "norm": (norms, ""),
    "wiring": (wirings, ""),
    "join": (stems_joins_heads, "join_"),
    "head": (stems_joins_heads, "head_"),
    "task": (tasks, ""),
    "net": (nets, ""),
    "edit": (edits, ""),
    "compressor": (compressors, ""),
    "measure": (measures, ""),
    "intervention": (interventions, ""),
}


def checks(kind: str) -> list[tuple[str, Check]]:
    """The checks of a kind ("block", "wiring", ...), by name: those of every kind, then its own."""
    if kind not in BATTERY:
        raise UnknownName(f"kind {kind!r} has no battery; {suggest(kind, BATTERY)}")
    return [*_found(all_kinds, ""), *_found(*BATTERY[kind])]


def run(kind: str, name: str, check: str) -> str | None:
    """Run one check from a fixed seed. None where it passes, the reason where it fails and is known to.

    Raises what the check raises; CheckFailed where a known failure passes, or is listed without a reason.
    """
    found = dict(checks(kind))
    if check not in found:
        raise UnknownName(f"check {check!r} of a {kind} is unknown; {suggest(check, found)}")
    subject = Subject(_kind(kind), name)
    known: Mapping[str, str] = subject.cls.known
    with _seeded(), _one_thread():
        if check not in known:
            found[check](subject)
            return None
        if not known[check].strip():
            raise CheckFailed(f"{kind} {name!r}: known failure {check!r} has no reason; write one")
        try:
            found[check](subject)
        except Exception as error:  # whichever way it fails, it was said that it would
            return f"{known[check]} ({type(error).__name__})"
    raise CheckFailed(f"{kind} {name!r}: {check!r} passes though known to fail; take it out of `known`")


def check(kind: str, name: str) -> dict[str, str]:
    """Run every check of a method; the known failures and their reasons. Raises at the first that fails otherwise."""
    reasons = {each: run(kind, name, each) for each, _ in checks(kind)}
    return {each: reason for each, reason in reasons.items() if reason is not None}


@contextmanager
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@contextmanager
def _one_thread() -> Iterator[None]:
    """The samples are so small that more threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _kind(name: str) -> Kind:
    return next(kind for kind in KINDS.values() if kind.name == name)


def _found(module: ModuleType, prefix: str) -> list[tuple[str, Check]]:
    own = [f for f in vars(module).values() if inspect.isfunction(f) and f.__module__ == module.__name__]
    public = [f for f in own if not f.__name__.startswith("_") and f.__name__.startswith(prefix)]
    return [(f.__name__.removeprefix(prefix), f) for f in public]
