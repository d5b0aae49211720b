"""Layout: convolutions learn with their channels last where that changes nothing, and are put back afterwards."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import shoal
from laid_out import images, last
from shoal.training import TrainingRecipe
from shoal.training.layout import lay_out, put_back
from shoal.training.loop import fit

RECIPE = TrainingRecipe(optimizer="sgd", lr=0.1, epochs=1, batch=16)


class Viewing(nn.Module):
    """Asks for a view of its states that there is none of with channels last."""

    def __init__(self, only_in_training: bool = False) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4 * 36, 2)
        self.only = only_in_training

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        flat = x.reshape(len(x), -1) if self.only and not self.training else x.view(len(x), -1)
        answer: Tensor = self.head(flat)
        return answer


def plain() -> nn.Module:
    torch.manual_seed(0)
    body = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 4, 3)
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(4 * 4, 2))


def test_a_plain_module_is_laid_out_and_put_back() -> None:
    net, (x, _) = plain().eval(), images(64)
    weights = {name: value.clone() for name, value in net.state_dict().items()}
    with torch.no_grad():
        before = net(x)
        moved = lay_out(net, x)
        assert len(moved) == 2  # the depthwise one stays
        assert all(last(one) for one in moved)
        torch.testing.assert_close(net(x), before)
    put_back(moved)
    for name, value in net.state_dict().items():
        assert value.is_contiguous()
        assert torch.equal(value, weights[name]), name


def test_what_asks_for_a_view_stays_as_it_is() -> None:
    for net in (Viewing().train(), Viewing(only_in_training=True).train()):
        assert lay_out(net, images(64)[0]) == ()
        assert not last(net.conv.weight)
        assert net.training


def test_looking_leaves_no_mark() -> None:
    net = plain().train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.random.get_rng_state()
    put_back(lay_out(net, images(64)[0]))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert net.training


def test_training_lays_out_while_it_lasts() -> None:
    data = shoal.open_data((*images(64), *images(64)), as_given=True)
    for net, moves in ((plain(), True), (Viewing(), False)):
        conv = next(part for part in net.modules() if isinstance(part, nn.Conv2d))
        laid = [last(conv.weight) for _ in fit(net, data, RECIPE)]
        assert laid, "no step was made"
        assert set(laid) == {moves}
        assert not last(conv.weight)


def test_it_learns_the_same() -> None:
    """As the module that refuses to be laid out: its depthwise twin in numbers, in the other layout."""
    data = shoal.open_data((*images(64), *images(64)), as_given=True)

    class Asking(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            first = self[0](x)
            first.view(-1)
            return super().forward(x)

    ours, other = plain(), Asking(*plain())
    for net in (ours, other):
        for _ in fit(net, data, RECIPE):
            pass
    for one, two in zip(ours.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4)
