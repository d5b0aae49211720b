"""Reliable: a net that sees no edges learns a graph net's answers, and those of neighbours that can be relied on.

    rho_v  = |H(x + noise)_v - H(x)_v| / the largest,    H: entropy of the teacher's softened answer at a node
    p_v    = 1 - rho_v^a                                 the chance that v teaches its neighbours
    loss   = labels * task loss + (1 - labels) * (distance(net_v, teacher_v) + distance(net_v, teacher_w))

Distances are means: the first over all nodes, the second, from the call ``begin`` on, over the edges from w to v that
were drawn. The exponent a follows the net: the share of nodes that answer as the teacher does, by rho in ``bins``
classes and scaled to 0..1, is fitted by 1 - rho^a, and a moves a tenth of the way there with every call. A call is an
epoch where a batch holds all labelled nodes, as it does in the default recipe for graphs.

Without the second distance this is `graph_free`. It remembers a and the number of calls: a run that goes on from a
checkpoint begins both anew.

Papers   quantifying-the-knowledge-in-gnns-for
"""

from __future__ import annotations

import math

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, nn

from shoal.core.base import Task
from shoal.core.errors import BadModel, BadSetting
from shoal.core.example import evaluating
from shoal.data import Graph
from shoal.kinds import TASKS
from shoal.net import Net
from shoal.training.graphs import OnGraph, read_of_graphs

MOMENTUM = 0.9  # of the exponent
WIDEST = math.log(100.0)  # of its logarithm
SURE = 1e-12  # an entropy that never changes by more is that of a teacher who is sure everywhere


class Reliable:
    """An objective for `fit`. Settings: `labels`, the task's share of the loss; `temperature`, how much answers are
    softened; `noise`, its deviation; `begin`, the first call at which neighbours teach; `bins`, classes of rho; `seed`,
    of the noise and of what is drawn."""

    def __init__(
        self,
        task: Task,
        teacher: Net,
        graph: Graph,
        *,
        labels: float = 0.0,
        temperature: float = 1.0,
        noise: float = 1.0,
        begin: int = 50,
        bins: int = 50,
        seed: int = 0,
    ) -> None:
        if not 0 <= labels <= 1:
            raise BadSetting(f"reliable: labels={labels} must be a share, from 0 to 1")
        if not (temperature > 0 and noise > 0):
            raise BadSetting(f"reliable: temperature={temperature} and noise={noise} must be above 0")
        if begin < 0 or bins < 2:
            raise BadSetting(f"reliable: begin={begin}, bins={bins}; begin at 0 or later, with at least 2 bins")
        if not isinstance(task, TASKS.get("classification")):
            raise BadSetting(f"reliable: task {type(task).__name__} has no classes to be sure of; use graph_free")
        self.task, self.labels, self.temperature, self.begin, self.bins = task, labels, temperature, begin, bins
        self.x, self.edges = graph.x, graph.edges[:, graph.edges[0] != graph.edges[1]]
        self.draws = torch.Generator().manual_seed(seed)
        shaken = graph.x + noise * torch.randn(graph.x.shape, generator=self.draws).to(graph.x)
        nodes = torch.arange(len(graph.x), device=graph.x.device)
        with evaluating(teacher), torch.no_grad():
            self.answers: Tensor = OnGraph(teacher, graph)(nodes)
            moved: Tensor = OnGraph(teacher, Graph(shaken, graph.edges))(nodes)
        self.rho = unreliable(self.answers / temperature, moved / temperature)
        self.exponent, self.calls = 1.0, 0

    def __call__(self, net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """The loss of a batch of labelled rows, and of all nodes."""
        if read_of_graphs(net):
            raise BadModel("reliable: the net reads edges; give one that does without, such as residual(mlp) 2x128")
        answers, rho = self.answers.to(y.device), self.rho.to(y.device)
        given: Tensor = net(self.x.to(y.device))
        loss = (1 - self.labels) * self.task.distil(given, answers, self.temperature)
        if self.labels:
            loss = loss + self.labels * self.task.loss(net(x), y)
        if self.calls >= self.begin:
            there, here = self.drawn()
            if len(here):
                near = self.task.distil(given[here.to(y.device)], answers[there.to(y.device)], self.temperature)
                loss = loss + (1 - self.labels) * near
        alike = given.detach().argmax(dim=-1) == answers.argmax(dim=-1)
        found = fitted(rho.cpu(), alike.cpu(), self.bins, self.exponent)
        self.exponent = MOMENTUM * self.exponent + (1 - MOMENTUM) * found
        self.calls += 1
        return loss

    def drawn(self) -> tuple[Tensor, Tensor]:
        """Edges whose beginning teaches this time: where they begin, and where they end."""
        edges, rho = self.edges.cpu(), self.rho.cpu()
        chance = 1 - rho[edges[0]] ** self.exponent
        kept = torch.rand(edges.shape[1], generator=self.draws) < chance
        return edges[0, kept], edges[1, kept]


def unreliable(answers: Tensor, moved: Tensor) -> Tensor:
    """(nodes,) how much the entropy of each answer changed, as a share of the largest change; 0 where none did."""
    change = (_entropy(moved) - _entropy(answers)).abs()
    return change / change.max() if float(change.max()) > SURE else torch.zeros_like(change)


def fitted(rho: Tensor, alike: Tensor, bins: int, before: float) -> float:
    """The exponent a with which 1 - rho^a comes nearest to the share of nodes that are alike, by rho.

    ``before`` where that share is the same everywhere: it says nothing then.
    """
    places = (rho * bins).long().clamp_max(bins - 1)
    counts = torch.bincount(places, minlength=bins)
    right = torch.bincount(places, weights=alike.double(), minlength=bins)
    some = counts > 0
    middles = ((torch.arange(bins) + 0.5) / bins)[some].double().numpy()
    shares = (right[some] / counts[some]).numpy()
    least, most = shares.min(), shares.max()
    if most - least < SURE:
        return before
    shares = (shares - least) / (most - least)

    def off(logarithm: float) -> float:
        return float(((1 - middles ** math.exp(logarithm) - shares) ** 2).sum())

    return math.exp(float(minimize_scalar(off, bounds=(-WIDEST, WIDEST), method="bounded").x))


def _entropy(answers: Tensor) -> Tensor:
    return torch.distributions.Categorical(logits=answers).entropy()
