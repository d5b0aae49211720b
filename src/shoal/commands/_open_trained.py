"""Open trained: what a person names to have it analyzed: a module with its weights, of any origin.

a run folder     the Net that it holds, or the exported program
a .pt2           the program as the modules that it was exported from
code             PATH.py:function or package.module:function, which gives a module, or (module, example)
hf:FOLDER        a model of transformers in a local folder, of the class that its config names
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch._ops import OpOverload
from torch.fx import Graph

from shoal.artifact import load, load_program
from shoal.artifact.programs import quiet
from shoal.artifact.vetting import refuse_pickle
from shoal.artifact.weights import fill, read_weights
from shoal.commands._models import described, is_code
from shoal.commands._open_target import IN_PACKAGE
from shoal.commands._packages import made_by
from shoal.commands._talk import stdout_kept
from shoal.commands._transformers import is_transformer, transformer
from shoal.core.errors import BadArtifact, BadModel, BadSetting, BadSpec
from shoal.core.named import is_spec
from shoal.data.loaders import call


def open_trained(text: str, weights: Path | None) -> tuple[nn.Module, dict[str, Any]]:
    """The module in eval mode, and the facts of its folder. Raises a ShoalError that says what is wrong with it."""
    with stdout_kept():
        code = not is_transformer(text) and (is_code(text) or bool(IN_PACKAGE.fullmatch(text)))
        if weights is not None and not code:
            raise BadSetting(f"--weights {weights}: {text} has its own; leave it out, or name a function")
        if code:
            return _made(text, weights).eval(), {}
        if is_transformer(text):
            return transformer(text), {}
        return _file(text)


def _file(text: str) -> tuple[nn.Module, dict[str, Any]]:
    path = Path(text)
    if not path.exists():
        if is_spec(text):
            fix = "train it (shoal train DATA --spec SPEC) and analyze the run folder"
            raise BadSpec(f"analyze {text!r}: a spec has no weights, so there is nothing to find in it; {fix}")
        known = "a run folder, a .pt2, PATH.py:function, package.module:function or hf:FOLDER"
        raise BadModel(f"analyze {text!r}: there is no such file; give {known}")
    if path.is_dir():
        facts = described(text)
        return (_program(path / "model.pt2") if facts["spec"] is None else load(text)), facts
    refuse_pickle(path)
    if path.suffix != ".pt2":
        raise BadModel(f"{text}: cannot be run from the middle; give a .pt2, a run folder or the code of the module")
    return _program(path), {}


def _program(path: Path) -> nn.Module:
    """The program as modules again. It is read twice: first to be vetted."""
    load_program(path)
    with quiet():
        program = torch.export.load(path)
        _nest(program.graph)
        found: nn.Module = torch.export.unflatten(program)
    return found


def _nest(graph: Graph) -> None:
    """Let modules be made again of the graph, and let it be read as theirs.

    torch makes modules of those alone that lie in each other: such as call others elsewhere, as a wiring does, are
    taken out of what is known of where each operation stood. Operations go by their plain names: ``add`` is a sum.
    """
    stacks = [node.meta.get("nn_module_stack") or {} for node in graph.nodes]
    paths = [[path for path, _ in stack.values()] for stack in stacks]
    callers = {path for each in paths for path in each if path and not f"{each[-1]}.".startswith(f"{path}.")}
    for node, stack in zip(graph.nodes, stacks, strict=True):
        if isinstance(node.target, OpOverload):
            node.target = node.target.overloadpacket
        if stack:
            node.meta["nn_module_stack"] = {key: at for key, at in stack.items() if at[0] not in callers}


def _made(text: str, weights: Path | None) -> nn.Module:
    """What the function gives, with the weights in the file if there is one."""
    made = call(text) if is_code(text) else made_by(text)
    module = made[0] if isinstance(made, tuple) and len(made) == 2 else made
    if not isinstance(module, nn.Module):
        raise BadModel(f"{text}: returned {type(module).__name__}; return a torch.nn.Module, or (module, example)")
    if weights is None:
        return module
    refuse_pickle(weights)
    if not weights.is_file():
        raise BadArtifact(f"--weights {weights}: there is no such file; give a .safetensors")
    found = read_weights(weights, {})
    own = module.state_dict(keep_vars=True)
    for name in own.keys() - found.keys():  # tied ones are written under one name
        same = [other for other in found if other in own and own[other] is own[name]]
        if same:
            found[name] = found[same[0]]
    try:
        return fill(module, found, str(weights))
    except BadArtifact as error:
        raise BadModel(
            f"--weights {str(error).partition(';')[0]}; give the function that makes their module"
        ) from error
