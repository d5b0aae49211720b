"""Networks for images, as people write them by hand; see `families`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def lenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2),
        nn.Conv2d(6, 16, 3, padding=1), nn.Tanh(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(64, 24), nn.Tanh(), nn.Linear(24, 16), nn.Tanh(), nn.Linear(16, 3),
    )  # fmt: skip


def conv_norm_relu(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class VGG(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = 3
        for size in (8, 8, "M", 12, 12, "M"):
            layers.append(nn.MaxPool2d(2) if isinstance(size, str) else conv_norm_relu(width, size))
            width = width if isinstance(size, str) else size
        self.features, self.avgpool = nn.Sequential(*layers), nn.AdaptiveAvgPool2d(2)
        self.classifier = nn.Sequential(
            nn.Linear(48, 32), nn.ReLU(True), nn.Dropout(), nn.Linear(32, 32), nn.ReLU(True), nn.Dropout(),
            nn.Linear(32, 3),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        x = self.avgpool(self.features(x))
        return self.classifier(torch.flatten(x, 1))


class AlexNet(nn.Module):
    """A wide first kernel, responses normed across channels, dropout before the large matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 5, 2, 2), nn.ReLU(inplace=True), nn.LocalResponseNorm(3), nn.MaxPool2d(3, 1),
            nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(12, 12, 3, padding=1, groups=2),
            nn.ReLU(inplace=True),
        )  # fmt: skip
        self.classifier = nn.Sequential(nn.Dropout(), nn.Linear(48, 24), nn.ReLU(), nn.Dropout(), nn.Linear(24, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        return self.classifier(x.view(x.size(0), -1))


def mobilenet() -> nn.Module:
    """Depthwise and pointwise in turn."""
    return nn.Sequential(
        conv_norm_relu(3, 8),
        conv_norm_relu(8, 8, groups=8), conv_norm_relu(8, 16, 1),
        conv_norm_relu(16, 16, stride=2, groups=16), conv_norm_relu(16, 16, 1),
        conv_norm_relu(16, 16, groups=16), conv_norm_relu(16, 16, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3),
    )  # fmt: skip


class Inverted(nn.Module):
    """MobileNetV2's block: wide inside, linear at its end, a skip where the shape stays."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.use_res_connect = stride == 1 and inputs == outputs
        hidden = inputs * 3
        self.conv = nn.Sequential(
            nn.Conv2d(inputs, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6(inplace=True),
            nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False), nn.BatchNorm2d(hidden),
            nn.ReLU6(inplace=True), nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.use_res_connect else self.conv(x)


def mobilenet_v2() -> nn.Module:
    blocks = [Inverted(8, 8, 1), Inverted(8, 12, 2), Inverted(12, 12, 1)]
    return nn.Sequential(
        conv_norm_relu(3, 8), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(12, 3)
    )


class ShuffleBlock(nn.Module):
    """ShuffleNet: grouped 1 x 1, channels shuffled, depthwise, grouped 1 x 1, and the skip."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.groups, inner = groups, width // 2
        self.compress, self.norm1 = nn.Conv2d(width, inner, 1, groups=groups, bias=False), nn.BatchNorm2d(inner)
        self.depth, self.norm2 = (
            nn.Conv2d(inner, inner, 3, padding=1, groups=inner, bias=False),
            nn.BatchNorm2d(inner),
        )
        self.expand, self.norm3 = nn.Conv2d(inner, width, 1, groups=groups, bias=False), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.compress(x)))
        b, c, h, w = y.shape
        y = y.view(b, self.groups, c // self.groups, h, w).transpose(1, 2).contiguous().view(b, -1, h, w)
        return F.relu(x + self.norm3(self.expand(self.norm2(self.depth(y)))))


def shufflenet() -> nn.Module:
    blocks = [ShuffleBlock(24, 2) for _ in range(3)]
    return nn.Sequential(conv_norm_relu(3, 24), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 3))


class DenseLayer(nn.Module):
    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, 2 * growth, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(2 * growth), nn.Conv2d(2 * growth, growth, 3, padding=1, bias=False)

    def forward(self, features: list[Tensor]) -> Tensor:
        y = self.conv1(F.relu(self.norm1(torch.cat(features, 1))))
        return self.conv2(F.relu(self.norm2(y)))


class DenseNet(nn.Module):
    """Blocks whose layers read all before them, and a transition that halves channels and places."""

    def __init__(self, growth: int = 6, layers: int = 2) -> None:
        super().__init__()
        self.stem, width = nn.Conv2d(3, 8, 3, padding=1, bias=False), 8
        self.blocks, self.transitions = nn.ModuleList(), nn.ModuleList()
        for _ in range(2):
            self.blocks.append(nn.ModuleList(DenseLayer(width + i * growth, growth) for i in range(layers)))
            width += layers * growth
            self.transitions.append(
                nn.Sequential(
                    nn.BatchNorm2d(width), nn.ReLU(inplace=True), nn.Conv2d(width, width // 2, 1), nn.AvgPool2d(2)
                )
            )
            width //= 2
        self.classifier = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block, transition in zip(self.blocks, self.transitions, strict=True):
            features = [x]
            for layer in block:
                features.append(layer(features))
            x = transition(torch.cat(features, 1))
        return self.classifier(x.mean((2, 3)))


class InceptionBlock(nn.Module):
    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch1 = conv_norm_relu(inputs, 6, 1)
        self.branch3 = nn.Sequential(conv_norm_relu(inputs, 6, 1), conv_norm_relu(6, 8))
        self.branch5 = nn.Sequential(conv_norm_relu(inputs, 4, 1), conv_norm_relu(4, 4), conv_norm_relu(4, 6))
        self.pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), conv_norm_relu(inputs, 4, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in (self.branch1, self.branch3, self.branch5, self.pool)], 1)


def inception() -> nn.Module:
    return nn.Sequential(
        conv_norm_relu(3, 8), InceptionBlock(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(24, 3),
    )  # fmt: skip


class Fire(nn.Module):
    def __init__(self, inputs: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.expand1x1, self.expand3x3 = nn.Conv2d(squeeze, expand, 1), nn.Conv2d(squeeze, expand, 3, padding=1)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.squeeze(x))
        return torch.cat([self.activation(self.expand1x1(x)), self.activation(self.expand3x3(x))], 1)


def squeezenet() -> nn.Module:
    """Its answers come from a last convolution, pooled."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(inplace=True), Fire(16, 6, 8), Fire(16, 6, 8), nn.Dropout(0.5),
        nn.Conv2d(16, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


class Bottleneck(nn.Module):
    """A bottleneck with a projection where the shape changes; grouped it is ResNeXt's, with a gate SE's."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, groups: int = 1, gate: bool = False) -> None:
        super().__init__()
        inner = outputs // 2
        self.conv1, self.bn1 = nn.Conv2d(inputs, inner, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3, self.bn3 = nn.Conv2d(inner, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.relu, self.downsample, self.se = nn.ReLU(inplace=True), None, None
        if stride > 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        if gate:
            self.se = nn.Sequential(
                nn.AdaptiveAvgPool2d(1), nn.Conv2d(outputs, outputs // 4, 1), nn.ReLU(inplace=True),
                nn.Conv2d(outputs // 4, outputs, 1), nn.Sigmoid(),
            )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(out)))))
        if self.se is not None:
            out = out * self.se(out)
        out += identity
        return self.relu(out)


def bottlenecks(**settings: Any) -> nn.Module:
    blocks = [Bottleneck(12, 16, **settings), Bottleneck(16, 16, **settings)]
    late = [Bottleneck(16, 24, 2, **settings), Bottleneck(24, 24, **settings)]
    return nn.Sequential(
        conv_norm_relu(3, 12), nn.Sequential(*blocks), nn.Sequential(*late), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(24, 3),
    )  # fmt: skip


class ConvNeXtBlock(nn.Module):
    """Channels last inside, a learned scale at the end."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv, self.norm = nn.Conv2d(dim, dim, 3, padding=1, groups=dim), nn.LayerNorm(dim, eps=1e-6)
        self.pwconv1, self.act, self.pwconv2 = nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim)
        self.gamma = nn.Parameter(0.1 * torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        y = self.gamma * self.pwconv2(self.act(self.pwconv1(y)))
        return x + y.permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.blocks = nn.Conv2d(3, 12, 2, 2), nn.Sequential(*(ConvNeXtBlock(12) for _ in range(3)))
        self.norm, self.head = nn.LayerNorm(12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.stem(x)).mean([-2, -1])))


class RepVGGBlock(nn.Module):
    """Three branches of one shape, added."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.three, self.bn3 = nn.Conv2d(dim, dim, 3, padding=1, bias=False), nn.BatchNorm2d(dim)
        self.one, self.bn1, self.bn0 = nn.Conv2d(dim, dim, 1, bias=False), nn.BatchNorm2d(dim), nn.BatchNorm2d(dim)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn3(self.three(x)) + self.bn1(self.one(x)) + self.bn0(x))


def repvgg() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, 2, 1), *(RepVGGBlock(12) for _ in range(3)), nn.AdaptiveMaxPool2d(1), nn.Flatten(),
        nn.Linear(12, 3),
    )  # fmt: skip


class Highway(nn.Module):
    """A gate that says how much of the layer is taken and how much passes by."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.plain, self.gate = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        t = torch.sigmoid(self.gate(x))
        return t * F.relu(self.plain(x)) + (1 - t) * x


class Autoencoder(nn.Module):
    """Convolutions down, transposed ones up."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 12, 3, 2, 1), nn.ReLU())
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(12, 8, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(8, 1, 4, 2, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))


class VAE(nn.Module):
    """Draws in training; in eval the mean is taken."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.mean, self.scale = nn.Linear(10, 24), nn.Linear(24, 6), nn.Linear(24, 6)
        self.leave = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 10))

    def forward(self, x: Tensor) -> Tensor:
        y = F.elu(self.enter(x))
        mean, scale = self.mean(y), self.scale(y)
        z = mean + torch.randn_like(mean) * (0.5 * scale).exp() if self.training else mean
        return self.leave(z)
