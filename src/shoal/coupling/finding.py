"""Finding: from a run to widths, and for all that is no width the reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from torch import nn

from shoal.coupling.judging import Judge
from shoal.coupling.recording import Recording, recorded
from shoal.coupling.settling import Key, Run, alike, numbered, settled
from shoal.coupling.trying import Trials
from shoal.coupling.widths import Count, Coupling, Held, Width

KERNEL = "it is an axis of a kernel"
KNOWN = (  # attributes that torch's own modules have of the axes of their weights
    (nn.Linear, "weight", 0, "out_features"),
    (nn.Linear, "weight", 1, "in_features"),
    (nn.Embedding, "weight", 1, "embedding_dim"),
    (nn.modules.batchnorm._NormBase, "weight", 0, "num_features"),
    (nn.modules.batchnorm._NormBase, "running_mean", 0, "num_features"),
    (nn.GroupNorm, "weight", 0, "num_channels"),
    (nn.RNNBase, "weight_hh_l0", 1, "hidden_size"),
    (nn.RNNBase, "weight_ih_l0", 1, "input_size"),
)


def coupled(module: nn.Module, example: Any) -> Coupling:
    """Run the module (eval, no gradients); its widths. It is left as it was. Raises BadModel if it does not run."""
    run = settled(module, recorded(module, example))
    wanted = list(_candidates(run))
    widths: list[Width] = []
    failed: dict[Key, str] = {}
    for width, found in zip(wanted, Trials(run, Judge(module, example)).sift(wanted), strict=True):
        if isinstance(found, Width):
            widths.append(found)
        else:
            failed |= {(one.weight, one.axis): found for one in width.held}
    held = {(one.weight, one.axis) for width in widths for one in width.held}
    return Coupling(tuple(widths), _reasons(run, held, failed))


def _candidates(run: Run) -> Iterator[Width]:
    """Groups that lie on the same axes are the units of one width, in the order in which a matrix first makes them."""
    used = _first_uses(run.recording)
    tensors = dict(run.module.named_parameters(remove_duplicate=False))
    found: list[tuple[int, int, Width]] = []
    for lying, groups in alike(run.axes, run.groups).items():
        ordered = sorted(lying, key=lambda key: used.get(key[0], len(used)))
        matrices = [key for key in ordered if key[0] in used and key[0] in tensors and tensors[key[0]].dim() > 1]
        if len(groups) < 2 or not matrices:
            continue
        weight, axis = matrices[0]
        first = {group: int(np.flatnonzero(run.axes[weight, axis] == group)[0]) for group in groups}
        unit = {group: number for number, group in enumerate(sorted(groups, key=first.__getitem__))}
        held = tuple(Held(*key, numbered(run.axes[key], unit)) for key in ordered)
        width = Width(weight.rpartition(".")[0], weight, axis, len(groups), held)
        found.append((used[weight], min(first.values()), replace(width, counts=tuple(_known(run, width, unit)))))
    yield from (width for _, _, width in sorted(found, key=lambda one: one[:2]))


def _first_uses(recording: Recording) -> dict[str, int]:
    """In which operation each weight is first used."""
    found: dict[str, int] = {}
    for step, op in enumerate(recording.operations):
        for number in op.values():
            if number in recording.weights:
                found.setdefault(recording.weights[number], step)
    return found


def _known(run: Run, width: Width, unit: Mapping[int, int]) -> Iterator[Count]:
    """Attributes whose names are known: those of torch's modules, and what an operation was told."""
    seen: set[tuple[str, str]] = set()
    for one in width.held:
        path, _, name = one.weight.rpartition(".")
        part = run.module.get_submodule(path)
        for kind, weight, axis, attribute in KNOWN:
            fits = isinstance(part, kind) and (weight, axis) == (name, one.axis)
            if fits and getattr(part, attribute) == len(one.units) and (path, attribute) not in seen:
                seen.add((path, attribute))
                yield Count(path, attribute, one.units)
    for fact, units in run.counted(unit):
        key = (fact.path, fact.attribute)
        value = vars(run.module.get_submodule(fact.path)).get(fact.attribute)
        if fact.attribute and key not in seen and value == fact.value:
            seen.add(key)
            yield Count(*key, units)


def _reasons(run: Run, held: set[Key], failed: Mapping[Key, str]) -> dict[str, str]:
    """Why each axis of a matrix that no width holds stays; kernels are not spoken of."""
    used, matrices = _first_uses(run.recording), {n for n, p in run.module.named_parameters() if p.dim() > 1}
    found: dict[str, str] = {}
    for (name, axis), of in run.axes.items():
        if name not in matrices or (name, axis) in held or len(of) < 2:
            continue
        why = next((run.groups.why[group] for group in of.tolist() if group in run.groups.why), "")
        why = failed.get((name, axis), why) if name in used else "it was not used in the run"
        if why != KERNEL:
            found[f"{name}:{axis}"] = why or "its units are all coupled to each other, or each in a way of its own"
    return found
