"""Build: from a spec to a net, completed by what the data asks for.

build("residual(mlp) 3x64", like=data)         stem and head chosen from the data
build(None, like=data)                         the default for such data
build("resnet20", like=data)                   a named net, its ends as the data asks for
build("vector[features=8] | residual(mlp) 3x64 | pool[outputs=2]")
load_published("resnet56", "cifar10_resnet56.safetensors")     a named net with other people's weights
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from shoal.core.base import Architecture, Task
from shoal.core.errors import BadData, BadSpec
from shoal.core.named import named_part, read_spec
from shoal.core.part import Part, Value
from shoal.core.spec import Spec
from shoal.data import Dataset, Signature
from shoal.kinds import NETS, TASKS
from shoal.net import Net, complete, load_net


def build(spec: Spec | str | None, like: Dataset | Signature | None = None, *, seed: int = 0) -> Net:
    """A net with fresh weights, drawn from `seed` alone; the caller's random numbers are not moved.

    Raises BadSpec where the spec is open and there is no data to complete it.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return Net(complete_spec(spec, like))


def load_published(name: str, file: str | Path) -> Net:
    """The net of that name (``resnet56``, ``vit[outputs=5]``) with weights that others trained, in eval.

    ``file``: their safetensors, under their names. Raises BadData where it cannot be read, Refused where the net knows
    no key map for it, BadModel where a weight is missing or of another shape.
    """
    made: Architecture = NETS.make(named_part(Part.parse(name)))
    try:
        state = load_file(file)
    except (SafetensorError, OSError) as error:
        raise BadData(f"{file}: cannot be read as safetensors ({error}); give the file of a checkpoint") from error
    return load_net(made.spec(), made.weights(state))


def complete_spec(spec: Spec | str | None, like: Dataset | Signature | None) -> Spec:
    """The spec with stem and head that such data asks for; the default for such data where it is None."""
    signature = like.signature if isinstance(like, Dataset) else like
    if signature is None:
        if spec is None:
            raise BadSpec("spec: none given and no data to choose one for; give a spec, or like=data")
        return read_spec(spec) if isinstance(spec, str) else spec
    task: Task = TASKS.make(signature.task)
    if spec is None and isinstance(like, Dataset) and like.train.graph is not None:
        spec = "gcn"
    if isinstance(spec, str):
        spec = read_spec(spec, _settings(signature, task.outputs))
    found = default_spec(signature) if spec is None else spec
    return complete(
        found, signature.places, signature.channels, signature.vocabulary, task.outputs, head=type(task).head
    )


def _settings(signature: Signature, outputs: int) -> dict[str, Value]:
    """What a named net, a stem or a head takes from data."""
    found: dict[str, Value] = {"outputs": outputs}
    if signature.vocabulary is not None:
        return {**found, "vocabulary": signature.vocabulary, "length": signature.places[0]}
    return {**found, "channels": signature.channels, "features": signature.channels, "size": signature.places}


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
