"""Networks for tables, sets and graphs, as people write them by hand; see `families`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 3))


class ResidualMLP(nn.Module):
    """Blocks written with raw functions; dropout asked for by the function."""

    def __init__(self, depth: int = 4, dim: int = 12) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(10, dim), nn.Linear(dim, 3)
        self.ups = nn.ModuleList(nn.Linear(dim, 2 * dim) for _ in range(depth))
        self.downs = nn.ModuleList(nn.Linear(2 * dim, dim) for _ in range(depth))
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        for up, down, norm in zip(self.ups, self.downs, self.norms, strict=True):
            x = x + F.dropout(down(F.gelu(up(norm(x)))), 0.1, training=self.training)
        return self.leave(x)


class SelfNormed(nn.Module):
    """Statistics of the data in buffers; a constant that is no weight."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.full((10,), 0.1))
        self.register_buffer("std", torch.full((10,), 1.5))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.body = nn.Sequential(nn.Linear(10, 28), nn.SELU(), nn.AlphaDropout(0.1), nn.Linear(28, 28), nn.SELU())
        self.head = nn.Linear(28, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.head(self.body((x - self.mean) / self.std))


class Siren(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(10, 20), nn.Linear(20, 20), nn.Linear(20, 20), nn.Linear(20, 2)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in list(self.layers)[:-1]:
            x = torch.sin(3.0 * layer(x))
        return self.layers[-1](x)


class DeepSets(nn.Module):
    """Each element by itself, the sum, and on."""

    def __init__(self) -> None:
        super().__init__()
        self.phi = nn.Sequential(nn.Linear(4, 24), nn.ReLU(), nn.Linear(24, 16))
        self.rho = nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.rho(self.phi(x).sum(dim=1))


class PointNet(nn.Module):
    """Convolutions over points, the largest of each channel, beside each point again."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.bn1 = nn.Conv1d(4, 16, 1), nn.BatchNorm1d(16)
        self.second, self.bn2 = nn.Conv1d(16, 24, 1), nn.BatchNorm1d(24)
        self.third, self.head = nn.Conv1d(40, 16, 1), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        local = F.relu(self.bn1(self.first(x.transpose(1, 2))))
        whole = self.bn2(self.second(local)).max(dim=2, keepdim=True).values
        both = torch.cat([local, whole.expand(-1, -1, local.shape[2])], dim=1)
        return self.head(F.relu(self.third(both)).amax(dim=2))


class Siamese(nn.Module):
    """One encoder for both; their difference and product tell."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, 12))
        self.head = nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        one, other = self.encoder(x[:, 0]), self.encoder(x[:, 1])
        return self.head(torch.cat([(one - other).abs(), one * other], dim=-1))


class TwoTowers(nn.Module):
    """Two embeddings, a product and an MLP side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(11, 8), nn.Embedding(11, 8)
        self.users_mlp, self.items_mlp = nn.Embedding(11, 12), nn.Embedding(11, 12)
        self.mlp, self.head = nn.Sequential(nn.Linear(24, 20), nn.ReLU(), nn.Linear(20, 8)), nn.Linear(16, 3)

    def forward(self, pair: Tensor) -> Tensor:
        user, item = pair[:, 0], pair[:, 1]
        product = self.users(user) * self.items(item)
        deep = self.mlp(torch.cat([self.users_mlp(user), self.items_mlp(item)], dim=-1))
        return self.head(torch.cat([product, deep], dim=-1))


class Experts(nn.Module):
    """Experts with weights by softmax, all of them run."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(10, 4)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 3)) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        every = torch.stack([expert(x) for expert in self.experts], dim=1)
        return (self.gate(x).softmax(-1).unsqueeze(-1) * every).sum(dim=1)


class KANLayer(nn.Module):
    """The form of pykan: a grid of knots for each input, B-splines by recursion, scales and a mask of every edge."""

    def __init__(self, in_dim: int, out_dim: int, num: int = 3, k: int = 2) -> None:
        super().__init__()
        self.in_dim, self.out_dim, self.num, self.k = in_dim, out_dim, num, k
        knots = torch.arange(-k, num + k + 1) * (2.0 / num) - 1
        self.grid = nn.Parameter(knots.expand(in_dim, -1).clone(), requires_grad=False)
        self.coef = nn.Parameter(torch.randn(in_dim, out_dim, num + k) / 4)
        self.scale_base = nn.Parameter(torch.randn(in_dim, out_dim) / in_dim**0.5)
        self.scale_sp = nn.Parameter(torch.ones(in_dim, out_dim))
        self.mask = nn.Parameter(torch.ones(in_dim, out_dim), requires_grad=False)
        self.base_fun = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        grid, x_ = self.grid.unsqueeze(0), x.unsqueeze(2)
        bases = ((x_ >= grid[:, :, :-1]) * (x_ < grid[:, :, 1:])).to(x.dtype)
        for p in range(1, self.k + 1):
            left = (x_ - grid[:, :, : -(p + 1)]) / (grid[:, :, p:-1] - grid[:, :, : -(p + 1)])
            right = (grid[:, :, p + 1 :] - x_) / (grid[:, :, p + 1 :] - grid[:, :, 1:-p])
            bases = left * bases[:, :, :-1] + right * bases[:, :, 1:]
        y = torch.einsum("ijk,jlk->ijl", bases, self.coef)
        y = self.scale_base[None] * self.base_fun(x)[:, :, None] + self.scale_sp[None] * y
        return (self.mask[None] * y).sum(dim=1)


RING = torch.tensor([[0, 1, 2, 3, 4, 5, 0, 2, 4], [1, 2, 3, 4, 5, 0, 3, 5, 1]])


class GraphClassifier(nn.Module):
    """Graphs of one shape, as many as there are rows, in one large graph; layers of PyG."""

    def __init__(self, kind: str, **settings: Any) -> None:
        super().__init__()
        layers = pytest.importorskip("torch_geometric.nn", reason="needs torch_geometric: the layers are its own")
        make = getattr(layers, kind)
        self.register_buffer("edges", torch.cat([RING, RING.flip(0)], dim=1))
        if kind == "GINConv":
            self.convs = nn.ModuleList(
                make(nn.Sequential(nn.Linear(n, 16), nn.ReLU(), nn.Linear(16, 12))) for n in (4, 12, 12)
            )
        else:
            heads = settings.get("heads", 1)
            self.convs = nn.ModuleList(make(n, 12 // heads, **settings) for n in (4, 12, 12))
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        graphs, nodes, _ = x.shape
        edges = self.edges.repeat(1, graphs) + nodes * torch.arange(graphs).repeat_interleave(self.edges.shape[1])
        y = x.reshape(graphs * nodes, -1)
        for conv in self.convs:
            y = F.relu(conv(y, edges))
        return self.head(y.view(graphs, nodes, -1).mean(1))


class Named(nn.Module):
    """Two answers by name."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.a, self.b = nn.Linear(10, 16), nn.Linear(16, 3), nn.Linear(16, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = F.relu(self.body(x))
        return {"classes": self.a(y), "values": self.b(y)}


class Pair(Named):
    """The same in a tuple."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        return tuple(super().forward(x).values())


class Halting(nn.Module):
    """How often it goes round is said by its numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.layer, self.leave = nn.Linear(10, 16), nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        for _ in range(5):
            if float(x.detach().norm()) < 1.0:
                break
            x = x + 0.3 * torch.tanh(self.layer(x))
        return self.leave(x)


class Looped(nn.Module):
    """One layer, six times; the step is told by an embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave, self.steps = nn.Linear(10, 12), nn.Linear(12, 3), nn.Embedding(6, 12)
        self.layer = nn.Sequential(nn.LayerNorm(12), nn.Linear(12, 24), nn.GELU(), nn.Linear(24, 12))

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        for step in range(6):
            x = x + self.layer(x + self.steps.weight[step])
        return self.leave(x)
