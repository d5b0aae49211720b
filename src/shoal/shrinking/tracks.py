"""Tracks: which spans of the original went into each span of the module as it is now."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from shoal.core.base import Proposal
from shoal.net import Net


@dataclass(frozen=True)
class Track:
    """A span of the module as it is now, and the spans of the original that went into it."""

    path: str
    origins: tuple[str, ...]


def tracked(tracks: list[Track], proposal: Proposal, module: nn.Module) -> list[Track]:
    """The tracks after a proposal was done; ``module`` is the module after it (a Net numbers its layers anew).

    A span that is left where it was, with another inside, keeps its track: only what the edits took is gone.
    """
    gone = [track for track in tracks if track.path in proposal.paths and not proposal.stay]
    kept: list[Track] = []
    for track in tracks:
        if track.path == proposal.into:
            kept.append(Track(track.path, tuple(origin for one in gone for origin in one.origins)))
        elif track not in gone:
            kept.append(track)
    if not isinstance(module, Net):
        there = {path for path, _ in module.named_modules(remove_duplicate=False)}
        return [track for track in kept if track.path in there]  # what stood around a span may have gone with it
    renumbered: list[Track] = []
    seen: dict[str, int] = {}
    for track in kept:
        stage = track.path.rpartition(".")[0]
        renumbered.append(Track(f"{stage}.{seen.get(stage, 0)}", track.origins))
        seen[stage] = seen.get(stage, 0) + 1
    return renumbered


def order_of(path: str) -> tuple[tuple[int, str], ...]:
    """Sorts paths as a person counts: layers.2 before layers.10."""
    return tuple((int(word), "") if word.isdigit() else (-1, word) for word in path.split("."))


def meet(path: str, other: str) -> bool:
    """Whether two paths are the same place, or one lies in the other."""
    return path == other or path.startswith(other + ".") or other.startswith(path + ".") or not path or not other
