"""Activations alive at once: closed forms in inference and in training, and a module that is left as it was."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from closed_forms import X, do, quantised
from shoal.costing import cost

ROWS, WIDTH = 4, 16
UNIT = 4 * ROWS * WIDTH  # bytes of one activation


def chain(depth, act, last=True):
    layers = [part for _ in range(depth) for part in (nn.Linear(WIDTH, WIDTH), act())]
    return nn.Sequential(*(layers if last else layers[:-1]))


def units(module, x=None):
    """Both peaks, in activations."""
    found = cost(module, X(ROWS, WIDTH) if x is None else x).activation_bytes
    assert found.reason == ""
    return found.inference / UNIT, found.training / UNIT


@pytest.mark.parametrize("depth", [1, 2, 7])
def test_a_chain_keeps_what_backward_reads(depth):
    assert units(chain(depth, nn.ReLU)) == (2, depth + 1)  # relu's outputs, and the last input of one
    assert units(chain(depth, nn.GELU)) == (2, 2 * depth)  # gelu's inputs, and its outputs, which linears read
    inference = 1 if depth == 1 else 2
    assert units(chain(depth, lambda: nn.ReLU(inplace=True))) == (inference, depth)
    assert units(chain(depth, nn.ReLU, last=False)) == (inference, depth)


def test_a_residual_holds_the_stream():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))

        def forward(self, x):
            return x + self.body(x)

    assert units(Block()) == (2, 3)  # the stream is the input itself: not made by the run
    for depth in (2, 5):  # a block leaves the stream and relu's output behind, and its own three come on top
        assert units(nn.Sequential(*(Block() for _ in range(depth)))) == (3, 2 * (depth - 1) + 3)


def test_views_and_writes_in_place_make_nothing():
    assert units(do(lambda _, x: x.view(-1).relu_()[:3].expand(5, 3).t())()) == (0, 0)
    assert units(do(lambda _, x: F.relu(x.t().reshape(2, -1), inplace=True))()) == (1, 1)  # reshape has to copy
    assert units(do(lambda _, x: (x + 1).mul_(2).view(-1))()) == (1, 1)


def test_frozen_weights_keep_nothing():
    assert units(chain(5, nn.ReLU).requires_grad_(False)) == (2, 2)


def test_half_as_many_bytes():
    assert units(chain(3, nn.ReLU).bfloat16(), X(ROWS, WIDTH).bfloat16()) == (1, 2)
    assert units(chain(3, nn.ReLU).to("meta")) == (2, 4)


def test_dropout_works_in_training_only():
    chained = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Dropout())
    assert units(chained)[0] == 1
    assert 2 < units(chained)[1] <= 3  # what goes in, what comes out, and the mask while it is drawn


def test_sparse_tensors_are_their_parts():
    found = cost(do(lambda _, x: x.to_sparse())(), torch.eye(8)).activation_bytes
    assert found.inference >= 8 * (2 * 8 + 4)  # indices and values of eight numbers


def test_what_does_not_train_says_why():
    found = cost(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), X(1, 4)).activation_bytes
    assert (found.inference, found.training) == (2 * 16, None)
    assert "more than 1 value per channel" in found.reason
    saved = cost(nn.Linear(4, 4), X(1, 4), training=False).activation_bytes
    assert (saved.inference, saved.training, saved.reason) == (16, None, "not asked for")
    assert cost(quantised(nn.Sequential(nn.Linear(16, 4)), nn.Linear), X(2, 16)).activation_bytes.inference == 32


def test_a_run_in_training_leaves_no_mark():
    class Marked(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.drop, self.layer = nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 4)
            self.still = nn.Parameter(X(4), requires_grad=False)
            self.register_buffer("calls", torch.zeros(()))
            self.register_buffer("mean", torch.zeros(4))

        def forward(self, x):
            self.calls += 1
            self.mean = self.mean + x.mean(0)  # another tensor in the buffer's place
            with torch.no_grad():
                self.still.mul_(0.9)
            return self.drop(self.norm(self.layer(x.mul_(2)))) + self.still

    net, x = Marked(), X(3, 4)
    net.norm.eval()
    net(x.clone()).sum().backward()
    objects = [*net.named_parameters(), *net.named_buffers()]
    values = [value.detach().clone() for _, value in objects]
    grads = [parameter.grad for parameter in net.parameters()]
    gradients = [grad.clone() for grad in grads if grad is not None]
    given, random = x.clone(), torch.get_rng_state()
    assert cost(net, x).activation_bytes.training is not None
    after = [*net.named_parameters(), *net.named_buffers()]
    assert all(name == other and one is two for (name, one), (other, two) in zip(objects, after, strict=True))
    assert all(torch.equal(one, value) for (_, one), value in zip(after, values, strict=True))
    assert all(one.grad is grad for one, grad in zip(net.parameters(), grads, strict=True))
    assert all(torch.equal(*pair) for pair in zip([g for g in grads if g is not None], gradients, strict=True))
    assert not net.still.requires_grad
    assert torch.equal(x, given)
    assert torch.equal(torch.get_rng_state(), random)
    assert [part.training for part in net.modules()] == [True, False, True, True]


def test_a_failure_leaves_no_mark_either():
    class Fails(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(4)

        def forward(self, x):
            if self.norm(x) is not None and self.training:
                raise KeyError("targets")
            return x

    net = Fails()
    before = net.norm.running_mean.clone()
    assert cost(net, X(3, 4)).activation_bytes.reason == "'targets'"
    assert torch.equal(net.norm.running_mean, before)
    assert net.training
