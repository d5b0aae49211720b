"""Partitions: an image cut into pieces of one size, and what each piece is told about all of it; for ``rep_mlp``."""

from __future__ import annotations

from torch import Tensor

from shoal.core.errors import BadModel, BadSetting


def checked(block: str, size: tuple[int, ...], dim: int, out: int, groups: int) -> tuple[int, int]:
    """The height and width of a piece. Raises BadSetting."""
    if len(size) != 2 or min(size) < 1:
        raise BadSetting(f"block {block}: size={list(size)} is no height and width of a piece; give two, at least 1")
    if groups < 1 or dim % groups or out % groups:
        raise BadSetting(f"block {block}: {groups} groups do not divide widths {dim} and {out}; choose a divisor")
    return size[0], size[1]


def cut(x: Tensor, size: tuple[int, int]) -> Tensor:
    """(batch, rows, columns, dim) -> (batch * pieces, dim, *size). Raises BadModel where they do not fit."""
    (_, rows, columns, _), (high, wide) = x.shape, size
    if rows % high or columns % wide:
        raise BadModel(
            f"block rep_mlp: places {rows} x {columns} are no whole pieces of {high} x {wide}; "
            "choose a size that divides them"
        )
    pieces = x.unflatten(2, (columns // wide, wide)).unflatten(1, (rows // high, high))
    return pieces.permute(0, 1, 3, 5, 2, 4).flatten(0, 2)


def laid_out(pieces: Tensor, rows: int, columns: int) -> Tensor:
    """The inverse of :func:`cut`."""
    high, wide = pieces.shape[-2:]
    grid = pieces.unflatten(0, (-1, rows // high, columns // wide))
    return grid.permute(0, 1, 4, 2, 5, 3).flatten(3, 4).flatten(1, 2)
