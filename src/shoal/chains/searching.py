"""Searching: the best chain of layers for one input, by a tree of changes, and a blind draw to compare with.

    found = search_chain(net, x, lambda y: float(y.argmax() == 7))
    found.chain, found.reward                        the best for this input, and the shortest of the best

A chain is changed by leaving a run of neighbours out, or by running it several times; such changes add up. The search
is a tree of them: from the net's own chain down, at each step to the child with

    mean reward below it + explore * sqrt( ln(visits of the parent) / visits ) - penalty * length / length of the net

the largest, and a new child wherever a chain has fewer of them than the square root of its visits. No chain is run
twice, and what was searched through is left.

A reward that looks at the right answer makes what is found an upper bound, not a way to infer; with many trials some
chain is right by chance. `random_chain` draws as many chains blindly. The constants are ours.

Papers   skip-a-layer-or-loop-it
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

from shoal.chains.running import Chain, Chains
from shoal.core.errors import BadSetting
from shoal.net import Net

Reward: TypeAlias = Callable[[Tensor], float]  # of what the net gives
DRAWS = 20  # a trial, at most, until one is a chain that was not drawn before


@dataclass(frozen=True)
class Found:
    """What a search found: the best chain, of those the shortest, of those the first; never worse than the base.

    tried   different chains that were run, the base too        ran   layers that were run for them
    """

    chain: Chain
    reward: float
    base: Chain
    base_reward: float
    tried: int
    ran: int


def search_chain(
    net: Net,
    x: Tensor,
    reward: Reward,
    *,
    trials: int = 200,
    edits: int = 3,
    run: int = 4,
    times: int = 4,
    explore: float = 1.4,
    penalty: float = 1.0,
    blind: float = 0.1,
    seed: int = 0,
) -> Found:
    """The best chain for one input by tree search (see above); `blind` is the share of steps down that are drawn.

    trials  chains that are run beside the base        edits   changes of a chain, at most
    run     neighbours left out or repeated at once    times   how often a run is run, at most
    """
    _check_settings(trials=trials, edits=edits, run=run, times=times)
    score, chance = _Score(net, x, reward, run, times), random.Random(seed)
    root = _Node(score.base, edits)
    root.add(score(score.base))

    def choose(node: _Node, among: list[_Node]) -> _Node:
        if chance.random() < blind:
            return chance.choice(among)
        parts = (node.visits, len(score.base), explore, penalty)
        return max(among, key=lambda child: ucb(child.total, child.visits, child.chain, *parts))

    def step(path: list[_Node]) -> None:
        """Down the tree to a chain that was not run yet, and its reward up again; what has none left is done."""
        node = path[-1]
        if node.untried is None:
            node.untried = score.changed(node.chain)
            chance.shuffle(node.untried)
        there = [child for child in node.children if not child.done]
        while node.untried and (not there or len(node.children) < math.sqrt(node.visits)):
            order = node.untried.pop()
            if order not in score.rewards:
                node.children.append(_Node(order, node.left - 1))
                value = score(order)
                for each in (*path, node.children[-1]):
                    each.add(value)
                break
        else:
            if there:
                step([*path, choose(node, there)])
        node.done = not node.untried and all(child.done for child in node.children)

    while len(score.rewards) <= trials and not root.done:
        step([root])
    return score.best()


def random_chain(
    net: Net,
    x: Tensor,
    reward: Reward,
    *,
    trials: int = 200,
    edits: int = 3,
    run: int = 4,
    times: int = 4,
    seed: int = 0,
) -> Found:
    """The control: the best of as many other chains, each made from the base by 1 to `edits` changes drawn blindly."""
    _check_settings(trials=trials, edits=edits, run=run, times=times)
    score, chance = _Score(net, x, reward, run, times), random.Random(seed)
    score(score.base)
    for _ in range(DRAWS * trials):
        order = score.base
        for _ in range(chance.randint(1, edits)):
            options = score.changed(order)
            order = chance.choice(options) if options else order
        score(order)
        if len(score.rewards) > trials:
            break
    return score.best()


def ucb(total: float, visits: int, order: Chain, parent: int, length: int, explore: float, penalty: float) -> float:
    """The worth of a child: what was gained below it, how little it was looked at, and less the longer it is."""
    return total / visits + explore * math.sqrt(math.log(parent) / visits) - penalty * len(order) / length


def changed(base: Chain, order: Chain, stages: Sequence[int], run: int, times: int) -> list[Chain]:
    """Every chain one change away, each once: at most so many neighbours of one stage left out, or run up to so often.

    ``stages``: the stage of each layer. Chains of more than `times` times the base's length are left out.
    """
    found: dict[Chain, None] = {}
    for start in range(len(order)):
        for stop in range(start + 1, min(start + run, len(order)) + 1):
            if stages[order[start]] != stages[order[stop - 1]]:
                break
            found[order[:start] + order[stop:]] = None
            for again in range(2, times + 1):
                longer = order[:start] + order[start:stop] * again + order[stop:]
                if len(longer) <= times * len(base):
                    found[longer] = None
    return list(found)


class _Score:
    """The rewards of chains on one input, each run once."""

    def __init__(self, net: Net, x: Tensor, reward: Reward, run: int, times: int) -> None:
        self.chains, self.reward, self.run, self.times = Chains(net, x), reward, run, times
        self.base, self.stages = self.chains.base, [stage for stage, _ in self.chains.places]
        self.rewards: dict[Chain, float] = {}

    def __call__(self, order: Chain) -> float:
        if order not in self.rewards:
            self.rewards[order] = float(self.reward(self.chains(order)))
        return self.rewards[order]

    def changed(self, order: Chain) -> list[Chain]:
        return changed(self.base, order, self.stages, self.run, self.times)

    def best(self) -> Found:
        best = max(self.rewards, key=lambda order: (self.rewards[order], -len(order)))
        tried, ran = len(self.rewards), self.chains.ran
        return Found(best, self.rewards[best], self.base, self.rewards[self.base], tried, ran)


class _Node:
    """A chain in the tree: how many changes it may still have, what was gained in and below it, what was not tried."""

    def __init__(self, order: Chain, left: int) -> None:
        self.chain, self.left, self.done = order, left, left == 0
        self.visits, self.total = 0, 0.0
        self.children: list[_Node] = []
        self.untried: list[Chain] | None = None

    def add(self, value: float) -> None:
        self.visits, self.total = self.visits + 1, self.total + value


def _check_settings(**settings: int) -> None:
    for name, value in settings.items():
        if value < 1:
            raise BadSetting(f"chain search: {name}={value} must be at least 1")
