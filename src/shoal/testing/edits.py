"""Checks of edits, on a small Net with side-by-side layers: ``tiny`` names places in it.

vector[features=5] | grouped[size=[1,2,1]](mlp norm=batch) 4x8 | pool[outputs=3]        in float64, weights at random
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from shoal.core.base import Edit
from shoal.core.part import Part
from shoal.core.spec import Spec
from shoal.net import Net, load_net
from shoal.recipe import Recipe, edit_part, edited
from shoal.testing._samples import Subject, require

PROBE = Spec.parse("vector[features=5] | grouped[size=[1,2,1]](mlp norm=batch) 4x8 | pool[outputs=3]")
NEAR = 1e-10


def json_round_trip(subject: Subject) -> None:
    """The edit, alone and in a recipe, is what its JSON says."""
    edit = _edit(subject)
    part = Part.from_json(json.loads(json.dumps(edit_part(edit).to_json())))
    require(subject.kind.make(part) == edit, f"{edit} came back as {subject.kind.make(part)}")
    recipe = Recipe(PROBE, (edit,))
    again = Recipe.from_json(json.loads(json.dumps(recipe.to_json())))
    require(again == recipe, "a recipe with the edit does not survive JSON")


def replays(subject: Subject) -> None:
    """On a fresh base, with the edited net's weights loaded strictly, the outputs are the same bit for bit."""
    edit, net, x = _edit(subject), _probe(), _rows()
    shrunk = edited(net, edit)
    assert isinstance(shrunk, Net)
    fresh = edited(Net(PROBE).double(), edit)
    fresh.load_state_dict(shrunk.state_dict(), strict=True)
    require(torch.equal(fresh.eval()(x), shrunk.eval()(x)), "replayed on a fresh base, the outputs differ")
    loaded = load_net(shrunk.spec, shrunk.state_dict())
    require(torch.equal(loaded(x), shrunk(x)), "built from its own spec, the outputs differ")


def exact_is_exact(subject: Subject) -> None:
    """An edit that says ``exact`` moves no output by more than 1e-10 in float64."""
    edit, net, x = _edit(subject), _probe(), _rows()
    gap = float((edited(net, edit)(x) - net(x)).abs().max().detach())
    require(not subject.cls.exact or gap < NEAR, f"said to be exact, but an output moved by {gap:.3g}")
    require(
        subject.cls.exact or gap > NEAR, "it moved nothing, so nothing was tested; name a place in tiny that matters"
    )


def leaves_the_net_alone(subject: Subject) -> None:
    """The net given, its spec and its weights are as they were, bit for bit."""
    edit, net = _edit(subject), _probe()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    edited(net, edit)
    _same(net, before)


def failure_changes_nothing(subject: Subject) -> None:
    """Whatever breaks on the way, the net and the weights given are as they were."""
    edit, net = _edit(subject), _probe()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    for after in range(1, 4):
        weights = _Breaking(net.state_dict(), after)
        with suppress(_PlannedError):
            edit.rewrite(net.spec, weights)
        _same(net, before)


def _edit(subject: Subject) -> Edit:
    made = subject.kind.make(Part(subject.name, subject.cls.tiny))
    assert isinstance(made, Edit)
    return made


def _probe() -> Net:
    net = Net(PROBE).double().eval()
    with torch.no_grad():
        for name, value in net.state_dict().items():
            value.copy_(torch.rand_like(value) + 0.5 if name.endswith("running_var") else torch.randn_like(value) / 2)
    return net


def _rows() -> Tensor:
    return torch.randn(7, 5, dtype=torch.float64)


def _same(net: nn.Module, before: Mapping[str, Tensor]) -> None:
    now = net.state_dict()
    require(now.keys() == before.keys(), "the net given has other weights than before")
    for name, value in before.items():
        require(torch.equal(now[name], value), f"{name} of the net given was changed")


class _PlannedError(Exception):
    """Raised in the middle of an edit, to see what it leaves behind."""


class _Breaking(dict[str, Tensor]):
    """Weights of which one look too many raises."""

    def __init__(self, weights: Mapping[str, Tensor], after: int) -> None:
        super().__init__(weights)
        self.left = after

    def items(self) -> Any:
        self.left -= 1
        if self.left <= 0:
            raise _PlannedError
        return super().items()
