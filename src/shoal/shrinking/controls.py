"""Controls: rivals that had the same chances. A compression that is no better than they are has shown nothing.

same shape from scratch    the final shape with weights as newly made
random edits               as many edits of each compressor as were taken, at places drawn at random
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Mapping

import torch
from torch import nn

from shoal.artifact.huggingface import is_pretrained
from shoal.core.base import Compressor
from shoal.core.errors import BadModel
from shoal.net import Net
from shoal.recipe import done
from shoal.shrinking.planning import Plan, Taken
from shoal.shrinking.tracks import tracked
from shoal.shrinking.weighing import Weighed, Weigher


def fresh(plan: Plan, seed: int) -> Plan:
    """The same shape with weights as newly made: as each part itself says, or its model where that is one of
    transformers. Raises BadModel where nobody says it of a weight."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Plan(_fresh(plan.module), plan.steps, plan.tracks)


def _fresh(module: nn.Module) -> nn.Module:
    if isinstance(module, Net):
        return Net(module.spec)
    made = copy.deepcopy(module).requires_grad_(True)  # what was frozen has nothing to keep any more
    weights = {name: value for name, value in made.named_parameters() if value.is_floating_point()}
    with torch.no_grad():
        for value in weights.values():
            value.fill_(math.nan)  # until somebody draws it
        models: dict[str, nn.Module] = {}
        for path, part in made.named_modules():
            if is_pretrained(part):
                models[f"{path}." if path else ""] = part
            for name in ("reset_parameters", "_reset_parameters"):  # the latter is that of nn.MultiheadAttention
                if callable(reset := getattr(part, name, None)):
                    reset()
                    break
            owner = [model for prefix, model in models.items() if f"{path}.".startswith(prefix)]
            if owner:
                owner[-1]._init_weights(part)  # type: ignore[operator]
    kept = [name for name, value in weights.items() if value.isnan().any()]
    if kept:
        raise BadModel(
            f"control: no reset_parameters() draws {kept[0]} anew, so the same shape cannot be made afresh; give its "
            "module one, or compress without controls"
        )
    return made


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
