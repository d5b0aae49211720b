"""Checks of named nets: their specs, variants and counts on the meta device; a small one is run, trained and exported.

What a net reads is taken from its stem's settings: tokens, rows of features, or images of two sizes of places.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from shoal.core.base import Architecture
from shoal.core.errors import ShoalError
from shoal.core.kind import Setting
from shoal.core.named import named_part, read_spec
from shoal.core.part import Part, Value
from shoal.core.spec import Spec
from shoal.kinds import NETS
from shoal.net import Net, empty
from shoal.testing._costs import require_costed
from shoal.testing._exports import exported
from shoal.testing._samples import (
    BATCH,
    Subject,
    build,
    require,
    require_close,
    require_gradients,
    shake,
)

SIDE = 8  # places along each axis of an image whose size the stem leaves open
STEPS = 8  # of training


def variants_build(subject: Subject) -> None:
    """Every variant builds on the meta device, stem, stages and head; nothing stays behind in memory."""
    for name, spec in _variants(subject):
        require(not spec.open, f"{name}: the spec has no stem or no head")
        net = empty(spec)
        require(all(tensor.is_meta for tensor in net.state_dict().values()), f"{name}: not all of it is on meta")


def variants_are_read(subject: Subject) -> None:
    """A variant's name begins with the net's, and is read as the net at its settings; more settings go on top."""
    for name, settings in subject.cls.variants.items():
        require(name.startswith(subject.name), f"variant {name!r} does not begin with {subject.name!r}")
        require(name not in NETS.names(), f"variant {name!r} is the name of a net; leave it out")
        part = named_part(Part(name))
        require(part == Part(subject.name, settings), f"{name!r} is read as {part}")
        same = read_spec(name, _needed(subject)) == _spec(subject, settings)
        require(same, f"the spec of {name!r} is not that of its settings")


def spec_survives(subject: Subject) -> None:
    """Every variant's spec comes back equal from its text and from its JSON."""
    for name, spec in _variants(subject):
        require(Spec.parse(str(spec)) == spec, f"{name}: the spec comes back from text as {Spec.parse(str(spec))}")
        require(Spec.from_json(spec.to_json()) == spec, f"{name}: the spec does not come back equal from JSON")


def published_counts(subject: Subject) -> None:
    """What ``published`` says of a variant is what it has, to the unit."""
    for name, wanted in subject.cls.published.items():
        require(name in subject.cls.variants, f"published names {name!r}, which is no variant")
        net = empty(_spec(subject, subject.cls.variants[name]))
        found = sum(parameter.numel() for parameter in net.parameters())
        require(found == wanted, f"{name}: {found:,} parameters, published are {wanted:,}")


def ends_follow_data(subject: Subject) -> None:
    """``outputs`` is a setting, and as many numbers are given; ``channels`` and ``vocabulary`` reach the stem."""
    settings = NETS.settings(subject.name)
    require("outputs" in settings or "vocabulary" in settings, "it has no setting outputs, so no data can ask for some")
    if "outputs" in settings:
        spec = _spec(subject, {**subject.part.settings, "outputs": 5})
        require(_run(Net(spec).eval(), _sample(spec)).shape[-1] == 5, "outputs=5 does not give 5 numbers")
    for name in ("channels", "vocabulary"):
        if name in settings:
            given = _spec(subject, {**subject.part.settings, name: 4}).stem
            require(given is not None and 4 in given.settings.values(), f"{name}=4 does not reach the stem")


def runs(subject: Subject) -> None:
    """In eval: finite, the same twice, and the rows of a batch do not mix."""
    net, x = _small(subject)
    net.eval()
    with torch.no_grad():
        y = _run(net, x)
        require(y.shape[0] == BATCH and bool(torch.isfinite(y).all()), f"gives {tuple(y.shape)}, not all of it finite")
        require(torch.equal(_run(net, x), y), "two runs on one input differ in eval")
        changed = x.clone()
        changed[-1] = x[0]
        require_close(_run(net, changed)[0], y[0], "row 0 when the last row of the batch is another", 1e-12)


def trains(subject: Subject) -> None:
    """Finite gradients to every parameter, and the loss on two rows falls in a few steps."""
    net, x = _small(subject)
    net.train()
    require_gradients(net, _run(net, x))
    target = torch.zeros_like(_run(net, x)).detach()
    target[..., 0] = 1
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    losses = []
    for _ in range(STEPS):
        loss = (_run(net, x) - target).square().mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(float(loss.detach()))
    require(min(losses[1:]) < losses[0], f"the loss goes {losses[0]:.3g} to {losses[-1]:.3g} and never below its start")


def costed(subject: Subject) -> None:
    """The counter knows every operation."""
    spec = _spec(subject, subject.part.settings)
    x = _sample(spec)
    require_costed(Net(spec), x.float() if x.is_floating_point() else x)


def exports_to_pt2(subject: Subject) -> None:
    """Exported by torch.export, saved and loaded, it gives the same, at twice the batch too."""
    spec = _spec(subject, subject.part.settings)
    net, x = Net(spec).eval(), _sample(spec)
    x = x.float() if x.is_floating_point() else x
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.pt2"
        with warnings.catch_warnings():
            # weights laid channels last are no "complete tensor" to torch's packing; they are saved whole all the same
            warnings.filterwarnings("ignore", message="No complete tensor found")
            torch.export.save(exported(net, x), path)
        again = torch.export.load(path).module()
    for each in (x, torch.cat((x, x.flip(0)))):
        require_close(again(each), net(each), f"the .pt2 at a batch of {len(each)}", 1e-5)


def wrong_numbers(subject: Subject) -> None:
    """A number of zero is refused when the net is built, in one line that names the setting, or gives a net."""
    for name, value in subject.part.settings.items():
        if isinstance(value, bool) or not isinstance(value, int):
            continue
        try:
            empty(build(subject, subject.with_settings(**{name: 0})).spec())
        except ShoalError as error:
            require("\n" not in str(error), f"the error for {name}=0 has several lines")


def _variants(subject: Subject) -> Iterator[tuple[str, Spec]]:
    """The spec of each variant; of the small net where there is none."""
    for name, settings in (subject.cls.variants or {subject.name: {}}).items():
        yield name, _spec(subject, settings)


def _spec(subject: Subject, settings: Mapping[str, Value]) -> Spec:
    """The spec at these settings; what has no default is taken from ``tiny``."""
    made: Architecture = NETS.make(Part(subject.name, {**_needed(subject), **settings}))
    return made.spec()


def _needed(subject: Subject) -> dict[str, Value]:
    """The settings without a default, as ``tiny`` has them."""
    known = NETS.settings(subject.name)
    return {name: subject.cls.tiny[name] for name in known if known[name].default is Setting.REQUIRED}


def _small(subject: Subject) -> tuple[Net, Tensor]:
    """The small net with no weight as it began, and two rows for it, float64."""
    spec = _spec(subject, subject.part.settings)
    net = Net(spec).double()
    shake(net)
    return net, _sample(spec)


def _sample(spec: Spec) -> Tensor:
    """Two rows of what the stem reads."""
    assert spec.stem is not None
    asked: dict[str, Any] = dict(spec.stem.settings)
    if "vocabulary" in asked:
        return torch.randint(asked["vocabulary"], (BATCH, asked["length"]))
    if "features" in asked:
        return torch.randn(BATCH, asked["features"], dtype=torch.float64)
    axes = len(asked["kernel"]) if "kernel" in asked else 2
    places = asked["size"] if "size" in asked else (SIDE,) * axes
    return torch.randn(BATCH, *places, asked["channels"], dtype=torch.float64)


def _run(net: nn.Module, x: Tensor) -> Tensor:
    """The output, of the weights' type."""
    dtype = next(net.parameters()).dtype
    y: Tensor = net(x.to(dtype) if x.is_floating_point() else x)
    return y
