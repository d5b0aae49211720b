"""The counter of .onnx files: what torch's operations cost, they cost in ONNX; and never a silent zero."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from shoal.artifact import export
from shoal.core.errors import BadArtifact, BadModel, BadSetting
from shoal.core.part import Part
from shoal.core.spec import Spec
from shoal.costing import cost
from shoal.costing.onnx.count import onnx_cost
from shoal.costing.onnx.formulas import FORMULAS, HARMLESS
from shoal.kinds import BLOCKS
from shoal.net import Net

FLOAT, BOOL = TensorProto.FLOAT, TensorProto.BOOL
STEMS = {
    0: ("vector[features=5]", (2, 5)),
    1: ("tokens[vocabulary=11,length=6]", (2, 6)),
    2: ("convolution[channels=3]", (2, 6, 4, 3)),
}


def file(folder, nodes, inputs, weights=None, gives=FLOAT, functions=(), domains=()) -> Path:
    """An .onnx of those nodes; shapes of inputs by name, arrays of weights by name."""
    graph = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info("y", gives, None)],
        [numpy_helper.from_array(value, name) for name, value in (weights or {}).items()],
    )
    opsets = [helper.make_opsetid("", 23), *(helper.make_opsetid(domain, 1) for domain in domains)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, functions=list(functions)), folder / "made.onnx")
    return folder / "made.onnx"


DIFFERENT = {
    "gated_hops": "without edges all hops are alike, and the export computes their gates once",
    "gen": "what is scattered has a shape that the file does not say: its nodes are named",
    "graph_attention": "what is scattered has a shape that the file does not say: its nodes are named",
    "star": "the export folds a norm into a convolution, which is then told as the block's own",
    "kan": "what is scattered has a shape that the file does not say: its nodes are named",
}


def blocks_of(places):
    return [name for name in BLOCKS.names() if max(p for p in BLOCKS.get(name).layouts if p in STEMS) == places]


@pytest.mark.parametrize("name", DIFFERENT)
def test_what_is_counted_less_is_named(name, tmp_path):
    stem, shape = STEMS[2]
    net = Net(Spec.parse(f"{stem} | residual({Part(name, BLOCKS.get(name).tiny)}) 1x8 | pool[outputs=3]")).eval()
    x = torch.randn(shape)
    found, wanted = onnx_cost(export(net, x, tmp_path / "net.onnx", "onnx"), batch=3), cost(net, torch.cat((x, x))[:3])
    assert found.macs < wanted.macs or name == "star"
    assert found.macs <= wanted.macs
    assert bool(found.uncounted) == ("named" in DIFFERENT[name])


@pytest.mark.parametrize("places", sorted({max(BLOCKS.get(name).layouts) for name in BLOCKS.names()} & STEMS.keys()))
def test_every_block_costs_what_it_costs_in_torch(places, tmp_path):
    names = [name for name in blocks_of(places) if name not in DIFFERENT]
    piece = {name: {"size": (3, 2)} if "size" in BLOCKS.get(name).tiny else {} for name in names}  # of these images
    blocks = ", ".join(str(Part(name, {**BLOCKS.get(name).tiny, **piece[name]})) for name in names)
    stem, shape = STEMS[places]
    net = Net(Spec.parse(f"{stem} | residual({blocks}) {len(names)}x8 | pool[outputs=3]")).eval()
    x = torch.zeros(shape, dtype=torch.int64) if places == 1 else torch.randn(shape)
    found, wanted = onnx_cost(export(net, x, tmp_path / "net.onnx", "onnx"), batch=3), cost(net, torch.cat((x, x))[:3])
    assert (found.macs, found.depth, found.uncounted) == (wanted.macs, wanted.depth, ())
    by_layer, in_torch = Counter(), Counter()
    for node in found.nodes:
        by_layer[node.path, node.type] += node.macs
    for call in wanted.calls:
        in_torch[call.path, call.type] += call.macs
    assert +by_layer == +in_torch


class Others(nn.Module):
    """What no block of the house is made of."""

    def __init__(self):
        super().__init__()
        self.steps, self.look = nn.LSTM(8, 4, bidirectional=True), nn.MultiheadAttention(8, 2)
        self.up, self.mix = nn.ConvTranspose1d(8, 6, 3, stride=2, groups=2), nn.Parameter(torch.randn(6, 5))
        self.register_buffer("edges", torch.tensor([0, 2, 2, 1, 0, 1, 1, 2, 0]))

    def forward(self, x):
        h, _ = self.steps(x)
        h, _ = self.look(h, h, h)
        h = torch.einsum("pbc,cd->bpd", self.up(h.movedim(0, -1)).movedim(-1, 0), self.mix)
        return torch.fft.rfft(torch.zeros(2, 3, 5).index_add(1, self.edges, h)).real


def test_other_operations_cost_what_they_cost_in_torch(tmp_path):
    net, x = Others().eval(), torch.randn(4, 2, 8)
    found, wanted = onnx_cost(export(net, x, tmp_path / "net.onnx", "onnx")), cost(net, x)
    transform = sum(each.macs for each in wanted.operations if "fft" in each.name)
    assert found.uncounted == ("DFT at Others",)
    assert (found.macs, found.depth) == (wanted.macs - transform, wanted.depth)


FORMS = {  # operator, inputs, weights, settings; multiply-adds and depth
    "Gemm": ("Gemm", [(3, 4)], [(4, 5)], {}, 60, 1),
    "Gemm, transposed": ("Gemm", [(4, 3)], [(5, 4), (5,)], {"transA": 1, "transB": 1}, 60, 1),
    "MatMul, broadcast": ("MatMul", [(2, 3, 4)], [(4, 5)], {}, 120, 1),
    "MatMul, vectors": ("MatMul", [(4,), (4,)], [], {}, 4, 0),
    "MatMul, scores": ("MatMul", [(2, 3, 4), (2, 4, 5)], [], {}, 120, 0),
    "Conv, groups": ("Conv", [(2, 6, 9, 9)], [(12, 2, 3, 3)], {"group": 3, "strides": [2, 2]}, 2 * 12 * 16 * 18, 1),
    "ConvTranspose": (
        *("ConvTranspose", [(2, 4, 5, 5)], [(4, 3, 3, 3)], {"group": 2, "strides": [2, 2]}),
        *(2 * 4 * 25 * 27, 1),
    ),
    "Attention": ("Attention", [(2, 12, 64, 64)] * 3, [], {}, 2 * 2 * 12 * 64**3, 0),
    "Attention, fewer keys": (
        *("Attention", [(2, 5, 32), (2, 7, 16), (2, 7, 8)], [], {"q_num_heads": 4, "kv_num_heads": 2}),
        *(2 * 5 * 7 * 4 * (8 + 4), 0),
    ),
    "Einsum": ("Einsum", [(3, 2, 4)], [(2, 4, 5)], {"equation": "bhi,hio->bho"}, 120, 1),
    "Einsum, summed first": ("Einsum", [(3, 4), (4, 7)], [], {"equation": "bi,ij->b"}, 12, 0),
    "Einsum of one": ("Einsum", [(3, 4)], [], {"equation": "ij->ji"}, 0, 0),
    "LSTM": ("LSTM", [(7, 2, 5)], [(1, 12, 5), (1, 12, 3)], {"hidden_size": 3}, 14 * 12 * 8, 7),
    "GRU, both ways": (
        *("GRU", [(7, 2, 5)], [(2, 9, 5), (2, 9, 3)], {"hidden_size": 3, "direction": "bidirectional"}),
        *(2 * 14 * 9 * 8, 7),
    ),
    "RNN, batch first": (
        *("RNN", [(2, 7, 5)], [(1, 3, 5), (1, 3, 3)], {"hidden_size": 3, "layout": 1}),
        *(14 * 3 * 8, 7),
    ),
    "Mul": ("Mul", [(3, 4)], [(4,)], {}, 0, 0),
    "Mul, outer": ("Mul", [(3, 1, 4)], [(5, 4)], {}, 60, 1),
    "Relu": ("Relu", [(3, 4)], [], {}, 0, 0),
}


@pytest.mark.parametrize("name", FORMS)
def test_closed_forms(name, tmp_path):
    op, shapes, held, settings, macs, depth = FORMS[name]
    inputs = {f"x{at}": (FLOAT, shape) for at, shape in enumerate(shapes)}
    weights = {f"w{at}": np.zeros(shape, np.float32) for at, shape in enumerate(held)}
    node = helper.make_node(op, [*inputs, *weights], ["y"], **settings)
    found = onnx_cost(file(tmp_path, [node], inputs, weights))
    assert (found.macs, found.depth, found.uncounted, found.lower_bound) == (macs, depth, (), False)
    assert found.params == sum(array.size for array in weights.values()) == sum(found.nodes[0].weights.values())


def test_weights_on_the_left(tmp_path):
    node = helper.make_node("MatMul", ["w", "x"], ["y"])
    found = onnx_cost(file(tmp_path, [node], {"x": (FLOAT, (7, 4, 5))}, {"w": np.zeros((3, 4), np.float32)}))
    assert (found.macs, found.depth) == (7 * 3 * 4 * 5, 1)


def test_quantised(tmp_path):
    weights = {"w": np.zeros((4, 5), np.int8), "s": np.float32(1), "z": np.int8(0)}
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
        helper.make_node("MatMulInteger", ["q", "w", "zero", "z"], ["whole"]),
        helper.make_node("Cast", ["whole"], ["y"], to=FLOAT),
    ]
    found = onnx_cost(file(tmp_path, nodes, {"x": (FLOAT, (3, 4))}, weights))
    assert (found.macs, found.params, found.bytes, found.depth) == (60, 20, 20, 1)


def _branch(name, op):
    node = helper.make_node(op, ["x", "x"] if op != "Relu" else ["x"], [name])
    return helper.make_graph([node], name, [], [helper.make_tensor_value_info(name, FLOAT, None)])


UNKNOWN = {
    "another domain": ([helper.make_node("Attend", ["x"], ["y"], "it", domain="theirs")], "Attend at it"),
    "no formula": ([helper.make_node("Det", ["x"], ["y"], "it")], "Det at it"),
    "three factors": ([helper.make_node("Einsum", ["x"] * 3, ["y"], "it", equation="ij,jk,kl->il")], "Einsum at it"),
    "a branch that multiplies": (
        [
            helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
            helper.make_node("Cast", ["most"], ["sure"], to=BOOL),
            helper.make_node(
                "If", ["sure"], ["y"], "it", then_branch=_branch("a", "MatMul"), else_branch=_branch("b", "Relu")
            ),
        ],
        "If at it",
    ),
    "an unknown shape": (
        [
            helper.make_node("Compress", ["x", "yes"], ["some"]),
            helper.make_node("MatMul", ["some", "some"], ["y"], "it"),
        ],
        "MatMul at it",
    ),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_not_known_is_named(name, tmp_path):
    nodes, named = UNKNOWN[name]
    found = onnx_cost(file(tmp_path, nodes, {"x": (FLOAT, (4, 4)), "yes": (BOOL, (4,))}, domains=["theirs"]))
    assert found.uncounted == (named,)
    assert found.lower_bound
    assert "at least 0 macs" in str(found)


def test_branches_that_multiply_nothing_are_no_matter(tmp_path):
    parts = {"then_branch": _branch("a", "Relu"), "else_branch": _branch("b", "Relu")}
    nodes = [helper.make_node("If", ["yes"], ["y"], **parts)]
    found = onnx_cost(file(tmp_path, nodes, {"x": (FLOAT, (4, 4)), "yes": (BOOL, ())}))
    assert (found.uncounted, found.macs) == ((), 0)


def test_functions_of_the_file_are_written_out(tmp_path):
    inner = [helper.make_node("MatMul", ["a", "b"], ["c"]), helper.make_node("Relu", ["c"], ["d"])]
    function = helper.make_function("theirs", "Layer", ["a", "b"], ["d"], inner, [helper.make_opsetid("", 23)])
    nodes = [
        helper.make_node("Layer", ["x", "w"], ["h"], domain="theirs"),
        helper.make_node("Layer", ["h", "w"], ["y"], domain="theirs"),
    ]
    weights = {"w": np.zeros((4, 4), np.float32)}
    found = onnx_cost(file(tmp_path, nodes, {"x": (FLOAT, (3, 4))}, weights, functions=[function], domains=["theirs"]))
    assert (found.macs, found.depth, found.params, found.uncounted) == (2 * 48, 2, 16, ())


@pytest.mark.parametrize(("how", "macs"), [("add", 8), ("none", 0), ("max", 0)])
def test_sums_over_a_graph(how, macs, tmp_path):
    node = helper.make_node("ScatterElements", ["x", "i", "of"], ["y"], reduction=how)
    inputs = {"x": (FLOAT, (3, 4)), "i": (TensorProto.INT64, (2, 4)), "of": (FLOAT, (2, 4))}
    found = onnx_cost(file(tmp_path, [node], inputs))
    assert (found.macs, found.depth, found.uncounted) == (macs, 0, ())


def test_constants_are_weights_and_indices_are_not(tmp_path):
    tensor = numpy_helper.from_array(np.zeros((4, 5), np.float16))
    nodes = [
        helper.make_node("Constant", [], ["w"], value=tensor),
        helper.make_node("Constant", [], ["shape"], value=numpy_helper.from_array(np.array([3, 4]))),
        helper.make_node("Reshape", ["x", "shape"], ["h"]),
        helper.make_node("MatMul", ["h", "w"], ["y"]),
    ]
    found = onnx_cost(file(tmp_path, nodes, {"x": (TensorProto.FLOAT16, (12,))}, gives=TensorProto.FLOAT16))
    assert (found.params, found.bytes, found.macs, found.depth) == (20, 40, 60, 1)


def test_bytes_moved(tmp_path):
    nodes = [
        helper.make_node("Gather", ["table", "i"], ["h"]),
        helper.make_node("Unsqueeze", ["h", "axis"], ["u"]),
        helper.make_node("Relu", ["u"], ["y"]),
    ]
    weights = {"table": np.zeros((100, 4), np.float32), "axis": np.array([0])}
    found = onnx_cost(file(tmp_path, nodes, {"i": (TensorProto.INT64, (3,))}, weights))
    assert [node.moved for node in found.nodes] == [
        48 + 24 + 48,
        0,
        96,
    ]  # of a table only what is taken; a view nothing


@pytest.fixture
def open_axes(tmp_path) -> Path:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Add", ["h", "z"], ["y"])]
    inputs = {"x": (FLOAT, ("rows", "places", 4)), "z": (FLOAT, ("rows", "places", 5))}
    return file(tmp_path, nodes, inputs, {"w": np.zeros((4, 5), np.float32)})


def test_open_axes_are_filled(open_axes):
    assert onnx_cost(open_axes).macs == 20
    assert onnx_cost(open_axes, batch=6).macs == 120
    found = onnx_cost(open_axes, shapes=[(2, 3, 4), (2, 3, 5)])
    assert (found.macs, found.inputs) == (120, (("x", (2, 3, 4), "float32"), ("z", (2, 3, 5), "float32")))


def test_an_axis_without_a_name_is_open_too(tmp_path):
    path = file(tmp_path, [helper.make_node("MatMul", ["x", "x"], ["y"])], {"x": (FLOAT, (None, 4, 4))})
    assert onnx_cost(path, batch=6).macs == 6 * 64


def _text(folder):
    (folder / "made.onnx").write_text("no protobuf at all")
    return folder / "made.onnx"


def _truncated(folder):
    path = file(folder, [helper.make_node("Relu", ["x"], ["y"])], {"x": (FLOAT, (4,))})
    path.write_bytes(path.read_bytes()[:-5])
    return path


def _fixed(folder):
    return file(folder, [helper.make_node("Relu", ["x"], ["y"])], {"x": (FLOAT, (2, 4))})


def _contradiction(folder):
    weights = {"w": np.zeros((5, 4), np.float32)}
    return file(folder, [helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": (FLOAT, (2, "n"))}, weights)


@pytest.mark.parametrize(
    ("make", "words", "error", "says"),
    [
        (lambda folder: folder / "none.onnx", {}, BadArtifact, "none.onnx: there is no such file; give an .onnx"),
        (_text, {}, BadArtifact, "is truncated or no ONNX .*; export it again"),
        (_truncated, {}, BadArtifact, "is truncated or no ONNX"),
        (_fixed, {"batch": 3}, BadSetting, "takes a batch of 2 only; leave --batch out"),
        (_fixed, {"shapes": [(2, 5)]}, BadSetting, "its input 'x' is 2x4, 2x5 is given"),
        (_fixed, {"shapes": [(2, 4), (2, 4)]}, BadSetting, r"takes 1 inputs \(x\), 2 shapes are given"),
        (_contradiction, {}, BadModel, "does not run on 2x1: .*Incompatible dimensions.*--input"),
    ],
)
def test_failures_are_one_line(make, words, error, says, tmp_path):
    with pytest.raises(error, match=says) as caught:
        onnx_cost(make(tmp_path), **words)
    assert "\n" not in str(caught.value)


def test_no_operator_that_contracts_is_taken_for_harmless():
    contracts = re.compile("conv|matmul|gemm|attention|einsum|dft|stft|det|lstm|gru|rnn", re.IGNORECASE)
    assert [name for name in HARMLESS if contracts.search(name)] == []
    assert not HARMLESS & FORMULAS.keys()
