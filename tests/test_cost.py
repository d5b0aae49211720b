"""The counter: closed forms, shared and skipped layers, and never a silent zero."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from shoal.core.errors import BadModel
from shoal.costing import cost


class Do(nn.Module):
    """A function as a module, with tensors of its own."""

    def __init__(self, function, **own):
        super().__init__()
        self.function = function
        for name, value in own.items():
            self.register_parameter(name, nn.Parameter(value))

    def forward(self, *args, **kwargs):
        return self.function(self, *args, **kwargs)


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width),
        )  # fmt: skip

    def forward(self, x):
        return F.relu(x + self.body(x), inplace=True)


def sparse_product(layout):
    def run(self, x):
        matrix = torch.eye(4)
        return (matrix.to_sparse() if layout == "coo" else matrix.to_sparse_csr()) @ x

    return run


attend = Do(lambda self, q, k, v: F.scaled_dot_product_attention(q, k, v))
X = torch.randn

FORMS = {
    "linear": (nn.Linear(5, 7), X(3, 5), 3 * 5 * 7, 1),
    "linear, no bias, places": (nn.Linear(5, 7, bias=False), X(2, 3, 5), 6 * 5 * 7, 1),
    "linear, one vector": (nn.Linear(5, 7), X(5), 35, 1),
    "conv": (nn.Conv2d(3, 8, 3, padding=1), X(2, 3, 6, 5), 2 * 8 * 30 * 27, 1),
    "conv, groups, stride": (nn.Conv2d(6, 12, 3, stride=2, groups=3), X(2, 6, 9, 9), 2 * 12 * 16 * 2 * 9, 1),
    "conv, depthwise, dilated": (nn.Conv1d(4, 4, 3, dilation=2, groups=4), X(2, 4, 9), 2 * 4 * 5 * 3, 1),
    "conv, unbatched": (nn.Conv2d(3, 8, 1), X(3, 4, 4), 8 * 16 * 3, 1),
    "conv, 3d": (nn.Conv3d(2, 3, 2), X(1, 2, 3, 3, 3), 3 * 8 * 2 * 8, 1),
    "conv, transposed": (nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), X(2, 4, 5, 5), 2 * 4 * 25 * 3 * 9, 1),
    "mm": (Do(lambda self, a, b: a @ b), (X(3, 4), X(4, 5)), 60, 0),
    "mv": (Do(lambda self, a, b: a @ b), (X(3, 4), X(4)), 12, 0),
    "bmm": (Do(lambda self, a, b: a @ b), (X(6, 3, 4), X(6, 4, 5)), 360, 0),
    "baddbmm": (Do(lambda self, c, a, b: torch.baddbmm(c, a, b)), (X(6, 3, 5), X(6, 3, 4), X(6, 4, 5)), 360, 0),
    "addmm": (Do(lambda self, x: torch.addmm(self.c, x, self.w), c=X(5), w=X(4, 5)), X(3, 4), 60, 1),
    "einsum": (Do(lambda self, x: torch.einsum("bhi,hio->bho", x, self.w), w=X(2, 4, 5)), X(3, 2, 4), 120, 1),
    "complex einsum": (
        Do(lambda self, x: torch.einsum("bi,io->bo", x, self.w), w=X(4, 5, dtype=torch.cfloat)),
        X(3, 4, dtype=torch.cfloat),
        4 * 60,
        1,
    ),
    "a product written out": (Do(lambda self, x: (x[:, None] * self.w).sum(-1), w=X(5, 4)), X(3, 4), 60, 1),
    "attention": (attend, (X(2, 12, 64, 64),) * 3, 2 * 2 * 12 * 64**3, 0),
    "attention, mask": (
        Do(lambda self, q, mask: F.scaled_dot_product_attention(q, q, q, attn_mask=mask)),
        {"q": X(2, 2, 6, 8), "mask": torch.zeros(6, 6)},
        2 * 2 * 2 * 36 * 8,
        0,
    ),
    "attention, other lengths": (attend, (X(2, 2, 3, 8), X(2, 2, 7, 8), X(2, 2, 7, 4)), 4 * 21 * 12, 0),
    "attention, fewer keys": (
        Do(lambda self, q, k: F.scaled_dot_product_attention(q, k, k, enable_gqa=True)),
        (X(2, 4, 6, 8), X(2, 2, 6, 8)),
        2 * 2 * 4 * 36 * 8,
        0,
    ),
    "multihead": (nn.MultiheadAttention(8, 2, batch_first=True), (X(2, 3, 8),) * 3, 6 * 4 * 64 + 2 * 2 * 9 * 8, 2),
    "encoder layer": (
        nn.TransformerEncoderLayer(64, 4, 128, batch_first=True),
        X(2, 16, 64),
        32 * (4 * 64 * 64 + 2 * 64 * 128) + 2 * 2 * 16 * 16 * 64,
        4,
    ),
    "lstm": (nn.LSTM(32, 32), X(10, 4, 32), 40 * 4 * 32 * 64, 10),
    "lstm, both ways": (nn.LSTM(5, 3, bidirectional=True), X(4, 2, 5), 2 * 8 * 12 * 8, 4),
    "gru": (nn.GRU(32, 32), X(10, 4, 32), 40 * 3 * 32 * 64, 10),
    "embedding": (nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 2)), torch.tensor([[1, 2, 3]]), 24, 1),
    "block": (
        nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), Block(8), Block(8)),
        X(2, 3, 6, 6),
        72 * 8 * (27 + 4 * 72),
        5,
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_closed_forms(name):
    module, example, macs, depth = FORMS[name]
    found = cost(module, example)
    assert (found.macs, found.depth, found.uncounted, found.lower_bound) == (macs, depth, (), False)
    assert sum(layer.macs for layer in found.layers) == macs


def test_attention_costs_the_same_in_every_kernel():
    q = X(2, 4, 6, 8)
    with nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH):
        assert cost(attend, (q, q, q)).macs == cost(attend, (q[0], q[0], q[0])).macs * 2
    assert cost(attend, (q, q, q)).macs == 2 * 2 * 4 * 36 * 8


def test_batch_is_counted():
    assert cost(nn.Linear(8, 4), torch.zeros(2, 8)).macs == 64


def test_a_shared_layer_costs_at_every_visit():
    tied = nn.Linear(6, 6)
    found = cost(nn.Sequential(tied, nn.ReLU(), tied, nn.Linear(6, 2)), X(3, 6))
    assert (found.macs, found.params, found.depth) == (3 * (36 + 36 + 12), 42 + 14, 3)
    assert [(x.path, x.call, x.type, x.params, x.macs) for x in found.layers] == [
        ("0", 0, "Linear", 42, 108),
        ("1", 0, "ReLU", 0, 0),
        ("0", 1, "Linear", 42, 108),
        ("3", 0, "Linear", 14, 36),
    ]
    frame = found.to_frame()
    assert list(frame.macs) == [108, 0, 108, 36]
    assert list(frame.output_shape) == [(3, 6)] * 3 + [(3, 2)]


def test_unreached_layers_cost_nothing_but_memory():
    class Exits(nn.Module):
        def __init__(self):
            super().__init__()
            self.early, self.late = nn.Linear(4, 2), nn.Linear(4, 400)

        def forward(self, x):
            return self.early(x)

    found = cost(Exits(), X(1, 4))
    assert (found.macs, found.params, found.bytes) == (8, 2010, 8040)


def test_depth():
    def linears(n):
        return nn.Sequential(*[nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.GELU()) for _ in range(n)])

    def side_by_side(self, x):
        return x + sum(branch(x) for branch in self.branches)

    assert cost(linears(9), X(2, 4)).depth == 9
    group = Do(side_by_side)
    group.branches = nn.ModuleList([linears(1), linears(3), linears(2)])
    assert cost(nn.Sequential(group, group), X(2, 4)).depth == 6
    assert cost(Do(lambda self, x: x * 2), X(2, 4)).depth == 0


def test_depth_through_views_slices_and_writes_in_place():
    def forward(self, x):
        out = torch.zeros(2, 4)
        h = x @ self.w
        out[:, :2] = h.view(2, 4)[:, 2:]
        h = out.relu_().t().contiguous().t()
        state = torch.zeros_like(h) @ self.w  # rests on no input
        return {"y": [h @ self.w + state]}

    assert cost(Do(forward, w=X(4, 4)), X(2, 4)).depth == 2


def test_weights_made_from_weights_are_weights():
    found = cost(Do(lambda self, x: x @ (self.a @ self.b), a=X(4, 2), b=X(2, 5)), X(3, 4))
    assert (found.macs, found.depth) == (4 * 2 * 5 + 3 * 4 * 5, 1)


def test_inference_mode_within_a_module():
    inner = nn.Linear(3, 4)
    assert cost(Do(torch.inference_mode()(lambda self, x: inner(x))), X(2, 3)).macs == 24


def quantised():
    with warnings.catch_warnings():  # torch announces that this interface will go
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(16, 4)), dtype=torch.qint8)


def scaled():
    """An operation that is not torch's."""

    @torch.library.custom_op("shoal_test::scaled", mutates_args=())
    def run(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return x @ w

    return Do(lambda self, x: run(x, self.w), w=X(4, 4))


@pytest.mark.filterwarnings("ignore:Sparse:UserWarning")  # torch calls its CSR support a beta
@pytest.mark.parametrize(
    ("make", "example", "name", "depth"),
    [
        (lambda: nn.Sequential(Do(lambda self, x: torch.fft.rfft2(x))), X(2, 4, 4), "aten._fft_r2c at 0", 0),
        (lambda: Do(sparse_product("coo")), X(4, 3), "aten.mm at Do", 1),
        (lambda: Do(sparse_product("csr")), X(4, 3), "aten.mm at Do", 1),
        (lambda: Do(lambda self, x: torch.cdist(x, self.w), w=X(40, 4)), X(3, 4), "aten._euclidean_dist at Do", 1),
        (lambda: nn.Bilinear(3, 4, 5), (X(2, 3), X(2, 4)), "aten._trilinear at Bilinear", 1),
        (quantised, X(2, 16), "quantized.linear_dynamic at 0", 1),
        (scaled, X(2, 4), "shoal_test.scaled at Do", 1),
    ],
)
def test_what_has_no_formula_is_named(make, example, name, depth):
    found = cost(make(), example)
    assert name in found.uncounted
    assert found.lower_bound
    assert found.depth == depth
    assert "at least" in str(found)
    assert name in str(found)


def test_memory():
    tied = nn.Linear(10, 10, bias=False)
    net = nn.Sequential(tied, nn.BatchNorm1d(10), tied).half()
    net[1].weight.requires_grad_(False)
    found = cost(net, X(2, 10).half())
    assert (found.params, found.trainable, found.buffers) == (120, 110, 21)
    assert found.bytes == 2 * (100 + 4 * 10) + 8
    assert str(found) == "120 params, 400 macs, 288B, depth 2"
    assert 64 <= cost(quantised(), X(2, 16)).bytes < 64 + 40  # one byte a weight, the bias and scales


def test_json():
    found = cost(nn.Linear(2, 2), X(1, 2)).to_json()
    assert (found["macs"], found["layers"][0]["type"], found["uncounted"]) == (4, "Linear", [])


def test_the_module_is_left_as_it_was():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.drop = nn.BatchNorm1d(4), nn.Dropout()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.calls += 1
            return self.drop(self.norm(x.mul_(2))) + torch.randn(4)

    net, x = Counting(), X(3, 4)
    net.drop.eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    given, fast, random = x.clone(), torch.backends.mha.get_fastpath_enabled(), torch.get_rng_state()
    cost(net, x)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.equal(x, given)
    assert torch.equal(torch.get_rng_state(), random)
    assert [part.training for part in net.modules()] == [True, True, False]
    assert torch.backends.mha.get_fastpath_enabled() == fast
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in net.modules())


@pytest.mark.parametrize(
    ("module", "example", "says"),
    [
        (nn.Linear(3, 4), X(2, 5), r"Linear does not run on its example: mat1 and mat2.*; give an example"),
        (nn.Linear(3, 4), [X(2, 3)], "example of type list.*tuple of arguments"),
        (nn.Linear(3, 4), {"x": X(2, 3)}, "unexpected keyword"),
        (nn.LazyLinear(3), X(2, 3), "lazy weights; run it once"),
    ],
)
@pytest.mark.filterwarnings("ignore:Lazy modules:UserWarning")  # torch announces lazy modules as new
def test_failures_are_one_line(module, example, says):
    with pytest.raises(BadModel, match=says) as caught:
        cost(module, example)
    assert "\n" not in str(caught.value)
    assert module.training
    assert not module._forward_hooks or isinstance(module, nn.LazyLinear)


def test_nothing_is_computed_on_meta():
    assert cost(nn.Linear(3, 4).to("meta"), X(2, 3, device="meta")).macs == 24
