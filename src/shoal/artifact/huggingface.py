"""Hugging Face: an edited model of transformers as its own library reads it, and nothing that it would fill in.

    layers that were dropped     leave their list; the others are numbered anew, the config counts them
    widths that fell alike       one number in the config

The config holds one number for all layers, so uneven widths, half a layer, and modules that transformers does not know
cannot be written; why is said in one line, and the .pt2 is there. What was written is read again and compared with the
module: a weight that is missing, left over or of another shape is an error, never a random number.

Longer than the house's 250 lines by a few: each thing that a config must say stands beside the next.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from shoal.artifact.files import new_folder
from shoal.artifact.programs import TOLERANCES, on_cpu, quiet
from shoal.core.errors import BadModel, MissingExtra, ShoalError
from shoal.core.example import arguments, failed, unmarked
from shoal.core.scene import answer
from shoal.edits._surgery import PassThrough, Zero

DEPTHS = {  # where layers stand -> what the config calls their number, where that is not num_hidden_layers
    "encoder.block": "num_layers",
    "decoder.block": "num_decoder_layers",
    "encoder.layers": "encoder_layers",
    "decoder.layers": "decoder_layers",
}
WIDTHS = (
    "intermediate_size",
    "n_inner",
    "d_ff",
    "hidden_dim",
    "encoder_ffn_dim",
    "decoder_ffn_dim",
    "num_key_value_heads",
    "num_attention_heads",
)
MOST = 256  # changes of widths that are tried together


def is_pretrained(module: nn.Module) -> bool:
    """Whether it is a model of transformers; the library is not imported for it."""
    return any(
        f"{cls.__module__}.{cls.__name__}" == "transformers.modeling_utils.PreTrainedModel" for cls in _mro(module)
    )


def save_pretrained(module: nn.Module, example: Any, folder: Path | str) -> Path:
    """Write a folder that ``from_pretrained`` of the module's class, and of its Auto classes, opens; all or nothing.

    Raises BadModel where the module is none of transformers', the format cannot say it, or it comes back another.
    """
    if not is_pretrained(module):
        raise BadModel(f"{type(module).__name__}: is no model of transformers; save it with shoal.save")
    module, example = on_cpu(module, example)
    with new_folder(Path(folder), overwrite=False) as beside, _silent():
        try:
            _rebuilt(module).save_pretrained(beside)
            again = _again(type(module), beside)
        except (ShoalError, OSError):
            raise
        except Exception as error:  # transformers raises ValueError, KeyError, its own ... for what it cannot say
            raise failed(module, error, "cannot be written for transformers", "use the .pt2") from error
        _compare(module, again, example)
    return Path(folder)


def _mro(module: nn.Module) -> tuple[type, ...]:
    return type(module).__mro__


def _rebuilt(module: Any) -> Any:
    """A model of the same class, made from a config that says what the module has become, with its weights."""
    short = copy.deepcopy(module).eval()
    config = copy.deepcopy(module.config)
    for path, kept in _kept_layers(module, short).items():
        short.set_submodule(path, nn.ModuleList(kept.values()))
        _count_layers(config, path, len(module.get_submodule(path)), kept)
    _whole_layers(short)
    _untie(config, short)
    state = short.state_dict()
    made = _fitting(type(module), config, state)
    made.load_state_dict(state, strict=True)
    return made.to(next(short.parameters()).dtype).eval()


def _kept_layers(module: Any, short: nn.Module) -> dict[str, dict[int, nn.Module]]:
    """For every list of layers that has lost some, by path: those that are left, by their old numbers."""
    found = {}
    whole = dict(_made(type(module), module.config).named_modules())
    for path, part in short.named_modules():
        if not isinstance(part, nn.ModuleList) or not len(part) or path not in whole:
            continue
        kept = {number: layer for number, layer in enumerate(part) if not isinstance(layer, PassThrough)}
        if not kept:
            raise BadModel(f"{_name(module)}: {path} has no layer left, and its config needs one; keep one")
        if len(kept) != len(whole[path]):
            found[path] = kept
    return found


def _count_layers(config: Any, path: str, now: int, kept: Mapping[int, nn.Module]) -> None:
    """Write into a config how many layers there are, and what it says of each of them."""
    named = next((key for end, key in DEPTHS.items() if f".{path}".endswith(f".{end}") and hasattr(config, key)), None)
    key = named or "num_hidden_layers"
    before = getattr(config, key, None)
    if not isinstance(before, int):
        raise BadModel(f"{path}: the config has no number of its layers; use the .pt2")
    for name, value in list(vars(config).items()):
        if "layer" in name and isinstance(value, list) and len(value) == before == now:
            setattr(config, name, [value[number] for number in kept])
    if now == before and isinstance(windows := getattr(config, "max_window_layers", None), int):
        config.max_window_layers = sum(number < windows for number in kept)
    setattr(config, key, len(kept))


def _whole_layers(short: nn.Module) -> None:
    for path, part in short.named_modules():
        if isinstance(part, PassThrough | Zero):
            raise BadModel(f"{_name(short)}: {path} was taken out of a layer, and the config counts whole layers alone")


def _untie(config: Any, short: Any) -> None:
    """Say in the config where the two ends do not share their weights any more."""
    ends = short.get_input_embeddings(), short.get_output_embeddings()
    weights = [getattr(end, "weight", None) for end in ends]
    if getattr(config, "tie_word_embeddings", False) and all(isinstance(weight, Tensor) for weight in weights):
        config.tie_word_embeddings = weights[0] is weights[1]


def _fitting(cls: type, config: Any, state: Mapping[str, Tensor]) -> Any:
    """A model of that class whose weights have these names and shapes, with the widths of its config changed for it."""
    made = _made(cls, config)
    own = made.state_dict()
    strange = sorted(state.keys() ^ own.keys())
    if strange:
        raise BadModel(f"{cls.__name__}: {strange[0]} is no weight that its config says; use the .pt2")
    if _differ(own, state) is None:
        return made
    for changes in _changes(config, own, state):
        changed = copy.deepcopy(config)
        try:
            for key, value in changes.items():
                setattr(changed, key, value)
            made = _made(cls, changed)
        except (ValueError, TypeError, ZeroDivisionError):  # the class refuses such widths: as heads that do not divide
            continue
        if _differ(made.state_dict(), state) is None:
            return made
    name = _differ(own, state)
    assert name is not None
    raise BadModel(
        f"{cls.__name__}: {name} has shape {list(state[name].shape)}, and the config has one width for all layers "
        f"({list(own[name].shape)} here); narrow all layers alike, or use the .pt2"
    )


def _changes(config: Any, own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> Iterator[dict[str, int]]:
    """Widths that could explain the shapes: each alone, then together."""
    pairs = {
        (before, after)
        for name, value in state.items()
        if value.dim() == own[name].dim()
        for before, after in zip(own[name].shape, value.shape, strict=True)
        if before != after
    }
    options: dict[str, set[int]] = {}
    for key in WIDTHS:
        now = getattr(config, key, None)
        now = 4 * config.hidden_size if key == "n_inner" and hasattr(config, key) and now is None else now
        if isinstance(now, int) and now > 0:
            found = {
                now * after // before for before, after in pairs if before % now == 0 and now * after % before == 0
            }
            if found - {0}:
                options[key] = found - {0}
    heads = getattr(config, "num_attention_heads", 0)
    fixed = {}
    if hasattr(config, "head_dim") and heads:  # it follows from the heads, where it is not said
        fixed["head_dim"] = config.head_dim or config.hidden_size // heads
    ways = product(*([None, *sorted(values)] for values in options.values()))
    for _, way in zip(range(MOST), sorted(ways, key=lambda way: sum(value is not None for value in way)), strict=False):
        chosen = {key: value for key, value in zip(options, way, strict=True) if value is not None}
        if chosen:
            yield {**fixed, **chosen}


def _differ(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str | None:
    """The first weight of another shape, None where all agree."""
    return next((name for name in state if state[name].shape != own[name].shape), None)


def _made(cls: Any, config: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        return cls(copy.deepcopy(config))


def _again(cls: Any, folder: Path) -> nn.Module:
    """The model in a folder. Raises BadModel where a weight is missing, left over or of another shape."""
    found, told = cls.from_pretrained(folder, local_files_only=True, use_safetensors=True, output_loading_info=True)
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if told[what]:
            raise BadModel(
                f"{cls.__name__}: read again, {what.replace('_', ' ')}: {sorted(told[what])[0]}; use the .pt2"
            )
    again: nn.Module = found
    return again.eval()


def _compare(module: nn.Module, again: nn.Module, example: Any) -> None:
    wanted, found = (_answer(each, example) for each in (module, again))
    within = TOLERANCES.get(wanted.dtype, 1e-5) * max(float(wanted.abs().max()), 1.0)
    gap = float((wanted.double() - found.double()).abs().max()) if wanted.shape == found.shape else float("nan")
    if not gap <= within:
        raise BadModel(f"{_name(module)}: read again it is {gap:.3g} off, {within:.3g} is allowed; use the .pt2")


def _answer(module: nn.Module, example: Any) -> Tensor:
    args, kwargs = arguments(example)
    with unmarked(module), torch.no_grad():
        return answer(module(*args, **kwargs))


def _name(module: nn.Module) -> str:
    return type(module).__name__


@contextmanager
def _silent() -> Iterator[None]:
    """transformers draws bars and logs while it writes and reads."""
    try:
        from transformers.utils import logging
    except ImportError as error:
        raise MissingExtra("save_pretrained needs transformers; pip install 'shoal[huggingface]'") from error
    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        with quiet():
            yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()
