"""Stages: what of a compression is finished, kept in a folder to go on from; killed at any time, nothing of it is lost.

    FOLDER/order/         what was asked for; another order does not go on here
    FOLDER/original/      what the original measured: the goals are shares of it
    FOLDER/options/       what was proposed for it, weighed
    FOLDER/plans/         the plans, with the weights of those that are healed
    FOLDER/short-1-0/     a plan after its short healing
    FOLDER/healing-9f3a51c2/ ...   where training is, epoch by epoch; named by the weights that it began with

Each is one file of tensors and facts that takes its place at once (see ``Checkpoint``). Without a folder nothing is
kept.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from shoal.core.base import Proposal
from shoal.core.errors import BadArtifact
from shoal.core.folders import vanish
from shoal.core.part import Part
from shoal.data import Dataset
from shoal.kinds import EDITS
from shoal.recipe import done, edit_part
from shoal.shrinking.planning import Candidate, Plan, Taken
from shoal.shrinking.tracks import tracked
from shoal.shrinking.weighing import Weighed
from shoal.training.checkpoint import FILE, Checkpoint
from shoal.training.engine import Objective
from shoal.training.recipe import TrainingRecipe
from shoal.training.state import fill, tensors_of
from shoal.training.train import Run, train

ORDER = "order"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Stages:
    """The stages of one order: ``get`` one that is finished, ``put`` one that just was, ``train`` as one.

    Raises BadArtifact where the folder is of another order, or holds what shoal did not write.
    """

    def __init__(self, folder: Path | str | None, order: Mapping[str, Any], *, resume: bool) -> None:
        self.folder = None if folder is None else Path(folder)
        if self.folder is None:
            return
        begun = (self.folder / ORDER / FILE).is_file()
        if self.folder.exists() and not begun and not _empty(self.folder):
            raise BadArtifact(f"{self.folder}: holds something else; give another folder to keep the stages in")
        if begun and resume:
            _same(self.folder, Checkpoint.load(self.folder / ORDER).facts, order)
            return
        with written(self.folder):
            if begun:
                vanish(self.folder)
            self.put(ORDER, order)

    def get(self, name: str) -> Checkpoint | None:
        """A stage that is finished; None where it is not."""
        if self.folder is None or not (self.folder / name / FILE).is_file():
            return None
        return Checkpoint.load(self.folder / name)

    def put(self, name: str, facts: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None) -> None:
        """Keep a stage that is finished."""
        if self.folder is not None:
            with written(self.folder):
                Checkpoint(_apart(tensors or {}), facts).save(self.folder / name)

    def train(
        self, name: str, net: nn.Module, data: Dataset, recipe: TrainingRecipe, seed: int, objective: Objective
    ) -> Run:
        """Train as a stage: where it was begun with the same weights, it goes on behind its last epoch, bit for bit."""
        if self.folder is None:
            return train(net, data, recipe, seed=seed, objective=objective)
        place = self.folder / f"{name}-{mark(net)[:8]}"
        begun = (place / FILE).is_file()
        with written(self.folder):
            return train(net, data, recipe, seed=seed, objective=objective, checkpoint=place, resume=begun)


@contextmanager
def written(folder: Path) -> Iterator[None]:
    """Inside, what cannot be written is told in one line. What is there already stays whole."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        number = _number(error)
        why = str(error).partition("\n")[0] if number is None else os.strerror(number)
        fix = "make room there, then go on with --resume" if number in FULL else "name a folder that can be written to"
        raise BadArtifact(f"{folder}: cannot be written ({why}); {fix}") from error


def _number(error: OSError | SafetensorError) -> int | None:
    """What the system calls it, which safetensors only tells in words."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"os error (\d+)", str(error))
    return int(found[1]) if found else None


def _empty(folder: Path) -> bool:
    """Whether nothing is in a folder but a beginning: an order that was never finished, as on a full disk."""
    if not folder.is_dir():
        return False
    inside = [path for path in folder.rglob("*") if not path.is_dir()]
    return all(path.parent == folder / ORDER and path.name.startswith(FILE) for path in inside)


def _same(folder: Path, found: Mapping[str, Any], order: Mapping[str, Any]) -> None:
    for key, value in order.items():
        if found.get(key) != value:
            raise BadArtifact(f"{folder}: was begun with another {key}; go on with the same, or start anew")


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each in memory of its own: tied weights are written for each of their names."""
    return {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}


def mark(module: nn.Module) -> str:
    """16 hex digits of the SHA-256 of a module's weights, statistics and their names."""
    digest = hashlib.sha256(type(module).__name__.encode())
    for name, value in sorted(tensors_of(module).items()):
        digest.update(f"{name}{value.dtype}{tuple(value.shape)}".encode())
        digest.update(value.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def pack(options: Sequence[Weighed], prefix: str = "") -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    """Weighed proposals as JSON and tensors."""
    facts: list[dict[str, Any]] = []
    tensors: dict[str, Tensor] = {}
    for number, one in enumerate(options):
        facts.append(
            {
                "compressor": one.compressor,
                "harm": one.harm,
                "gain": one.gain,
                "saves": dict(one.saves),
                "edits": [edit_part(edit).to_json() for edit in one.proposal.edits],
                "paths": list(one.proposal.paths),
                "into": one.proposal.into,
                "stay": one.proposal.stay,
            }
        )
        tensors |= {f"{prefix}{number}/{name}": value for name, value in one.proposal.weights.items()}
    return facts, tensors


def unpack(facts: Sequence[Mapping[str, Any]], saved: Checkpoint, prefix: str = "") -> list[Weighed]:
    """The inverse of :func:`pack`."""
    found: list[Weighed] = []
    for number, one in enumerate(facts):
        edits = tuple(EDITS.make(Part.from_json(part)) for part in one["edits"])
        weights = saved.under(f"{prefix}{number}")
        proposal = Proposal(edits, tuple(one["paths"]), one["into"], weights, one["stay"])
        found.append(Weighed(proposal, one["compressor"], one["harm"], one["gain"], one["saves"]))
    return found


def pack_plans(candidates: Sequence[Candidate]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Candidates as JSON and tensors."""
    rows: list[dict[str, Any]] = []
    tensors: dict[str, Tensor] = {}
    for number, one in enumerate(candidates):
        steps, values = pack([step.weighed for step in one.plan.steps], f"{number}/step-")
        tensors |= values | {f"{number}/net/{name}": value for name, value in tensors_of(one.plan.module).items()}
        rows.append(
            {
                "way": one.way,
                "foreseen": one.foreseen,
                "harm": one.harm,
                "values": dict(one.values),
                "over": dict(one.over),
                "rounds": [step.round for step in one.plan.steps],
                "steps": steps,
            }
        )
    return {"candidates": rows}, tensors


def unpack_plans(saved: Checkpoint, start: Plan) -> list[Candidate]:
    """The inverse of :func:`pack_plans`: every step is done again on the original, then the weights are filled in."""
    found: list[Candidate] = []
    for number, row in enumerate(saved.facts["candidates"]):
        plan = replace(start)
        for one, turn in zip(unpack(row["steps"], saved, f"{number}/step-"), row["rounds"], strict=True):
            module = done(plan.module, one.proposal)
            plan = Plan(module, [*plan.steps, Taken(one, turn)], tracked(plan.tracks, one.proposal, module))
        fill(tensors_of(plan.module), saved.under(f"{number}/net"), "plan")
        found.append(Candidate(row["way"], plan, row["foreseen"], row["harm"], row["values"], row["over"]))
    return found
