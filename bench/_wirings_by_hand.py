"""Wirings as anybody would write them in plain PyTorch: channels first, a loop a wiring, the weights given.

Each takes the wiring's own weights from its module (they are data here) and the layers as callables.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Layers = Sequence[Callable[[Tensor], Tensor]]
Wired = Callable[[Tensor, Layers], Tensor]


def column(weight: Tensor) -> Tensor:
    """A weight a channel, to multiply (batch, channels, height, width) with."""
    return weight.reshape(-1, 1, 1) if weight.dim() else weight


def plain(w: Any) -> Wired:
    def run(x: Tensor, layers: Layers) -> Tensor:
        for layer in layers:
            x = layer(x)
        return x

    return run


def residual(w: Any) -> Wired:
    def run(x: Tensor, layers: Layers) -> Tensor:
        for layer in layers:
            x = x + layer(x)
        return x

    return run


def grouped(w: Any) -> Wired:
    def run(x: Tensor, layers: Layers) -> Tensor:
        for i in range(0, len(layers), 2):
            beside = [layer(x) for layer in layers[i : i + 2]]
            for y in beside:
                x = x + y
        return x

    return run


def looped(w: Any) -> Wired:
    def run(x: Tensor, layers: Layers) -> Tensor:
        for _ in range(2):
            for layer in layers:
                x = x + layer(x)
        return x

    return run


def dense(w: Any) -> Wired:
    def run(x: Tensor, layers: Layers) -> Tensor:
        for layer in layers:
            x = torch.cat([x, layer(x)], 1)
        return x

    return run


def sparse(w: Any) -> Wired:
    def together(seen: list[Tensor]) -> Tensor:
        kept, distance = [], 1
        while distance <= len(seen):
            kept.append(seen[-distance])
            distance *= 2
        return torch.cat(kept[::-1], 1) if len(kept) > 1 else kept[0]

    def run(x: Tensor, layers: Layers) -> Tensor:
        seen = [x]
        for layer in layers:
            seen.append(layer(together(seen)))
        return together(seen)

    return run


def dual_path(w: Any) -> Wired:
    def run(x: Tensor, layers: Layers) -> Tensor:
        r, d = x[:, : w.residual], x[:, w.residual :]
        for layer in layers:
            y = layer(torch.cat([r, d], 1))
            r, d = r + y[:, : w.residual], torch.cat([d, y[:, w.residual :]], 1)
        return torch.cat([r, d], 1)

    return run


def fractal(w: Any) -> Wired:
    def block(x: Tensor, layers: Layers, columns: int) -> Tensor:
        if columns == 1:
            return layers[0](x)
        half = len(layers) // 2
        deep = given(block(x, layers[:half], columns - 1), layers[half:-1], columns - 1)
        return torch.stack([*deep, layers[-1](x)]).mean(0)

    def given(x: Tensor, layers: Layers, columns: int) -> list[Tensor]:
        if columns == 1:
            return [layers[0](x)]
        half = len(layers) // 2
        deep = given(block(x, layers[:half], columns - 1), layers[half:-1], columns - 1)
        return [*deep, layers[-1](x)]

    def run(x: Tensor, layers: Layers) -> Tensor:
        start = 0
        for columns in w.fractals:
            size = 2**columns - 1
            x = block(x, layers[start : start + size], columns)
            start += size
        return x

    return run


def scaled(w: Any) -> Wired:
    def run(x: Tensor, layers: Layers) -> Tensor:
        for layer in layers:
            x = x + w.scale * layer(x)
        return x

    return run


def layer_scale(w: Any) -> Wired:
    scales = [column(scale) for scale in w.scales]

    def run(x: Tensor, layers: Layers) -> Tensor:
        for scale, layer in zip(scales, layers, strict=True):
            x = x + scale * layer(x)
        return x

    return run


def path_ensemble(w: Any) -> Wired:
    weights = [column(weight) for weight in w.weights]

    def run(x: Tensor, layers: Layers) -> Tensor:
        total = weights[0] * x
        for weight, layer in zip(weights[1:], layers, strict=True):
            y = layer(x)
            x = x + y
            total = total + weight * y
        return total

    return run


def ode(w: Any) -> Wired:
    def run(x: Tensor, layers: Layers) -> Tensor:
        for i in range(0, len(layers), w.members):
            group = layers[i : i + w.members]
            for _ in range(w.steps):
                slope = sum(layer(x) for layer in group)
                x = x + slope / w.steps
        return x

    return run


def stochastic(w: Any) -> Wired:
    def run(x: Tensor, layers: Layers) -> Tensor:
        for chance, layer in zip(w.chances, layers, strict=True):
            x = x + chance * layer(x)
        return x

    return run


def node(made: Any) -> Callable[..., Tensor]:
    """A 1x1 convolution, a batch norm and a relu with the weights of a node."""
    weight, norm = made.map.weight[:, :, None, None], made.norm

    def run(*given: Tensor) -> Tensor:
        y = F.conv2d(torch.cat(given, 1) if len(given) > 1 else given[0], weight)
        y = F.batch_norm(y, norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.training, norm.momentum)
        return F.relu(y)

    return run


def cross_stage(w: Any) -> Wired:
    after, behind = node(w.after), node(w.behind)

    def run(x: Tensor, layers: Layers) -> Tensor:
        past, y = x[:, : w.past], x[:, w.past :]
        for layer in layers:
            y = y + layer(y)
        return behind(torch.cat([past, after(y)], 1))

    return run


def iterative(w: Any) -> Wired:
    nodes = [node(made) for made in w.nodes]

    def run(x: Tensor, layers: Layers) -> Tensor:
        x = merged = x + layers[0](x)
        for merge, layer in zip(nodes, layers[1:], strict=True):
            x = x + layer(x)
            merged = merge(merged, x)
        return merged

    return run


def reversible(w: Any) -> Wired:
    gammas = [column(gamma) for gamma in w.gamma]

    def run(x: Tensor, layers: Layers) -> Tensor:
        held = [x] * w.levels
        for i, layer in enumerate(layers):
            level = (i - len(layers)) % w.levels
            seen = held[level - 1] if level else x
            if level + 1 < w.levels:
                seen = seen + held[level + 1]
            held[level] = layer(seen) + gammas[i] * held[level]
        return held[-1]

    return run


class HandLayer(nn.Module):
    """conv, batch norm, relu, conv, with the weights of a layer of shoal's."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        block = layer.block
        hidden, inputs = block.first.weight.shape[:2]
        self.conv1 = nn.Conv2d(inputs, hidden, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(hidden)
        self.conv2 = nn.Conv2d(hidden, block.second.weight.shape[0], 3, padding=1)
        with torch.no_grad():
            self.conv1.weight.copy_(block.first.weight.view_as(self.conv1.weight))
            self.conv2.weight.copy_(block.second.weight.view_as(self.conv2.weight))
            self.conv2.bias.copy_(block.second.bias)
        self.bn.load_state_dict(block.inner.state_dict(), strict=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(F.relu(self.bn(self.conv1(x))))


class HandStage(nn.Module):
    """The layers of a stage and the loop that calls them; (batch, channels, height, width)."""

    def __init__(self, stage: Any, wired: Callable[[Any], Wired]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(HandLayer(layer) for layer in stage.layers)
        self.wiring = stage.wiring  # only its weights are used
        self.run = wired(stage.wiring)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x, list(self.layers))


BY_HAND: dict[str, Callable[[Any], Wired]] = {  # the wiring as it is written in a spec -> how it is written by hand
    "plain": plain,
    "residual": residual,
    "grouped": grouped,
    "looped": looped,
    "dense[growth=16]": dense,
    "sparse[growth=16]": sparse,
    "dual_path[growth=8]": dual_path,
    "fractal[columns=3,drop=0]": fractal,
    "scaled": scaled,
    "layer_scale": layer_scale,
    "path_ensemble": path_ensemble,
    "ode[method=euler]": ode,
    "cross_stage": cross_stage,
    "iterative": iterative,
    "reversible[recompute=false]": reversible,
}
