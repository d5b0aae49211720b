"""Policies that say what to do with each part in turn, and how they learn from what came of it.

REINFORCE:  the log-probability of each way goes up by (its reward - a running mean of rewards)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Categorical

Way: TypeAlias = tuple[int, ...]  # what was chosen for each part
UNITS = 30
FACTORS = tuple(step / 10 for step in range(1, 11))  # of a width
INCLINED = 2.0  # a policy begins with this logit for leaving a part as it is: 0.88 of them stay
DECAY = 0.9  # of the running mean


class Policy(nn.Module, ABC):
    """Draws a way for parts that are described by rows of numbers."""

    @abstractmethod
    def draw(self, told: Tensor) -> tuple[Way, Tensor]:
        """(parts, features) -> the way and its log-probability."""


class Keeping(Policy):
    """Keep (1) or remove (0): two layers of LSTM that read the parts in both directions."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.reads = nn.LSTM(features, UNITS, num_layers=2, bidirectional=True)
        self.says = nn.Linear(2 * UNITS, 1)
        nn.init.constant_(self.says.bias, INCLINED)

    def draw(self, told: Tensor) -> tuple[Way, Tensor]:
        chances = Bernoulli(logits=self.says(self.reads(told)[0])[:, 0])
        chosen = chances.sample()
        return tuple(int(one) for one in chosen), chances.log_prob(chosen).sum()


class Shrinking(Policy):
    """One of the factors for each width: an LSTM that is told what it chose for the width before."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.reads = nn.LSTMCell(features + 1, UNITS)
        self.says = nn.Linear(UNITS, len(FACTORS))
        with torch.no_grad():
            self.says.bias[-1] = INCLINED

    def draw(self, told: Tensor) -> tuple[Way, Tensor]:
        state, before = None, told.new_ones(1)
        chosen, logs = [], []
        for row in told:
            state = self.reads(torch.cat((row, before))[None], state)
            chances = Categorical(logits=self.says(state[0])[0])
            one = chances.sample()
            chosen.append(int(one))
            logs.append(chances.log_prob(one))
            before = told.new_tensor([FACTORS[int(one)]])
        return tuple(chosen), torch.stack(logs).sum()


def search(
    policy: Policy, told: Tensor, reward: Callable[[Way], float], *, updates: int, rollouts: int, lr: float
) -> dict[Way, float]:
    """Every way that was tried, with its reward, the best first; none is tried twice."""
    optimizer = torch.optim.Adam(policy.parameters(), lr=lr)
    seen: dict[Way, float] = {}
    mean: float | None = None
    for _ in range(updates):
        drawn = [policy.draw(told) for _ in range(rollouts)]
        for way, _log in drawn:
            if way not in seen:
                seen[way] = reward(way)
        rewards = [seen[way] for way, _ in drawn]
        here = sum(rewards) / rollouts
        mean = here if mean is None else DECAY * mean + (1 - DECAY) * here
        pairs = zip(drawn, rewards, strict=True)
        lost = -torch.stack([log * (got - mean) for (_, log), got in pairs]).mean()
        optimizer.zero_grad()
        lost.backward()
        optimizer.step()
    return dict(sorted(seen.items(), key=lambda item: -item[1]))
