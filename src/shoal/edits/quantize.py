"""Quantize: matrices and what flows between them as integers of few bits.

    static     weights of `bits` bits, a scale each output; activations of 8 bits, a scale a tensor, fixed from data
    dynamic    weights as well; what goes into a matrix by its own range, each time anew (no convolutions)
    weights    weights alone
    ternary    weights alone, as one size times -1, 0 or 1

The network runs in floating-point numbers that lie on the integers' grids, and learns on with gradients that go
straight through; its export to ONNX is run in integers by onnxruntime. Fold the norms first: one that stands between a
convolution and its grid keeps both from becoming an integer kernel.

Scales of weights come from the weights, those of activations are buffers to be set from data.

Exact when the numbers are on the grids already
Papers   when-are-1-58-bits-enough
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor, nn

from shoal.core.base import Edit, Linear
from shoal.core.errors import BadSetting, Refused
from shoal.core.grids import MEASURES, limit_of
from shoal.core.part import Part, Value
from shoal.core.spec import LayerSpec, Spec
from shoal.edits._quantized import Rows, Ternaries, matrix_at, put_on_grid, see_through
from shoal.edits._surgery import submodule, with_stage
from shoal.kinds import BLOCKS, LINEARS
from shoal.net import empty

KINDS = {"static": "static", "dynamic": "dynamic", "weights": "none", "ternary": "none"}  # kind -> grid before a matrix


@dataclass(frozen=True, kw_only=True)
class Quantize(Edit):
    """Settings: `kind`, as above; `bits` of a weight, 2 to 8; `measure` of the ternary size, mean or median; `paths` of
    matrices, or of layers of a Net (none: all layers); for a stranger and static, `inputs`: modules before which, and
    `outputs`: modules behind which there is a grid."""

    tiny: ClassVar[Mapping[str, Value]] = {"paths": ("stages.0.layers.1", "stages.0.layers.3")}
    kind: str = "static"
    bits: int = 7
    measure: str = "mean"
    paths: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise BadSetting(f"quantize: kind={self.kind!r} is unknown; give one of {', '.join(KINDS)}")
        if self.measure not in MEASURES:
            raise BadSetting(f"quantize: measure={self.measure!r} is unknown; give mean or median")
        if (self.inputs or self.outputs) and self.kind != "static":
            raise BadSetting(f"quantize: {self.kind} has no grids of its own; leave inputs and outputs out")
        limit_of(self.bits)

    def rewrite(self, spec: Spec, weights: Mapping[str, Tensor]) -> tuple[Spec, dict[str, Tensor]]:
        if self.inputs or self.outputs:
            raise Refused("quantize: in a Net the blocks say where grids stand; leave inputs and outputs empty")
        net, kept, done = empty(spec), dict(weights.items()), set[str]()
        for index, stage in enumerate(spec.stages):
            layers = list(stage.layers)
            for number, layer in enumerate(layers):
                path = f"stages.{index}.layers.{number}"
                found = dict(_dense(layer, net.get_submodule(path)))
                if self.kind == "dynamic" and any(old.kernel for old in found.values()):
                    continue
                if found and (not self.paths or path in self.paths):
                    layers[number] = new = self._layer(layer, found)
                    for name, old in found.items():
                        kept |= self._weights(f"{path}.{name}.", old, _kind(new, name), weights)
                    done.add(path)
            spec = with_stage(spec, index, layers=tuple(layers))
        missing = sorted(set(self.paths) - done) or ([] if done else ["quantize"])
        if missing:
            what = "dense matrix that is no convolution" if self.kind == "dynamic" else "dense matrix"
            raise Refused(f"{missing[0]}: there is no layer with a {what}; name layers such as stages.0.layers.3")
        return spec, kept

    def apply(self, module: nn.Module) -> nn.Module:
        if not self.paths:
            raise Refused("quantize: name the matrices in paths; the compressor int8 finds them")
        for path in (*self.inputs, *self.outputs):
            submodule(module, path)
        parts = [(path, submodule(module, path)) for path in self.paths]
        for path, part in parts:
            if sum(part is other for _, other in parts) > 1:
                raise Refused(f"{path}: stands in paths twice; name each matrix once")
            matrix_at(module, path)
            if self.kind == "dynamic" and not isinstance(part, nn.Linear):
                raise Refused(f"{path}: a convolution has no fast dynamic kernel; quantize it as static")
        for _, part in parts:
            weight = part.get_parameter("weight")
            see_through(part, Ternaries(self.measure) if self.kind == "ternary" else Rows(weight, self.bits))
        before = set(self.paths) if self.kind == "dynamic" else set(self.inputs)
        for path in sorted(before | set(self.outputs), key=lambda path: -path.count(".")):  # what lies within, first
            put_on_grid(module, path, path in before, path in self.outputs, self.kind == "dynamic")
        return module

    def _layer(self, layer: LayerSpec, found: Mapping[str, Linear]) -> LayerSpec:
        """The layer with its dense matrices quantised. One that only another matrix reads needs no grid behind it."""
        cls = BLOCKS.get(layer.block.name)
        usual = self._part(made=True)
        linears = {name: part for name, part in layer.linears.items() if part.name != "dense"}
        for path in found:
            name = path.removeprefix("block.")
            part = self._part(made=name in cls.outlets or name not in cls.inlets)
            if part != usual or layer.linear.name != "dense":
                linears[name] = part
        linear = usual if layer.linear.name == "dense" else layer.linear
        return replace(layer, linear=linear, linears=linears)

    def _part(self, made: bool) -> Part:
        if self.kind == "ternary":
            return Part("ternary", {"measure": self.measure, "tokens": False})
        return Part("int8", {"bits": self.bits, "given": KINDS[self.kind], "made": made and self.kind == "static"})

    def _weights(self, prefix: str, old: Linear, part: Part, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All weights of the matrix in its new kind, by their names in the net."""
        weight = weights[f"{prefix}weight"]
        new: Linear = LINEARS.make(part, old.inputs, old.outputs, old.bias is not None, old.kernel, old.groups)
        new.to(weight)
        new.fit(weight.flatten(1))
        bias = {} if old.bias is None else {"bias": weights[f"{prefix}bias"]}
        return {prefix + name: value for name, value in (new.state_dict() | bias).items()}


def _dense(layer: LayerSpec, module: nn.Module) -> Iterator[tuple[str, Linear]]:
    """The dense matrices of a layer, by path in it."""
    for path, part in module.named_modules():
        if isinstance(part, Linear) and _kind(layer, path).name == "dense":
            yield path, part


def _kind(layer: LayerSpec, path: str) -> Part:
    return layer.linears.get(path.removeprefix("block."), layer.linear)
