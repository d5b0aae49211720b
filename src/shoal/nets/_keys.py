"""Keys: the names of a published checkpoint into those of a net, by a table of patterns."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from shoal.core.errors import Refused

LEFT_OUT = ""


def renamed(net: str, state: Mapping[str, Tensor], table: Mapping[str, str]) -> dict[str, Tensor]:
    r"""The weights under the names that the table gives them.

    A row is a pattern of a whole name and what stands instead, with ``\1`` for what its first bracket holds; LEFT_OUT
    leaves such a weight out. Raises Refused for a name that no row knows, and for two weights of one name.
    """
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        row = next(((pattern, instead) for pattern, instead in table.items() if re.fullmatch(pattern, name)), None)
        if row is None:
            raise Refused(f"net {net}: the weight {name!r} has no place in it; take it out if it is not wanted")
        own = re.sub(*row, name)
        if own in found:
            raise Refused(f"net {net}: {name!r} is the second weight that would become {own!r}; take one of them out")
        if own != LEFT_OUT:
            found[own] = value
    return found
