"""Nets of many families in which it is known what each span does, because it was built to do that.

needed      weights at random, as large as the stream
dead        zero outlets
loopable    the weights of the span before it
duplicate   the weights of a span further up
linear      the identity where the activation would be, and no norm that is not affine
skippable   outlets of a size at which no answer turns over
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shoal.core.scene import Batch
from shoal.core.spans import Visit
from shoal.core.spec import Spec
from shoal.net import Net

PLAN = ("needed", "dead", "needed", "loopable", "duplicate", "linear", "skippable", "needed")
CLASSES, ROWS = 4, 1024

Act = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Planted:
    """A net, batches with what it answers itself as targets, and the word for every visited span."""

    module: nn.Module
    batches: Sequence[Batch]
    truth: dict[Visit, str]


def identity(x: Tensor) -> Tensor:
    """No activation."""
    return x


class Deep(nn.Module):
    """Layers in a row between a way in and a way out; places are averaged before the last. Edges reach every layer."""

    def __init__(self, first: nn.Module, layers: Sequence[nn.Module], last: nn.Module, channels: int = -1) -> None:
        super().__init__()
        self.first, self.layers, self.last, self.channels = first, nn.ModuleList(layers), last, channels

    def forward(self, x: Tensor, edges: Tensor | None = None) -> Tensor:
        x = self.first(x)
        for layer in self.layers:
            x = layer(x) if edges is None else layer(x, edges=edges)
        x = x.movedim(self.channels, -1)
        return self.last(x if x.dim() == 2 else x.flatten(1, -2).mean(dim=1))


class Row(nn.Module):
    """x + down(act(up x))."""

    def __init__(self, dim: int, act: Act) -> None:
        super().__init__()
        self.up, self.down, self.act = nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim), act

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(self.act(self.up(x)))


class Image(nn.Module):
    """x + down(act(norm(up x))) with convolutions, channels first."""

    def __init__(self, dim: int, act: Act) -> None:
        super().__init__()
        self.up, self.norm = nn.Conv2d(dim, dim, 3, padding=1), nn.BatchNorm2d(dim)
        self.down, self.act = nn.Conv2d(dim, dim, 3, padding=1), act

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(self.act(self.norm(self.up(x))))


class Recurrent(nn.Module):
    """x + down(h), h the states of a GRU over the row."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gru, self.down = nn.GRU(dim, dim, batch_first=True), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(self.gru(x)[0])


class LinearRecurrent(nn.Module):
    """x + down(h),  h_t = h_{t-1} / 2 + up x_t."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        states = [self.up(x[:, 0])]
        for step in x.unbind(dim=1)[1:]:
            states.append(states[-1] / 2 + self.up(step))
        return x + self.down(torch.stack(states, dim=1))


class Node(nn.Module):
    """x + down(act(up(mean of the neighbours)))."""

    def __init__(self, dim: int, act: Act) -> None:
        super().__init__()
        self.up, self.down, self.act = nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim), act

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        begin, end = edges
        degrees = torch.bincount(end, minlength=len(x)).clamp_min(1).unsqueeze(1)
        mean = torch.zeros_like(x).index_add(0, end, x[begin]) / degrees
        return x + self.down(self.act(self.up(mean)))


class Fourier(nn.Module):
    """x + down(act(spectral x + up x)): the lowest frequencies through a complex matrix each, channels last."""

    def __init__(self, dim: int, act: Act, modes: int = 3) -> None:
        super().__init__()
        self.modes, self.act = modes, act
        self.spectral = nn.Parameter(torch.zeros(dim, dim, modes, modes, 2))
        self.up, self.down = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        seen = torch.fft.rfft2(x, dim=(1, 2))
        kept = torch.zeros_like(seen)
        low = seen[:, : self.modes, : self.modes]
        weights = torch.view_as_complex(self.spectral.contiguous())
        kept[:, : self.modes, : self.modes] = torch.einsum("bhwi,iohw->bhwo", low, weights)
        y = torch.fft.irfft2(kept, s=x.shape[1:3], dim=(1, 2))
        return x + self.down(self.act(y + self.up(x)))


def encoder_layer(dim: int, linear: bool) -> nn.Module:
    """A layer of torch, norms first; a linear one without norms and with attention that looks at all alike."""
    act: Any = identity if linear else "gelu"
    layer = nn.TransformerEncoderLayer(dim, 2, 2 * dim, 0.0, act, batch_first=True, norm_first=True)
    if linear:
        layer.norm1, layer.norm2 = nn.Identity(), nn.Identity()
    return layer


def shaken(module: nn.Module) -> nn.Module:
    """Every matrix drawn anew, so large that what a layer adds is about as large as its stream."""
    for parameter in module.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=1.5 / (parameter.numel() // len(parameter)) ** 0.5)
    return module.eval()


def plant(layers: Sequence[nn.Module], outlets: Sequence[str]) -> None:
    """Make of layers, built after PLAN, what PLAN says; `outlets` are the matrices whose sum a layer adds."""
    for index, word in enumerate(PLAN):
        if word in ("loopable", "duplicate"):
            layers[index].load_state_dict(layers[index - 1 if word == "loopable" else 0].state_dict())
        elif word in ("dead", "skippable"):
            for path in outlets:
                for parameter in layers[index].get_submodule(path).parameters():
                    parameter.data.mul_(0.0 if word == "dead" else 3e-4)


def grown(make: Callable[[bool], nn.Module], outlets: Sequence[str]) -> list[nn.Module]:
    """A layer for every word of PLAN; `make` is told whether it is to be linear."""
    torch.manual_seed(0)
    layers = [shaken(make(word == "linear")) for word in PLAN]
    plant(layers, outlets)
    return layers


def told(module: nn.Module, examples: Sequence[Any], paths: str = "layers.{}") -> Planted:
    """The net in front of the examples; `paths` is where its layers are."""
    spread_out(module.eval(), examples[0])
    batches = [Batch(example, asked(module, example).argmax(dim=-1)) for example in examples]
    return Planted(module, batches, {Visit(paths.format(i)): word for i, word in enumerate(PLAN)})


def spread_out(module: nn.Module, example: Any) -> None:
    """Set the last bias so that no class is favoured, or all answers might be the same."""
    last = [bias for name, bias in module.named_parameters() if name.endswith("bias") and len(bias) == CLASSES][-1]
    last.data -= asked(module, example).mean(dim=0)


def asked(module: nn.Module, example: Any) -> Tensor:
    """What a module answers."""
    with torch.no_grad():
        found: Tensor = module(**example) if isinstance(example, dict) else module(example)
    return found


def our(text: str, examples: Callable[[], Sequence[Any]], outlets: Sequence[str]) -> Planted:
    """A Net of shoal's, eight layers of one stage; the linear one gets another activation and no norms but affine."""
    torch.manual_seed(0)
    net = shaken(Net(Spec.parse(text)))
    layers = list(net.stages[0].layers)  # type: ignore[union-attr]
    block: Any = layers[PLAN.index("linear")].block
    block.act = identity
    for name in ("before_attention", "before_mlp"):
        if hasattr(block, name):
            setattr(block, name, nn.Identity())
    if hasattr(block, "query"):
        block.query.weight.data.zero_()  # attention that looks at all alike
    plant(layers, outlets)
    return told(net, examples(), "stages.0.layers.{}")


def graph(features: int) -> dict[str, Tensor]:
    """Nodes on a ring, each with an edge to another one besides."""
    nodes = torch.arange(ROWS)
    begin, end = torch.cat((nodes, nodes)), torch.cat((nodes.roll(1), torch.randperm(ROWS)))
    return {"x": torch.randn(ROWS, features), "edges": torch.stack((begin, end))}


def in_context(example: dict[str, Tensor]) -> dict[str, Any]:
    """The same as a Net takes it."""
    return {"x": example["x"], "context": {"edges": example["edges"]}}


def halves(*shape: int) -> list[Tensor]:
    """Two batches of normal numbers."""
    return list(torch.randn(2, ROWS // 2, *shape))


def act_of(linear: bool, act: Act = F.relu) -> Act:
    return identity if linear else act


def mlp() -> Planted:
    layers = grown(lambda linear: Row(12, act_of(linear)), ["down"])
    return told(Deep(nn.Linear(6, 12), layers, nn.Linear(12, CLASSES)), halves(6))


def our_mlp() -> Planted:
    text = "vector[features=6] | residual(mlp norm=none) 8x12 | pool[outputs=4]"
    return our(text, lambda: halves(6), ["block.down"])


def cnn_channels_first() -> Planted:
    layers = grown(lambda linear: Image(8, act_of(linear)), ["down"])
    return told(Deep(nn.Conv2d(2, 8, 3, padding=1), layers, nn.Linear(8, CLASSES), channels=1), halves(2, 6, 6))


def cnn_channels_last() -> Planted:
    text = "convolution[channels=2] | residual(conv) 8x8 | pool[outputs=4]"
    return our(text, lambda: halves(6, 6, 2), ["block.second"])


def torch_transformer() -> Planted:
    layers = grown(lambda linear: encoder_layer(8, linear), ["self_attn.out_proj", "linear2"])
    mix: Any = layers[PLAN.index("linear")]
    mix.self_attn.in_proj_weight.data[:8].zero_()
    return told(Deep(nn.Linear(5, 8), layers, nn.Linear(8, CLASSES)), halves(6, 5))


def our_transformer() -> Planted:
    text = "convolution[channels=5,kernel=[3]] | residual(transformer[heads=2]) 8x8 | pool[outputs=4]"
    return our(text, lambda: halves(6, 5), ["block.out", "block.down"])


def rnn() -> Planted:
    layers = grown(lambda linear: LinearRecurrent(8) if linear else Recurrent(8), ["down"])
    return told(Deep(nn.Linear(5, 8), layers, nn.Linear(8, CLASSES)), halves(6, 5))


def graph_net() -> Planted:
    layers = grown(lambda linear: Node(8, act_of(linear)), ["down"])
    return told(Deep(nn.Linear(5, 8), layers, nn.Linear(8, CLASSES)), [graph(5)])


def our_graph_net() -> Planted:
    text = "vector[features=5] | residual(gcn norm=none) 8x8 | pool[outputs=4]"
    return our(text, lambda: [in_context(graph(5))], ["block.map"])


def fno() -> Planted:
    layers = grown(lambda linear: Fourier(6, act_of(linear, F.gelu)), ["down"])
    fields = [x + 8 * x.mean(dim=(1, 2), keepdim=True) for x in halves(8, 8, 2)]
    return told(Deep(nn.Linear(2, 6), layers, nn.Linear(6, CLASSES)), fields)


FAMILIES: dict[str, Callable[[], Planted]] = {
    make.__name__: make
    for make in (
        mlp,
        our_mlp,
        cnn_channels_first,
        cnn_channels_last,
        torch_transformer,
        our_transformer,
        rnn,
        graph_net,
        our_graph_net,
        fno,
    )
}
