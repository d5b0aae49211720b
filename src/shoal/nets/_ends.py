"""Ends: what named nets share of stems and heads, and the check of their sizes."""

from __future__ import annotations

from shoal.core.errors import BadSetting
from shoal.core.part import Part, Value


def patches(net: str, channels: int, size: tuple[int, ...], patch: int) -> dict[str, Value]:
    """The settings of the stem ``patches``; BadSetting where the squares do not divide such an image."""
    at_least_one(net, channels=channels)
    if len(size) != 2 or patch < 1 or any(side < 1 or side % patch for side in size):
        raise BadSetting(f"net {net}: squares of {patch} do not divide {list(size)}; set patch to a common divisor")
    return {"channels": channels, "size": size, "patch": patch}


def squares(size: tuple[int, ...], patch: int) -> int:
    """How many squares of that side an image has."""
    return (size[0] // patch) * (size[1] // patch)


def at_least_one(net: str, **settings: int) -> None:
    """BadSetting where one of them is below 1."""
    for name, value in settings.items():
        if value < 1:
            raise BadSetting(f"net {net}: {name}={value}; give at least 1")


def answer(outputs: int, norm: str, every: bool) -> Part:
    """The head behind a row of places: an answer at every place, or one from their mean; both norm each place."""
    if every:
        return Part("every", {"outputs": outputs, "norm": norm})
    return Part("norm_pool", {"outputs": outputs, "norm": norm, "act": "identity"})
