"""ONNX formulas: multiply-adds of one node of a graph, by the conventions of the formulas for torch's operations.

    matrix product      entries of the output times columns of the left
    convolution         entries of the output (transposed: of the input) times weights that one entry meets
    attention           two matrix products: queries by keys, weights by values; a mask saves nothing
    LSTM, GRU, RNN      (inputs + state) * gates * units, each step
    einsum of two       the sizes of all letters, but for those that only one factor has and the output has not
    sums over a graph   one for each number that Scatter adds at an index
    outer product       entries of a Mul that is larger than both its factors, since a sum normally follows

An operator has a formula, or it is on the list of those that contract nothing. Any other is not known, whatever its
name, and so is a loop or a branch around one that contracts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

from onnx import helper

from shoal.costing.onnx.graph import Value

Settings = Mapping[str, Any]
Formula = Callable[[Sequence[Any], Value, Settings], int | None]


class Product(NamedTuple):
    """What a node multiplies: its multiply-adds (None: not known), the names of its factors, steps in a row."""

    macs: int | None
    factors: Sequence[str]
    steps: int = 1


def product_of(node: Any, values: Mapping[str, Value]) -> Product | None:
    """What a node multiplies, None where it multiplies nothing together but element by element."""
    given = [name for name in node.input if name]
    unknown = Product(None, [name for name in given if name not in values or not values[name].is_index])
    bodies = bodies_of(node)
    if bodies:
        inner = [product_of(each, {}) for body in bodies for each in body.node]
        return unknown if any(inner) else None
    if node.domain not in ("", "ai.onnx") or (node.op_type not in FORMULAS and node.op_type not in HARMLESS):
        return unknown
    if node.op_type in HARMLESS:
        return None
    places, formula = FORMULAS[node.op_type]
    out = next(filter(None, node.output))
    if not all(name in values for name in (*given, out)):
        return unknown
    settings = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    macs = formula([values.get(name) for name in node.input], values[out], settings)
    if macs is None:
        return unknown
    factors = [node.input[place] for place in places if place < len(node.input)]
    if node.op_type == "Mul":
        return _outer(factors, values, macs) if macs else None
    steps = values[node.input[0]].shape[settings.get("layout", 0)] if node.op_type in _RECURRENT else 1
    return Product(macs, factors, steps)


def bodies_of(node: Any) -> list[Any]:
    """The graphs within a node: the branches of an If, the body of a Loop."""
    return [body for each in node.attribute for body in (*([each.g] if each.HasField("g") else []), *each.graphs)]


def _matrix_product(left: int) -> Formula:
    return lambda given, out, settings: out.numel * given[left].shape[-1]


def _gemm(given: Sequence[Any], out: Value, settings: Settings) -> int:
    return out.numel * int(given[0].shape[0 if settings.get("transA") else 1])


def _convolution(weight: int) -> Formula:
    return lambda given, out, settings: out.numel * prod(given[weight].shape[1:])


def _transposed(given: Sequence[Any], out: Value, settings: Settings) -> int:
    return int(given[0].numel) * prod(given[1].shape[1:])


def _recurrent(given: Sequence[Any], out: Value, settings: Settings) -> int:
    x, into, back = given[:3]  # (places, batch, inputs), (directions, gates * units, inputs), (..., units)
    return int(x.shape[0] * x.shape[1] * (into.numel + back.numel))


def _attention(given: Sequence[Any], out: Value, settings: Settings) -> int:
    """Queries, keys, values: (batch, heads, places, dim), or (batch, places, heads * dim) with heads as settings."""
    query, key, value = (each.shape for each in given[:3])
    past = given[4].shape[2] if len(given) > 4 and given[4] else 0
    if len(query) == 4:
        return int(prod(query[:3]) * (key[2] + past) * (query[3] + value[3]))
    heads, shared = settings["q_num_heads"], settings["kv_num_heads"]
    return int(query[0] * query[1] * (key[1] + past) * heads * (query[2] // heads + value[2] // shared))


def _einsum(given: Sequence[Any], out: Value, settings: Settings) -> int | None:
    terms, _, result = settings["equation"].decode().replace(" ", "").partition("->")
    letters = terms.split(",")
    if len(letters) == 1:
        return 0
    if len(letters) > 2 or "." in terms or not result:
        return None  # the order of several products is the runtime's own
    pairs = [pair for term, each in zip(letters, given, strict=True) for pair in zip(term, each.shape, strict=True)]
    sizes = dict(sorted(pairs, key=lambda pair: pair[1]))  # a 1 meets any size
    kept = [letter for letter in sizes if letter in result or all(letter in term for term in letters)]
    return prod(sizes[letter] for letter in kept)


def _scattered(given: Sequence[Any], out: Value, settings: Settings) -> int:
    return given[2].numel if settings.get("reduction") == b"add" else 0


def _mul(given: Sequence[Any], out: Value, settings: Settings) -> int:
    larger = out.numel > max(each.numel for each in given) and "float" in out.dtype
    return out.numel if larger else 0


def _outer(factors: Sequence[str], values: Mapping[str, Value], macs: int) -> Product:
    """Only a product of matrices is a step deeper, as the counter for modules has it."""
    matrices = all(sum(size > 1 for size in values[name].shape) > 1 for name in factors)
    return Product(macs, factors if matrices else ())


_RECURRENT = {"LSTM", "GRU", "RNN"}
_BOTH = (0, 1)
FORMULAS: dict[str, tuple[tuple[int, ...], Formula]] = {
    "MatMul": (_BOTH, _matrix_product(0)),
    "MatMulInteger": (_BOTH, _matrix_product(0)),
    "QLinearMatMul": ((0, 3), _matrix_product(0)),
    "Gemm": (_BOTH, _gemm),
    "Conv": (_BOTH, _convolution(1)),
    "ConvInteger": (_BOTH, _convolution(1)),
    "DeformConv": (_BOTH, _convolution(1)),
    "QLinearConv": ((0, 3), _convolution(3)),
    "ConvTranspose": (_BOTH, _transposed),
    "Attention": ((0, 1, 2), _attention),
    "Einsum": (_BOTH, _einsum),
    "ScatterElements": ((), _scattered),
    "ScatterND": ((), _scattered),
    "Mul": (_BOTH, _mul),
    **dict.fromkeys(_RECURRENT, ((0, 1), _recurrent)),
}
VIEWS = {"Constant", "Flatten", "Identity", "Reshape", "Shape", "Size", "Squeeze", "Unsqueeze"}  # nothing is moved
_CONTRACT_NOTHING = """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Bernoulli BitCast BitShift
    BitwiseAnd BitwiseNot BitwiseOr BitwiseXor BlackmanWindow Cast CastLike Ceil Celu CenterCropPad Clip Col2Im Compress
    Concat ConcatFromSequence ConstantOfShape Cos Cosh CumProd CumSum DepthToSpace DequantizeLinear Div Dropout
    DynamicQuantizeLinear Elu Equal Erf Exp Expand EyeLike Floor Gather GatherElements GatherND Gelu GlobalAveragePool
    GlobalLpPool GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization HammingWindow HannWindow HardSigmoid
    HardSwish Hardmax InstanceNormalization IsInf IsNaN LRN LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax
    LpNormalization LpPool Max MaxPool MaxRoiPool MaxUnpool Mean MeanVarianceNormalization Min Mish Mod Multinomial Neg
    NonMaxSuppression NonZero Not OneHot Optional OptionalGetElement OptionalHasElement Or PRelu Pad Pow QuantizeLinear
    RMSNormalization RandomNormal RandomNormalLike RandomUniform RandomUniformLike Range Reciprocal ReduceL1 ReduceL2
    ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Resize
    ReverseSequence RoiAlign RotaryEmbedding Round Scatter Selu SequenceAt SequenceConstruct
    SequenceEmpty SequenceErase SequenceInsert SequenceLength Shrink Sigmoid Sign Sin Sinh Slice Softmax Softplus
    Softsign SpaceToDepth Split SplitToSequence Sqrt Sub Sum SwiGLU Swish Tan Tanh TensorScatter ThresholdedRelu Tile
    TopK Transpose Trilu Unique Upsample Where Xor
"""
HARMLESS = VIEWS | set(_CONTRACT_NOTHING.split())
