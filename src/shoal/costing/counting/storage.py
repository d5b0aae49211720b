"""Storage: what tensors take in memory, whatever they are made of: strided, sparse, or wrapped around others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from shoal.core.example import tensors

SPARSE = (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc)


def parts(tensor: Tensor) -> list[Tensor]:
    """The plain tensors that hold a tensor's numbers: itself, or indices and values, or what a subclass wraps."""
    if type(tensor) is Tensor and tensor.layout is torch.strided:
        return [tensor]
    if is_traceable_wrapper_subclass(tensor):
        inner = [getattr(tensor, name) for name in tensor.__tensor_flatten__()[0]]
    elif tensor.layout is torch.sparse_coo:
        inner = [tensor._indices(), tensor._values()]
    elif tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        inner = [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    elif tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        inner = [tensor.ccol_indices(), tensor.row_indices(), tensor.values()]
    else:
        return [tensor]
    return [plain for part in inner for plain in parts(part)]


def plain(tree: Any) -> list[Tensor]:
    """The parts of all tensors in nested tuples, lists and dicts."""
    return parts_of(tensors(tree))


def parts_of(whole: Iterable[Tensor]) -> list[Tensor]:
    """The parts of all these tensors."""
    return [part for tensor in whole for part in parts(tensor)]


def is_sparse(tensor: Tensor) -> bool:
    """Whether it stores only some of its numbers."""
    return tensor.layout in SPARSE


def numbers(tensor: Tensor) -> int:
    """How many numbers it holds; of a sparse one those that it stores."""
    return parts(tensor)[-1].numel() if is_sparse(tensor) else tensor.numel()


def bytes_of(tensor: Tensor) -> int:
    """Bytes of a tensor's numbers: of an expanded one those that there are, of a sparse one those that it stores."""
    return sum(_stored(part) * part.element_size() for part in parts(tensor))


def stored_bytes(module: nn.Module) -> int:
    """Bytes of the tensors in a module's state dict: shared ones once, sparse and packed ones by their parts."""
    seen: dict[Any, int] = {}
    for tensor in plain(list(module.state_dict().values())):
        where: Any = id(tensor)
        if tensor.layout is torch.strided:
            where = (tensor.untyped_storage()._cdata, tensor.storage_offset(), tensor.shape, tensor.stride())
        seen[where] = tensor.numel() * tensor.element_size()
    return sum(seen.values())


def _stored(tensor: Tensor) -> int:
    if tensor.layout is not torch.strided or tensor.is_nested:  # neither has strides that tell
        return tensor.numel()
    stored = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        stored *= size if stride else min(size, 1)
    return stored
