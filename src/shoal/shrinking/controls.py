"""Controls: rivals that had the same chances. A compression that is no better than they are has shown nothing.

same shape from scratch    the final shape with weights as newly made
random edits               as many edits of each compressor as were taken, at places drawn at random
"""

from __future__ import annotations

import copy
import random
from collections.abc import Mapping

import torch
from torch import nn

from shoal.core.base import Compressor
from shoal.core.errors import BadModel
from shoal.net import Net
from shoal.recipe import done
from shoal.shrinking.planning import Plan, Taken
from shoal.shrinking.tracks import tracked
from shoal.shrinking.weighing import Weighed, Weigher


def fresh(plan: Plan, seed: int) -> Plan:
    """The same shape with weights as newly made. Raises BadModel where a part does not say how it is initialised."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Plan(_fresh(plan.module), plan.steps, plan.tracks)


def _fresh(module: nn.Module) -> nn.Module:
    if isinstance(module, Net):
        return Net(module.spec)
    made = copy.deepcopy(module)
    for path, part in made.named_modules():
        reset = getattr(part, "reset_parameters", None)
        if reset is not None:
            reset()
        elif any(True for _ in part.parameters(recurse=False)):
            raise BadModel(
                f"control: {path} ({type(part).__name__}) has weights and no reset_parameters(), so the same shape "
                "cannot be made afresh; give it one, or compress without controls"
            )
    return made.requires_grad_(True)  # what was frozen has nothing to keep any more


def drawn(start: Plan, plan: Plan, weigher: Weigher, makers: Mapping[str, Compressor], seed: int) -> Plan:
    """As many edits of each compressor as the plan took, at places drawn at random."""
    chance, found = random.Random(seed), start
    for step in plan.steps:
        name = step.weighed.compressor
        alike = [one for other, one in weigher.proposals(found.module, {name: makers[name]}) if other == name]
        if alike:
            one = chance.choice(alike)
            module = done(found.module, one)
            taken = Taken(Weighed(one, name, 0.0, 0.0, {}), step.round)
            found = Plan(module, [*found.steps, taken], tracked(found.tracks, one, module))
    return found
