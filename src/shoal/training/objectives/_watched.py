"""What parts of a module read in a run, while others look on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from shoal.core.errors import BadModel
from shoal.core.example import tensors
from shoal.core.spans import Left


@contextmanager
def reading(module: nn.Module, paths: Sequence[str], *, leave: bool = False) -> Iterator[dict[str, Tensor]]:
    """The main tensor that each part is given on its first call; copies, since a part may write to its input.

    ``leave``: the run ends as soon as all are read, with :class:`Left`: what stands behind is then not run at all.
    Raises BadModel where there is no such part.
    """
    read: dict[str, Tensor] = {}

    def seen(path: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if path not in read:
            read[path] = tensors((args, kwargs))[0].clone()
        if leave and len(read) == len(set(paths)):
            raise Left(None)

    handles = [
        _part(module, path).register_forward_pre_hook(
            lambda _, args, kwargs, path=path: seen(path, args, kwargs), with_kwargs=True
        )
        for path in dict.fromkeys(paths)
    ]
    try:
        yield read
    finally:
        for handle in handles:
            handle.remove()


def _part(module: nn.Module, path: str) -> nn.Module:
    try:
        return module.get_submodule(path)
    except AttributeError:
        raise BadModel(f"hints: {type(module).__name__} has no part {path!r}; name a span of it") from None
