"""Graph free: a net that sees no edges learns to answer as one that does, on all nodes, those without a target too.

    loss = labels * task loss(net(x), y) + (1 - labels) * mean over all nodes of distance(net(x_v), teacher_v)

The teacher is asked once, when this is made; afterwards the net answers row by row, without the graph. The distance is
the task's own: for classes the divergence of softened answers.

Papers   quantifying-the-knowledge-in-gnns-for (there as the baseline GLNN)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from shoal.core.base import Task
from shoal.core.errors import BadModel, BadSetting
from shoal.core.example import evaluating
from shoal.data import Graph
from shoal.net import Net
from shoal.training.graphs import OnGraph, read_of_graphs


class GraphFree:
    """An objective for `fit`. Settings: `labels`, the task's share of the loss, 0 for the teacher alone; `temperature`,
    how much answers are softened."""

    def __init__(
        self, task: Task, teacher: Net, graph: Graph, *, labels: float = 0.0, temperature: float = 1.0
    ) -> None:
        if not 0 <= labels <= 1:
            raise BadSetting(f"graph_free: labels={labels} must be a share, from 0 to 1")
        if not temperature > 0:
            raise BadSetting(f"graph_free: temperature={temperature} must be above 0")
        self.task, self.labels, self.temperature = task, labels, temperature
        self.x = graph.x
        with evaluating(teacher), torch.no_grad():
            self.answers: Tensor = OnGraph(teacher, graph)(torch.arange(len(graph.x)))

    def __call__(self, net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """The loss of a batch of labelled rows, and of all nodes."""
        if read_of_graphs(net):
            raise BadModel("graph_free: the net reads edges; give one that does without, such as residual(mlp) 2x128")
        loss = y.new_zeros((), dtype=self.answers.dtype)
        if self.labels:
            loss = loss + self.labels * self.task.loss(net(x), y)
        if self.labels < 1:
            answers = self.answers.to(y.device)
            loss = loss + (1 - self.labels) * self.task.distil(net(self.x.to(y.device)), answers, self.temperature)
        return loss
