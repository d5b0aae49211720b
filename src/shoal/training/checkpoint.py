"""Checkpoint: all that training needs to go on bit for bit, in one file that is replaced at once.

    FOLDER/checkpoint.safetensors      the tensors; in its header, under "shoal", the facts as JSON

One file and not two, so that a power cut between them cannot pair old weights with new facts. Nothing is unpickled.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from shoal.core.errors import BadArtifact

FILE = "checkpoint.safetensors"
VERSION = 1


@dataclass(frozen=True, eq=False, repr=False)
class Checkpoint:
    """Tensors by name ("net/...", "average/...", "optimizer/...", "random/...") and facts, which are JSON.

    Whoever keeps a checkpoint may add tensors and facts under names of its own: training reads its own and no others.
    """

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]

    def __repr__(self) -> str:
        return f"Checkpoint(step {self.facts.get('index')}, {len(self.tensors)} tensors)"

    def under(self, prefix: str) -> dict[str, Tensor]:
        """The tensors of names that begin with ``prefix/``, without it."""
        return {name[len(prefix) + 1 :]: value for name, value in self.tensors.items() if name.startswith(f"{prefix}/")}

    def plus(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Checkpoint:
        """The same with more in it."""
        return Checkpoint({**self.tensors, **tensors}, {**self.facts, **facts})

    def save(self, folder: Path | str) -> None:
        """Write it beside, then put it in the place of an older one; what could not be written whole is removed."""
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        header = {"shoal": json.dumps({"version": VERSION, **self.facts}, sort_keys=True, allow_nan=False)}
        beside = place / f"{FILE}.partial"
        try:
            save_file({name: value.detach().cpu().contiguous() for name, value in self.tensors.items()}, beside, header)
            os.replace(beside, place / FILE)
        finally:
            beside.unlink(missing_ok=True)

    @classmethod
    def load(cls, folder: Path | str) -> Checkpoint:
        """The inverse of :meth:`save`. Raises BadArtifact where there is none, or it cannot be read."""
        path = Path(folder) / FILE
        if not path.is_file():
            raise BadArtifact(f"{folder}: no {FILE} in it; give the folder of a run that was begun, or start anew")
        try:
            with safe_open(path, framework="pt") as file:
                facts = json.loads((file.metadata() or {})["shoal"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
        except (SafetensorError, KeyError, ValueError, OSError) as error:
            raise BadArtifact(f"{path}: is truncated or no checkpoint ({error}); start anew") from error
        if facts.pop("version", None) != VERSION:
            raise BadArtifact(f"{path}: of another version of shoal; start anew")
        return cls(tensors, facts)
