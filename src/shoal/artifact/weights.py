"""Weights: a module's tensors as safetensors, and strictly back, bit for bit.

Tensors that several names share (tied embeddings) are written once; the other names go into the folder's shoal.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from shoal.core.errors import BadArtifact, BadModel


def write_weights(module: nn.Module, path: Path) -> dict[str, str]:
    """Write a module's state; the names that share a tensor, each with the name that it is written under."""
    kept: dict[str, Tensor] = {}
    same: dict[str, str] = {}
    first: dict[tuple[object, ...], str] = {}
    state = module.state_dict()
    for name in sorted(state):
        value = state[name]
        if not isinstance(value, Tensor):
            raise BadModel(f"{type(module).__name__}: its state {name!r} is a {type(value).__name__}, not a tensor")
        if value.is_meta or value.is_sparse or value.is_quantized or type(value.data) is not Tensor:
            raise BadModel(
                f"{type(module).__name__}: {name!r} is no plain dense tensor; turn it into one before saving"
            )
        place = (value.data_ptr(), value.shape, value.stride(), value.dtype, value.device)
        if value.numel() and place in first:
            same[name] = first[place]
            continue
        first[place] = name
        kept[name] = value.detach().cpu().clone().contiguous()
    save_file(kept, path, {"format": "pt"})
    return same


def read_weights(path: Path, same: Mapping[str, str]) -> dict[str, Tensor]:
    """The inverse of :func:`write_weights`."""
    try:
        kept = load_file(path)
        return {**kept, **{name: kept[other] for name, other in same.items()}}
    except (SafetensorError, KeyError, OSError) as error:
        raise BadArtifact(f"{path}: is truncated or no safetensors ({error}); save it again") from error


def fill(module: nn.Module, weights: Mapping[str, Tensor], what: str) -> nn.Module:
    """The module with exactly these weights, types and all. Raises BadArtifact where names or shapes do not fit."""
    own = module.state_dict(keep_vars=True)
    missing, extra = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    shapes = [name for name in sorted(own.keys() & weights.keys()) if own[name].shape != weights[name].shape]
    if missing or extra or shapes:
        raise BadArtifact(
            f"{what}: its weights do not fit the base that was given (missing {missing[:3]}, left over {extra[:3]}, "
            f"other shape {shapes[:3]}); give the base that was compressed"
        )
    for name, value in weights.items():
        if own[name].dtype != value.dtype:
            own[name].data = own[name].data.to(value.dtype)
    module.load_state_dict(dict(weights), strict=True)
    return module
