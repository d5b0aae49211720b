"""Checks of blocks: shapes, gradients, zero, widths, rows, context, exports, and every linear kind within."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from shoal.core.base import Linear
from shoal.core.part import Part
from shoal.core.spec import Spec
from shoal.kinds import LINEARS
from shoal.net import Layer, Net
from shoal.testing._costs import require_costed
from shoal.testing._exports import check_onnx, check_pt2
from shoal.testing._samples import (
    DIM,
    STEMS_FOR,
    Subject,
    context,
    inputs,
    layer,
    layouts,
    require,
    require_close,
    require_gradients,
    require_rows_apart,
    shake,
)

OTHER = 12  # a width that is not DIM


def keeps_shape(subject: Subject) -> None:
    """The shape stays at each of its layouts, and becomes another width where the layer is asked for one."""
    require(bool(layouts(subject.cls)), f"layouts {subject.cls.layouts}: the battery has samples of 0, 1 and 2 places")
    for places in layouts(subject.cls):
        x = inputs(places)
        for outputs in (DIM, OTHER):
            for training in (True, False):
                made = layer(subject.part, DIM, outputs).double().train(training)
                y = made(x)
                require(y.shape == (*x.shape[:-1], outputs), f"{tuple(x.shape)} becomes {tuple(y.shape)}")
                require(bool(torch.isfinite(y).all()), "the output is not finite")
                same = made.tail is None or outputs != DIM
                require(same, "a tail stands behind a block that keeps its width")


def gradients(subject: Subject) -> None:
    """Finite gradients to every parameter and to the input."""
    for places in layouts(subject.cls):
        made, x = _shaken(subject).train(), inputs(places).requires_grad_()
        require_gradients(made, made(x))
        require(x.grad is not None and bool(torch.isfinite(x.grad).all()), "no finite gradient through to the input")


def zero_in_zero_out(subject: Subject) -> None:
    """All parameters zero: the output is zero, exactly; so a block adds no input of its own."""
    for places in layouts(subject.cls):
        for training in (True, False):
            made = _shaken(subject).train(training)
            _zero(*made.parameters())
            for run in (made, made.block):  # a norm at zero would hide an input that the block adds
                require(not run(inputs(places)).any(), "all parameters are zero and the output is not")


def widths_are_the_axes(subject: Subject) -> None:
    """Twice the value of a width setting doubles exactly the axes that ``widths`` says."""
    for setting, ends in subject.cls.widths.items():
        value = subject.part.settings.get(setting)
        require(isinstance(value, int), f"width {setting!r} is no setting with a number in `tiny`")
        assert isinstance(value, int)
        old, new = layer(subject.part).block, layer(subject.with_settings(**{setting: 2 * value})).block
        found, after = set(), new.state_dict()
        for name, tensor in old.state_dict().items():
            pairs = enumerate(zip(tensor.shape, after[name].shape, strict=True))
            found |= {(name, axis) for axis, (a, b) in pairs if a != b}
            require(all(b in (a, 2 * a) for a, b in zip(tensor.shape, after[name].shape, strict=True)), f"{name} jumps")
        said = {pair for end in ends for pair in _axes(old, new, end)}
        require(found == said, f"{setting!r} changes {sorted(found)}; widths says {sorted(said)}")


def ends_are_linears(subject: Subject) -> None:
    """``inlets`` and ``outlets`` name linears; with those at zero, nothing gets in, and nothing comes out."""
    made = _shaken(subject).eval()
    linears = {path: module for path, module in made.block.named_modules() if isinstance(module, Linear)}
    for path in (*subject.cls.inlets, *subject.cls.outlets):
        require(path in linears, f"inlets or outlets name {path!r}; the linears are {sorted(linears)}")
    x = inputs(layouts(subject.cls)[-1])
    if subject.cls.inlets:
        require(all(linears[path].inputs == DIM for path in subject.cls.inlets), "an inlet does not take the dim")
        cut = _shaken(subject).eval()
        for path in subject.cls.inlets:
            _zero(*cut.block.get_submodule(path).parameters())
        require(torch.equal(cut.block(x), cut.block(x + 1)), "something else than the inlets reads the input")
    if subject.cls.outlets:
        require(all(linears[path].outputs == DIM for path in subject.cls.outlets), "an outlet does not give the dim")
        _zero(*(parameter for path in subject.cls.outlets for parameter in linears[path].parameters()))
        require(not made.block(x).any(), "something else than the outlets gives the output")


def rows_apart(subject: Subject) -> None:
    """In eval the rows of a batch do not mix."""
    for places in layouts(subject.cls):
        require_rows_apart(_shaken(subject).eval(), inputs(places))


def repeats(subject: Subject) -> None:
    """In eval the same input gives the same output, bit for bit."""
    made, x = _shaken(subject).eval(), inputs(layouts(subject.cls)[-1])
    require(torch.equal(made(x), made(x)), "two runs on one input differ in eval")


def context_reaches_it(subject: Subject) -> None:
    """What ``forward`` asks for by keyword comes through the Layer, changes something, and a mask hides places."""
    for places in layouts(subject.cls):
        made, x = _shaken(subject).eval(), inputs(places)
        for name in made.reads:
            sample = context(name, x)
            if name == "mask":
                sample[:, -1] = False
            given = made(x, context={name: sample, "of_no_use": torch.zeros(1)})
            normed = made.norm(x) if made.norm is not None else x
            require_close(given, made.block(normed, **{name: sample}), f"context {name!r} through the layer")
            require(not torch.equal(given, made(x)), f"context {name!r} changes nothing")
            if name == "mask":
                _hides(made, x, sample)


def costed(subject: Subject) -> None:
    """The counter knows every operation, at each layout and with all the context that is asked for."""
    for places in layouts(subject.cls):
        made, x = _shaken(subject), inputs(places)
        require_costed(made, {"x": x, "context": {name: context(name, x) for name in made.reads}})


def exports_to_pt2(subject: Subject) -> None:
    """A small net of it, exported by torch.export, saved and loaded, gives the same at another batch size."""
    net, x = _small_net(subject)
    check_pt2(net, x)


def exports_to_onnx(subject: Subject) -> None:
    """A small net of it, exported to ONNX, gives the same in onnxruntime at another batch size."""
    net, x = _small_net(subject)
    check_onnx(net, x)


def every_linear(subject: Subject) -> None:
    """Its matrices may be of any linear kind: shapes stay and gradients come."""
    for name in LINEARS.names():
        part = Part(name, LINEARS.get(name).tiny)
        made, x = layer(subject.part, linear=part).double(), inputs(layouts(subject.cls)[-1])
        y = made(x)
        require(y.shape == x.shape, f"with linear {part} {tuple(x.shape)} becomes {tuple(y.shape)}")
        require_gradients(made, y)
        used = {type(module) for module in made.block.modules() if isinstance(module, Linear)}
        require(used <= {LINEARS.get(name)}, f"with linear {part} some matrices are {used}")


def _small_net(subject: Subject) -> tuple[Net, Tensor]:
    """Stem, two layers and a head, and an input of two rows for it."""
    places = layouts(subject.cls)[-1]
    net = Net(Spec.parse(f"{STEMS_FOR[places]} | residual({subject.part}) 2x{DIM} | pool[outputs=3]")).eval()
    shake(net)
    return net, inputs(places).float()


def _shaken(subject: Subject) -> Layer:
    made = layer(subject.part).double()
    shake(made)
    return made


def _hides(made: Layer, x: Tensor, mask: Tensor) -> None:
    """Changing what stands at the last, hidden place changes nothing at the others."""
    other = x.clone()
    other.flatten(1, -2)[:, -1] = 9.0
    kept = [made(each, context={"mask": mask}).flatten(1, -2)[:, :-1] for each in (x, other)]
    require(torch.equal(*kept), "a place that the mask hides is read")


def _axes(old: nn.Module, new: nn.Module, end: str) -> list[tuple[str, int]]:
    """The axes of the weights that "linear:out", "linear:in" or "norm:dim" speaks of."""
    path, _, which = end.partition(":")
    keys = [key for key in old.state_dict() if key == path or key.startswith(f"{path}.")]
    require(bool(keys), f"widths name {end!r}, and there is nothing of that name")
    if which == "dim":
        return [(key, 0) for key in keys if old.state_dict()[key].dim() > 0]
    before, after = old.get_submodule(path), new.get_submodule(path)
    assert isinstance(before, Linear), f"widths: {path!r} is no linear"
    assert isinstance(after, Linear)
    if which == "in":
        return [(f"{path}.weight", 1)] if before.groups == after.groups else []
    require(which == "out", f"widths: {end!r} ends neither in :in, :out nor :dim")
    return [(f"{path}.weight", 0), *([(f"{path}.bias", 0)] if before.bias is not None else [])]


def _zero(*tensors: Tensor) -> None:
    with torch.no_grad():
        for tensor in tensors:
            tensor.zero_()
