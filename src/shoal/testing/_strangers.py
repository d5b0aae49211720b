"""Strangers: small modules of six families in front of data, for what looks at modules from outside."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shoal.anatomy import anatomy
from shoal.core.base import Task
from shoal.core.part import Part
from shoal.core.scene import Batch, Scene, cut
from shoal.core.spec import Spec
from shoal.kinds import TASKS
from shoal.net import Net

ROWS, CLASSES = 8, 3


class _Rows(nn.Module):
    """A residual stack on rows, as strangers write it."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = nn.ModuleList(nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 6)) for _ in range(3))
        self.last = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Any:
        for step in self.steps:
            x = x + step(x)
        return self.last(x)


class _Image(nn.Module):
    """relu(x + f(x)) with convolutions and batch norms, channels first, in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu_(x + self.second(F.relu(self.norm(self.first(x)), inplace=True)))


class _Images(nn.Module):
    """Three of them and a pool."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.last = nn.Conv2d(2, 4, 3, padding=1), nn.Linear(4, CLASSES)
        self.layers = nn.Sequential(*(_Image() for _ in range(3)))

    def forward(self, x: Tensor) -> Any:
        return self.last(self.layers(self.stem(x)).mean(dim=(2, 3)))


class _Words(nn.Module):
    """Two LSTMs one behind the other, the second on a stream; an answer at every place."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.last = nn.Embedding(CLASSES, 8), nn.Linear(8, CLASSES)
        self.first, self.second = (nn.LSTM(8, 8, batch_first=True) for _ in range(2))

    def forward(self, x: Tensor) -> Any:
        y = self.first(self.embed(x))[0]
        return self.last(y + self.second(y)[0])


class _Looped(nn.Module):
    """One step three times, on what was written to in between, then another; called by name, a dict comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.step, self.end = (nn.Sequential(nn.Linear(6, 6), nn.Tanh()) for _ in range(2))

    def forward(self, x: Tensor, scale: Tensor) -> dict[str, Tensor]:
        for _ in range(3):
            x = x + self.step(x)
            x += 0.1
        return {"logits": self.end(x) * scale}


def _encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.1)
    return nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)


def _net() -> nn.Module:
    return Net(Spec.parse(f"convolution[channels=2] | residual(conv) 3x6 | pool[outputs={CLASSES}]"))


def scenes() -> Iterator[tuple[str, Scene]]:
    """Each with two batches; with targets and without, tensors and dicts."""
    classes, words = (
        TASKS.make(Part(name, {setting: CLASSES}))
        for name, setting in (("classification", "classes"), ("next_token", "vocabulary"))
    )
    one = torch.ones(1)
    yield "rows", _scene(_Rows(), [torch.randn(ROWS, 6) for _ in range(2)], classes, ())
    yield "images", _scene(_Images(), [torch.randn(ROWS, 2, 5, 4) for _ in range(2)], classes, ())
    yield "words", _scene(_Words(), [torch.randint(0, CLASSES, (ROWS, 6)) for _ in range(2)], words, (6,))
    yield "net", _scene(_net(), [torch.randn(ROWS, 5, 4, 2) for _ in range(2)], classes, ())
    yield "encoder", _scene(_encoder(), [torch.randn(ROWS, 5, 8) for _ in range(2)], None, None)
    yield "looped", _scene(_Looped(), [{"x": torch.randn(ROWS, 6), "scale": one} for _ in range(2)], None, None)


def dead() -> Scene:
    """A residual net whose layers add nothing."""
    net = Net(Spec.parse('vector[features=5] | residual(mlp) 4x8 | pool[norm="none",outputs=3]'))
    with torch.no_grad():
        for name, parameter in net.stages.named_parameters():
            if ".down." in name:
                parameter.zero_()
    return _scene(net, [torch.randn(4 * ROWS, 5)], None, None)


def _scene(module: nn.Module, examples: list[Any], task: Task | None, places: tuple[int, ...] | None) -> Scene:
    targets = [None if places is None else torch.randint(0, CLASSES, (ROWS, *places)) for _ in examples]
    batches = tuple(Batch(example, target) for example, target in zip(examples, targets, strict=True))
    return Scene(module, anatomy(module, cut(batches[0], 2).example), batches, task)


class Kept:
    """A module as it is, to be compared with what it is later: weights, gradients, flags, hooks, what is replaced."""

    def __init__(self, module: nn.Module) -> None:
        self.module, self.random = module, torch.get_rng_state()
        self.state = {name: value.clone() for name, value in module.state_dict().items()}
        self.grads = {name: one.grad for name, one in module.named_parameters()}
        self.values = {name: None if grad is None else grad.clone() for name, grad in self.grads.items()}
        self.marks = self._marks()

    def _marks(self) -> list[Any]:
        parts = [
            (path, part.training, sorted(part.__dict__), len(part._forward_hooks), len(part._forward_pre_hooks))
            for path, part in self.module.named_modules()
        ]
        return [*parts, *((name, one.requires_grad) for name, one in self.module.named_parameters())]

    def changed(self) -> str:
        """What is no longer as it was; "" where all is."""
        now = self.module.state_dict()
        for name, value in self.state.items():
            if not torch.equal(now[name], value):
                return f"{name} was changed"
        for name, one in self.module.named_parameters():
            grad, before = one.grad, self.values[name]
            same = grad is self.grads[name] and (grad is None or before is None or torch.equal(grad, before))
            if not same:
                return f"the gradient of {name} was changed"
        if self.marks != self._marks():
            return "a flag, a hook or an attribute was changed"
        if not torch.equal(torch.get_rng_state(), self.random):
            return "the random state was changed"
        return "" if torch.backends.mha.get_fastpath_enabled() else "the fast path of attention was switched off"


def unsettled(module: nn.Module) -> Kept:
    """The module in a mode of its own, with gradients and a frozen weight; and what it then is."""
    module.train()
    next(iter(module.children())).eval()
    first, *_, last = module.parameters()
    first.requires_grad_(False)
    last.grad = torch.ones_like(last)
    return Kept(module)
