"""What is said of each operation: flops by the written conventions, shapes, settings and bytes moved."""

import pytest
import torch
from torch import nn

from closed_forms import FORMS, Do, X, do, quantised
from shoal.costing import cost

FLOPS = {  # on x of (2, 8, 4, 4), 256 numbers
    "conv": (nn.Conv2d(8, 8, 1), 2 * 256 * 8),
    "relu": (nn.ReLU(), 256),
    "relu in place": (nn.ReLU(inplace=True), 256),
    "sigmoid": (nn.Sigmoid(), 4 * 256),
    "gelu": (nn.GELU(), 5 * 256),
    "glu": (nn.GLU(1), 5 * 128),
    "softmax": (nn.Softmax(-1), 5 * 256),
    "batch norm": (nn.BatchNorm2d(8), 2 * 256),
    "layer norm": (nn.LayerNorm(4), 7 * 256),
    "group norm": (nn.GroupNorm(2, 8), 7 * 256),
    "max pool": (nn.MaxPool2d(2), 4 * 64),
    "average pool": (nn.AvgPool2d(2), 4 * 64),
    "global pool": (nn.AdaptiveAvgPool2d(1), 256),
    "bilinear resampling": (nn.Upsample(scale_factor=2, mode="bilinear"), 8 * 1024),
    "nearest": (nn.Upsample(scale_factor=2), 0),
    "flatten": (nn.Flatten(), 0),
    "dropout in eval": (nn.Dropout(), 0),
    "residual": (Do(lambda self, x: x + 2 * x.tanh()), 3 * 256),
    "written in place": (Do(lambda self, x: x.clone().mul_(2).add_(x)), 2 * 256),
    "masked": (Do(lambda self, x: x.masked_fill_(x > 0, 0)), 2 * 256),
    "sum": (Do(lambda self, x: x.sum(-1)), 256),
    "variance": (Do(lambda self, x: x.var(-1)), 4 * 256),
    "gather": (Do(lambda self, x: x[:, [0, 1]].flip(-1).sort().values), 0),
    "complex": (Do(lambda self, x: torch.complex(x, x) * torch.complex(x, x)), 6 * 256),
    "outer": (Do(lambda self, x: (x.flatten()[:, None] * torch.ones(3)).sum(-1)), 2 * 3 * 256),
    "attention": (FORMS["attention"].make(), 2 * 2 * 16 * 16 * 4 + 5 * 16 * 16),
}


@pytest.mark.parametrize("name", FLOPS)
def test_flops(name):
    module, flops = FLOPS[name]
    x = X(2, 8, 4, 4)
    found = cost(module, (x,) * 3 if name == "attention" else x)
    assert (found.flops, found.uncounted) == (flops, ())


def test_operations_are_told_as_they_are():
    net = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(32, 5))
    found = cost(net, X(1, 3, 4, 4))
    assert found.module_calls == 5  # the container too
    told = {op.name: op for op in found.operations if op.flops}
    assert list(told) == ["aten.convolution", "aten.native_batch_norm", "aten.addmm"]
    conv, norm, linear = told.values()
    assert (conv.path, conv.call, conv.inputs, conv.output) == (
        "0",
        0,
        ((1, 3, 4, 4), (8, 3, 3, 3), (8,)),
        (1, 8, 2, 2),
    )
    assert conv.settings == ((2, 2), (1, 1), (1, 1), False, (0, 0), 1)
    assert (conv.macs, conv.moved, conv.dtype) == (8 * 4 * 27, 4 * (48 + 216 + 8 + 32), "float32")
    assert norm.moved == 4 * (32 + 4 * 8 + 32)
    assert (linear.inputs, linear.settings) == (((5,), (1, 32), (32, 5)), (1, 1))
    assert not any("view" in op.name or op.name == "aten.t" for op in found.operations)


def test_bytes_moved():
    def moved(function, x):
        return cost(do(function)(), x).operations[-1].moved

    assert moved(lambda _, x: x + 1, X(4, 8)) == 4 * (32 + 32)
    assert moved(lambda _, x: x * x, X(4, 8)) == 4 * (32 + 32)
    assert moved(lambda _, x: x + x[:1].expand(4, 8), X(4, 8)) == 4 * (32 + 8 + 32)
    assert moved(lambda _, x: x.relu_(), X(4, 8)) == 4 * (32 + 32)
    assert moved(lambda _, x: x[torch.tensor([0, 1])], X(1000, 8)) == 4 * (16 + 16) + 2 * 8
    packed = cost(quantised(nn.Sequential(nn.Linear(16, 4)), nn.Linear), X(2, 16)).operations[-1]
    assert (packed.inputs, packed.moved) == (((2, 16), (4, 16)), 4 * 32 + 64 + 4 * 8)
