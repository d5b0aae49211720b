"""Recipe: a base and a list of edits. This is how a compressed network is described and built again: never a pickle.

shrunk = edited(module, Drop(path="layer1.2"))          a new module; the one given is as it was
Recipe(base, edits).replay(module)                      all edits in order, then strict weights can be loaded
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn

from shoal.core.base import Edit, Proposal
from shoal.core.errors import BadModel, BadSpec
from shoal.core.example import copy_of
from shoal.core.part import Part
from shoal.core.spec import Spec
from shoal.kinds import EDITS
from shoal.net import Net, load_net


def edit_part(edit: Edit) -> Part:
    """The edit as a Part: the name of its file and its fields."""
    fields = {field.name: getattr(edit, field.name) for field in dataclasses.fields(edit)}  # type: ignore[arg-type]
    return Part(type(edit).__module__.rpartition(".")[2], fields)


def edited(module: nn.Module, edit: Edit) -> nn.Module:
    """A new module with the edit done; the one given stays as it was, whatever happens.

    A Net becomes a Net: its spec and weights are rewritten. Any other module is copied and the copy changed. Modes
    (training or eval) stay. Raises Refused where the edit cannot be done.
    """
    return replayed(module, (edit,))


def replayed(module: nn.Module, edits: Sequence[Edit]) -> nn.Module:
    """All edits, one after another, as :func:`edited` does one."""
    if isinstance(module, Net):
        return load_net(*rewritten(module, edits)).train(module.training)
    module = copy_of(module)
    for edit in edits:
        module = edit.apply(module)
    return module


def done(module: nn.Module, proposal: Proposal) -> nn.Module:
    """A new module with all that a proposal says done: its edits, then its weights.

    Raises Refused as the edits do, BadModel where a weight has no place in the edited module or another shape.
    """
    edited_one = replayed(module, proposal.edits)
    places = edited_one.state_dict()  # its tensors are the module's own
    for name, value in proposal.weights.items():
        if name not in places or places[name].shape != value.shape:
            raise BadModel(f"{name}: a proposal sets {tuple(value.shape)}, and the edited module has no such weight")
        places[name].copy_(value)
    return edited_one


def rewritten(net: Net, edits: Sequence[Edit]) -> tuple[Spec, Mapping[str, Tensor]]:
    """Spec and weights of a Net after all edits, and no module built of them yet. Raises Refused as the edits do."""
    spec, weights = net.spec, cast("Mapping[str, Tensor]", net.state_dict())
    for edit in edits:
        spec, weights = edit.rewrite(spec, weights)
    return spec, weights


@dataclass(frozen=True)
class Recipe:
    """``base``: the Spec of a Net, or how a stranger is made (``file.py:function``), or None where nobody said."""

    base: Spec | str | None
    edits: tuple[Edit, ...] = ()

    def replay(self, module: nn.Module) -> nn.Module:
        """The edits on a fresh base; its weights are loaded afterwards, strictly."""
        return replayed(module, self.edits)

    def to_json(self) -> dict[str, Any]:
        """``base`` as a spec, a text or null, ``edits`` as parts."""
        base = self.base.to_json() if isinstance(self.base, Spec) else self.base
        return {"base": base, "edits": [edit_part(edit).to_json() for edit in self.edits]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Recipe:
        """The inverse of :meth:`to_json`. Raises BadSpec or UnknownName."""
        if "edits" not in data or "base" not in data:
            raise BadSpec("recipe: 'base' and 'edits' are needed; it is damaged or was not written by shoal")
        base = data["base"]
        edits = tuple(EDITS.make(Part.from_json(part)) for part in data["edits"])
        return cls(Spec.from_json(base) if isinstance(base, Mapping) else base, edits)
