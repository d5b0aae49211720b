"""Named: a spec from its text or from the name of a net.

read_spec("residual(mlp) 3x64")              a spec's text
read_spec("resnet56")                        a published name
read_spec("resnet[depth=14,outputs=100]")     a net at settings of one's own
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from shoal.core.errors import ShoalError, UnknownName, suggest
from shoal.core.part import Part, Value
from shoal.core.spec import Spec
from shoal.kinds import NETS

if TYPE_CHECKING:
    from shoal.core.base import Architecture


def read_spec(text: str, data: Mapping[str, Value] | None = None) -> Spec:
    """The spec of that text or name. ``data``: settings that a net, a stem or a head takes from it where the text does
    not say them.

    Raises BadSpec, BadSetting or UnknownName naming the place and what is known.
    """
    if "(" in text or not text.strip():
        return Spec.parse(text, data)
    part = named_part(Part.parse(text))
    known = NETS.settings(part.name)
    filled = {name: value for name, value in (data or {}).items() if name in known and name not in part.settings}
    made: Architecture = NETS.make(part.with_settings(**filled))
    return made.spec()


def is_spec(text: str) -> bool:
    """Whether that is meant as a spec or names a net, and not a file."""
    try:
        return "(" in text or bool(named_part(Part.parse(text)))
    except ShoalError:
        return False


def named_part(part: Part) -> Part:
    """The net that a part names, with the settings of the variant where its name is one (``resnet56``)."""
    if part.name in NETS.names():
        return part
    for name in sorted(NETS.names(), key=len, reverse=True):
        variants: Mapping[str, Mapping[str, Value]] = NETS.get(name).variants if part.name.startswith(name) else {}
        if part.name in variants:
            return Part(name, {**variants[part.name], **part.settings})
    raise UnknownName(
        f"net {part.name!r} is unknown; {suggest(part.name, NETS.names())}; a spec is written residual(mlp) 4x32"
    )
