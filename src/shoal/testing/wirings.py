"""Checks of wirings: what they say of themselves (ends, reads, groups, without) against what is measured; training."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from shoal.core.base import Branch, Wiring
from shoal.core.errors import Refused
from shoal.core.part import Part
from shoal.core.spec import LayerSpec, Spec, Stage
from shoal.kinds import WIRINGS
from shoal.net import Net
from shoal.testing._costs import require_costed
from shoal.testing._exports import check_onnx, check_pt2
from shoal.testing._probes import measured_reads, probed
from shoal.testing._samples import (
    DIM,
    OFFERS,
    PLACES,
    STEMS_FOR,
    Subject,
    inputs,
    require,
    require_close,
    require_gradients,
    shake,
)

DEPTHS = range(1, 13)


def ends_and_out(subject: Subject) -> None:
    """Each layer is given the width that ``ends`` says, and ``out`` leaves; at any depth, with any places."""
    for depth in DEPTHS:
        wiring = _make(subject.part, depth)
        require(len(wiring.ends()) == depth, f"depth {depth}: {len(wiring.ends())} ends")
        for places in PLACES:
            x = inputs(places)
            y, calls, _ = probed(wiring, x)
            require(y.shape == (*x.shape[:-1], wiring.out()), f"{tuple(x.shape)} becomes {tuple(y.shape)}")
            require({layer for layer, _ in calls} == set(range(depth)), f"depth {depth}: not all layers are called")


def reads_as_measured(subject: Subject) -> None:
    """``reads`` is what is measured by pushing one node at a time; a looped layer is a node a visit."""
    for depth in DEPTHS:
        wiring = _make(subject.part, depth)
        said, found = wiring.reads(), measured_reads(wiring)
        require(said == found, f"depth {depth}: reads says {said}, measured {found}")


def layers_called_in_order(subject: Subject) -> None:
    """Layers are called by their numbers, 0 to depth - 1, once or in whole rounds: places can be told apart."""
    for depth in (1, 3, 8):
        wiring = _make(subject.part, depth)
        _, calls, _ = probed(wiring, inputs(1))
        numbers = [layer for layer, _ in calls]
        require(len(numbers) % depth == 0, f"{len(numbers)} calls are no whole rounds of {depth}")
        require(numbers == list(range(depth)) * (len(numbers) // depth), f"layers are called as {numbers}")


def groups_are_sums(subject: Subject) -> None:
    """Where ``groups`` is said: layers that give zero change nothing, and the members of a group may change places."""
    for depth in (1, 4, 7):
        wiring = _make(subject.part, depth)
        groups = wiring.groups()
        if groups is None:
            continue
        require(sum(groups) == depth and min(groups) >= 1, f"groups {groups} do not add up to {depth}")
        x, layers = inputs(1), _layers(wiring)
        require(torch.equal(wiring(x, [torch.zeros_like] * depth), x), "all layers give zero and the output is not x")
        start = 0
        for members in groups:
            turned = list(layers)
            turned[start : start + members] = reversed(layers[start : start + members])
            require_close(wiring(x, turned), wiring(x, layers), f"the group at {start}, the other way round", 1e-12)
            start += members


def without_a_layer(subject: Subject) -> None:
    """``without(i)`` is the wiring in which layer i gave nothing, exactly; or it is refused, with a reason.

    Nothing is zero where others read past the layer, and the layer's own input where the stream goes through it.
    """
    for depth in (2, 4, 7):
        wiring = _make(subject.part, depth)
        layers, x = _layers(wiring), inputs(1)
        for index in range(depth):
            try:
                settings = wiring.without(index)
            except Refused as error:
                require(str(index) in str(error), f"the refusal {error} does not say which layer")
                continue
            after = _make(Part(subject.name, settings), depth - 1)
            after.load_state_dict(wiring.state_dict(), strict=True)
            nothing = torch.zeros_like if _is_branch(wiring, index) else _same
            stilled = [nothing if i == index else layer for i, layer in enumerate(layers)]
            left = [layer for i, layer in enumerate(layers) if i != index]
            require(torch.equal(after(x, left), wiring(x, stilled)), f"depth {depth} without layer {index} differs")


def rows_apart(subject: Subject) -> None:
    """In eval the rows of a batch do not mix, and the same input gives the same output."""
    wiring = _make(subject.part, 4).eval()
    layers, x = _layers(wiring), inputs(1)
    other = x.clone()
    other[1] += 1
    require(torch.equal(wiring(x, layers)[0], wiring(other, layers)[0]), "row 0 changes with the last row of the batch")


def gradients(subject: Subject) -> None:
    """Finite gradients to every weight of the wiring itself and of every layer."""
    net = _net(subject, 5, "mlp[hidden=8]").double()
    shake(net)
    require_gradients(net, net(inputs(0)))


def costed(subject: Subject) -> None:
    """The counter knows every operation of a small net of it."""
    require_costed(_net(subject, 4, "mlp[hidden=8]"), inputs(0).float())


def trains_at_1(subject: Subject) -> None:
    """One layer: the loss falls in 60 steps."""
    _trains(subject, 1)


def trains_at_4(subject: Subject) -> None:
    """Four layers: the loss falls in 60 steps."""
    _trains(subject, 4)


def trains_at_32(subject: Subject) -> None:
    """Thirty-two layers: the loss falls in 60 steps."""
    _trains(subject, 32)


def exports_to_pt2(subject: Subject) -> None:
    """A small net of it, exported by torch.export, saved and loaded, gives the same at another batch size."""
    check_pt2(_net(subject, 2, "mlp[hidden=8]").eval(), inputs(0).float())


def exports_to_onnx(subject: Subject) -> None:
    """A small net of it, exported to ONNX, gives the same in onnxruntime at another batch size."""
    check_onnx(_net(subject, 2, "mlp[hidden=8]").eval(), inputs(0).float())


def _make(part: Part, depth: int) -> Wiring:
    wiring: Wiring = WIRINGS.make(part, DIM, depth, dim=DIM, offers=OFFERS).double()
    shake(wiring)
    return wiring


def _layers(wiring: Wiring) -> Sequence[Branch]:
    """Layers with weights: a matrix and a tanh each, as wide as they need to be."""
    made = [nn.Sequential(nn.Linear(*ends, dtype=torch.float64), nn.Tanh()) for ends in wiring.ends()]
    return [each.requires_grad_(False) for each in made]


def _is_branch(wiring: Wiring, index: int) -> bool:
    """Whether all who read what the layer gave read what it read as well: then the stream goes past it."""
    rows = wiring.reads()
    return all(rows[index] <= row for row in rows if index + 1 in row)


def _same(x: Tensor) -> Tensor:
    return x


def _net(subject: Subject, depth: int, block: str, dim: int = DIM) -> Net:
    layers = (LayerSpec(Part.parse(block)),) * depth
    return Net(Spec((Stage(subject.part, layers, dim),), Part.parse(STEMS_FOR[0]), Part.parse("pool[outputs=3]")))


def _trains(subject: Subject, depth: int) -> None:
    """Which of three coordinates is the largest: the loss of a small net falls below 0.7 of its start in 60 steps."""
    net, x = _net(subject, depth, "mlp[hidden=16]"), torch.randn(64, DIM)
    target = x[:, :3].argmax(dim=-1)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3, fused=True)
    losses = []
    for _ in range(60):
        loss = nn.functional.cross_entropy(net(x), target)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(float(loss.detach()))
    ratio = losses[-1] / losses[0]
    require(ratio < 0.7, f"depth {depth}: the loss goes from {losses[0]:.3f} to {losses[-1]:.3f}, {ratio:.2f} of it")
