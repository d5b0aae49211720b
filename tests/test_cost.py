"""The counter: closed forms, shared and skipped layers, depth, what is said of each operation."""

import copy
import json

import pytest
import torch
from torch import nn

from closed_forms import FORMS, Do, X, quantised
from shoal.core.errors import BadModel
from shoal.costing import cost


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch calls sparse, nested and flexible things a beta
@pytest.mark.parametrize("name", FORMS)
def test_closed_forms(name):
    case = FORMS[name]
    found = cost(case.make(), case.example())
    assert (found.macs, found.depth, found.uncounted, found.lower_bound) == (case.macs, case.depth, (), False)
    for rows in (found.calls, found.operations):
        assert sum(row.macs for row in rows) == found.macs
        assert sum(row.flops for row in rows) == found.flops


def test_attention_costs_the_same_in_every_kernel():
    attend, q = FORMS["attention"].make(), X(2, 4, 6, 8)
    with nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH):
        assert cost(attend, (q, q, q)).macs == cost(attend, (q[0], q[0], q[0])).macs * 2
    assert cost(attend, (q, q, q)).macs == 2 * 2 * 4 * 36 * 8


def test_batch_is_counted():
    assert cost(nn.Linear(8, 4), torch.zeros(2, 8)).macs == 64


def test_a_shared_layer_costs_at_every_visit():
    tied = nn.Linear(6, 6)
    found = cost(nn.Sequential(tied, nn.ReLU(), tied, nn.Linear(6, 2)), X(3, 6))
    assert (found.macs, found.params, found.depth) == (3 * (36 + 36 + 12), 42 + 14, 3)
    assert [(x.path, x.call, x.type, x.params, x.macs) for x in found.calls] == [
        ("0", 0, "Linear", 42, 108),
        ("1", 0, "ReLU", 0, 0),
        ("0", 1, "Linear", 42, 108),
        ("3", 0, "Linear", 14, 36),
    ]
    frame = found.layers
    assert list(frame) == ["path", "call", "type", "input_shape", "output_shape", "params", "macs", "flops", "share"]
    assert list(frame.share) == [3 / 7, 0, 3 / 7, 1 / 7]
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


def test_stored_bytes():
    tied = nn.Linear(10, 10, bias=False)
    net = nn.Sequential(tied, nn.BatchNorm1d(10), tied).half()
    net[1].weight.requires_grad_(False)
    found = cost(net, X(2, 10).half())
    assert (found.params, found.trainable, found.buffers) == (120, 110, 21)
    assert found.bytes == 2 * (100 + 4 * 10) + 8
    assert str(found) == "120 params, 400 macs, 288B, depth 2"
    assert (
        64 <= cost(quantised(nn.Sequential(nn.Linear(16, 4)), nn.Linear), X(2, 16)).bytes < 64 + 40
    )  # one byte a weight, the bias and scales


def test_json():
    found = cost(nn.Linear(2, 2), X(1, 2)).to_json()
    assert json.loads(json.dumps(found)) == {
        "params": 6, "trainable": 6, "buffers": 0, "macs": 4, "flops": 8, "bytes": 24,
        "activation_bytes": {"inference": 8, "training": 8, "reason": ""}, "depth": 1, "module_calls": 1,
        "layers": [
            {"path": "", "call": 0, "type": "Linear", "input_shape": [1, 2], "output_shape": [1, 2], "params": 6,
             "macs": 4, "flops": 8}
        ],
        "uncounted": [],
    }  # fmt: skip


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
    net = nn.Sequential(nn.Linear(3, 4), nn.LSTM(4, 5))
    real, meta = cost(net, X(2, 3)), cost(copy.deepcopy(net).to("meta"), X(2, 3))  # the example follows the module
    assert (meta.macs, meta.params, meta.depth) == (real.macs, real.params, real.depth)
    assert cost(nn.Linear(3, 4).to("meta"), X(2, 3, device="meta")).macs == 24


def test_what_depends_on_the_data_is_counted_as_it_runs():
    branch = Do(lambda self, x: self.layer(x) if x.sum() > 0 else x)
    branch.layer = nn.Linear(4, 4)
    assert cost(branch, torch.ones(2, 4)).macs == 32
    assert cost(branch, -torch.ones(2, 4)).macs == 0
