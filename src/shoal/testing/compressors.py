"""Checks of compressors, on a small Net and on a plain module that shoal does not know."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from shoal.anatomy import anatomy
from shoal.core.base import Compressor
from shoal.core.part import Part
from shoal.core.scene import Batch, Scene
from shoal.core.spec import Spec
from shoal.costing import cost
from shoal.kinds import TASKS
from shoal.net import Net
from shoal.recipe import done
from shoal.testing._samples import Subject, require

PROBE = Spec.parse("vector[features=5] | residual(mlp) 4x8 - grouped(mlp norm=batch) 3x6 | pool[outputs=3]")


class _Skips(nn.Module):
    """A residual stack as strangers write it."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = nn.ModuleList(nn.Sequential(nn.Linear(5, 9), nn.ReLU(), nn.Linear(9, 5)) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        for step in self.steps:
            x = x + step(x)
        return x


def proposals_can_be_done(subject: Subject) -> None:
    """Whatever is proposed can be done on a copy, takes spans that there are, and gives a module that runs."""
    some = 0
    for module in (Net(PROBE).eval(), _Skips().eval()):
        x = torch.randn(2, 5)
        paths = {span.path for span in anatomy(module, x).spans}
        for one in _compressor(subject).propose(_scene(module, x)):
            some += 1
            require(set(one.paths) <= paths, f"{one.paths} are not spans of the module")
            require(one.into is None or one.into in one.paths, f"into={one.into!r} is none of the paths it takes")
            shrunk = done(module, one)
            require(bool(shrunk.eval()(x).isfinite().all()), f"after {one.edits} the outputs are not finite")
            require(_less(module, shrunk, x), f"{one.edits} took nothing away")
    require(some > 0, "nothing was proposed on either probe")


def _less(module: nn.Module, shrunk: nn.Module, x: Tensor) -> bool:
    """Whether something that is counted fell: spans, weights, multiply-adds, bytes, numbers that are not zero, or
    numbers that differ."""
    before, after = _counts(module, x), _counts(shrunk, x)
    return any(now < then for then, now in zip(before, after, strict=True))


def _counts(module: nn.Module, x: Tensor) -> tuple[int, ...]:
    found = cost(module, x, training=False)
    weights = [value.detach() for value in module.state_dict().values() if value.is_floating_point()]
    return (
        len(anatomy(module, x).spans),
        found.params,
        found.macs,
        found.bytes,
        sum(int(value.count_nonzero()) for value in weights),
        sum(len(value.unique()) for value in weights),
    )


def proposing_changes_nothing(subject: Subject) -> None:
    """The module that is proposed for stays as it is, bit for bit."""
    for module in (Net(PROBE), _Skips()):
        before = {name: value.clone() for name, value in module.state_dict().items()}
        list(_compressor(subject).propose(_scene(module, torch.randn(2, 5))))
        now = module.state_dict()
        require(now.keys() == before.keys(), "the module has other weights than before")
        require(all(torch.equal(now[name], value) for name, value in before.items()), "a weight was changed")
        require(all(part.training for part in module.modules()), "a training flag was changed")


def _scene(module: nn.Module, x: Tensor) -> Scene:
    """The module in front of a few rows of three classes."""
    task = TASKS.make(Part("classification", {"classes": 3})) if isinstance(module, Net) else None
    return Scene(module, anatomy(module, x), (Batch(x, torch.arange(len(x)) % 3 if task else None),), task)


def _compressor(subject: Subject) -> Compressor:
    made = subject.kind.make(Part(subject.name, subject.cls.tiny))
    assert isinstance(made, Compressor)
    return made
