"""Cells: the parts that a module is cut into, so that runs of it may begin in the middle."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from torch import nn

from shoal.core.errors import BadModel


def cells(module: nn.Module, paths: Collection[str]) -> tuple[str, ...]:
    """The paths, and the largest modules around them that hold none; in the order of the tree."""
    found: list[str] = []
    seen: set[int] = set()

    def go(part: nn.Module, path: str) -> None:
        for name, child in part.named_children():
            inner = f"{path}.{name}" if path else name
            if id(child) in seen:
                continue
            seen.add(id(child))
            if inner not in paths and (_holds(inner, paths) or not _called(child)):
                go(child, inner)
            else:
                found.append(inner)

    go(module, "")
    missing = [path for path in paths if path not in found]
    if missing:
        raise BadModel(f"{missing[0]}: lies within another span, or the module has no such part; leave one out")
    return tuple(found)


def _holds(path: str, paths: Collection[str]) -> bool:
    return any(other.startswith(f"{path}.") for other in paths)


def _called(part: nn.Module) -> bool:
    """Whether it is called itself, and not only what it holds."""
    return not isinstance(part, nn.ModuleList | nn.ModuleDict | nn.ParameterList | nn.ParameterDict)


def around(module: nn.Module, inner: Collection[str]) -> Iterator[nn.Module]:
    """The modules that hold cells."""
    for path, part in module.named_modules():
        if path and _holds(path, inner):
            yield part
