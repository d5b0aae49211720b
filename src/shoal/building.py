"""Build: from a spec to a net, completed by what the data asks for.

build("residual(mlp) 3x64", like=data)         stem and head chosen from the data
build(None, like=data)                         the default for such data
build("vector[features=8] | residual(mlp) 3x64 | pool[outputs=2]")
"""

from __future__ import annotations

import torch

from shoal.core.base import Task
from shoal.core.errors import BadSpec
from shoal.core.spec import Spec
from shoal.data import Dataset, Signature
from shoal.kinds import TASKS
from shoal.net import Net, complete


def build(spec: Spec | str | None, like: Dataset | Signature | None = None, *, seed: int = 0) -> Net:
    """A net with fresh weights, drawn from `seed` alone; the caller's random numbers are not moved.

    Raises BadSpec where the spec is open and there is no data to complete it.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return Net(complete_spec(spec, like))


def complete_spec(spec: Spec | str | None, like: Dataset | Signature | None) -> Spec:
    """The spec with stem and head that such data asks for; the default for such data where it is None."""
    signature = like.signature if isinstance(like, Dataset) else like
    if signature is None:
        if spec is None:
            raise BadSpec("spec: none given and no data to choose one for; give a spec, or like=data")
        return Spec.parse(spec) if isinstance(spec, str) else spec
    found = default_spec(signature) if spec is None else Spec.parse(spec) if isinstance(spec, str) else spec
    task: Task = TASKS.make(signature.task)
    return complete(
        found, signature.places, signature.channels, signature.vocabulary, task.outputs, head=type(task).head
    )


def default_spec(signature: Signature) -> Spec:
    """An open spec of moderate size for such data: what to begin with where nothing is known."""
    if signature.vocabulary is not None:
        causal = "[causal=true]" if signature.task.name == "next_token" else ""
        return Spec.parse(f"residual(transformer{causal}) 3x64")
    if not signature.places:
        return Spec.parse("residual(mlp) 3x64")
    if len(signature.places) == 1:
        return Spec.parse("residual(conv[kernel=[3]]) 2x32-2x64")
    return Spec.parse("residual(conv) 2x16-2x32-2x64")
