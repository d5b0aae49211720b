"""Open target: what a person names to have its cost counted, by the kind that it is.

a spec           weights at random; on the shapes of --input, or completed for --data
a run folder     on an example like the one it was saved with
a .pt2           on the shapes that it was exported for
an .onnx         on the shapes in the file; it is counted without being run
code             PATH.py:function or package.module:function, which gives a module, or (module, example)
hf:FOLDER        a model of transformers, on --data or --input
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.fx import GraphModule
from torch.utils._pytree import tree_map_only

from shoal.artifact import load, load_program
from shoal.building import build, complete_spec
from shoal.commands._inputs import Given, Input, example_of, told
from shoal.commands._models import described, is_code
from shoal.commands._packages import made_by
from shoal.commands._program_target import program_target
from shoal.commands._target import Target, Times, module_target, time_module
from shoal.commands._transformers import is_transformer, transformer
from shoal.core.errors import BadModel, BadSetting, BadSpec
from shoal.core.named import is_spec, read_spec
from shoal.data import open_data
from shoal.data.loaders import call
from shoal.net import empty
from shoal.shrinking.unlabelled import first_rows

IN_PACKAGE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def open_target(text: str, given: Given) -> Target:
    """The target of that name, counted. Raises a ShoalError that says what is wrong with it, or with what was given."""
    if given.inputs and (given.data or given.batch):
        raise BadSetting("--input: says all of the shape; leave --data and --batch out")
    if is_transformer(text):
        return _code(text, transformer(text), given)
    if is_code(text) or IN_PACKAGE.fullmatch(text):
        return _code(text, call(text) if is_code(text) else made_by(text), given)
    if not Path(text).exists() and is_spec(text):
        return _spec(text, given)
    if given.data:
        raise BadSetting(f"--data {given.data}: {text} says itself what it takes; leave --data out")
    if Path(text).suffix == ".onnx":
        from shoal.commands._onnx_target import onnx_target  # onnx and its runtime are slow to import

        return onnx_target(text, given)
    if Path(text).suffix == ".pt2":
        return program_target("pt2", text, load_program(text), given)
    if not Path(text).exists():
        raise BadSpec(
            f"cost {text!r}: there is no such file; give a spec such as 'residual(mlp) 4x32', a run folder, a .pt2, "
            "an .onnx, PATH.py:function or package.module:function"
        )
    return _folder(text, given)


def _spec(text: str, given: Given) -> Target:
    spec = read_spec(text)
    if given.data:
        data = open_data(given.data, target=given.target)
        spec, example = complete_spec(text, data), data.example(given.batch or 1)
    elif spec.stem is None or spec.head is None:
        raise BadSpec(f"cost {text!r}: has no stem or no head; write them, or complete it with --data NAME or PATH")
    elif not given.inputs:
        raise BadSetting(f"cost {text!r}: on what? say --input 1x8x8x1 (batch first), or --data NAME or PATH")
    else:
        example = example_of(given.inputs)
    nothing = tree_map_only(Tensor, lambda tensor: tensor.to("meta"), example)  # shapes are all that counting needs
    found = module_target("spec", str(spec), empty(spec), nothing)

    def time(threads: int | None) -> Times:
        return time_module(build(spec), example, [layer.path for layer in found.layers], threads)

    return found._replace(on=told(example), time=time)


def _code(text: str, made: Any, given: Given) -> Target:
    module, example = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(module, nn.Module):
        raise BadModel(f"{text}: returned {type(made).__name__}; return a torch.nn.Module, or (module, example)")
    if given.data:
        example = first_rows(given.data, given.target, given.batch or 1)
    elif given.inputs:
        example = example_of(given.inputs)
    elif example is None:
        raise BadSetting(f"{text}: gives no example; say --input 1x8x8x1 (batch first), or --data NAME or PATH")
    elif given.batch is not None:
        raise BadSetting(f"--batch {given.batch}: {text} gives its own example; leave it out, or say --input")
    return module_target("code", type(module).__name__, module, example)


def _folder(text: str, given: Given) -> Target:
    facts = described(text)
    module = load(text)
    if isinstance(module, GraphModule):
        return program_target("folder", facts["model"], module, given)
    inputs = [Input(tuple(each["shape"]), each["type"].removeprefix("torch.")) for each in facts["example"]]
    if given.batch is not None:
        rows = next((each.shape[0] for each in inputs if each.shape), None)
        inputs = [
            each._replace(shape=(given.batch, *each.shape[1:])) if each.shape[:1] == (rows,) else each
            for each in inputs
        ]
    return module_target("folder", facts["model"], module, example_of(given.inputs or inputs))
