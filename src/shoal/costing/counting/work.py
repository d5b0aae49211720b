"""Work: an executed operation, and what it does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

from torch import Tensor


@dataclass(frozen=True)
class Call:
    """One executed operation: torch's function, its arguments and what came out."""

    func: Any
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    out: Any

    @cached_property
    def name(self) -> str:
        """``aten.mm`` for any overload of it; a higher order operator has its own name."""
        schema = getattr(self.func, "_schema", None)
        return schema.name.replace("::", ".") if schema is not None else f"higher_order.{self.func.name()}"

    @cached_property
    def key(self) -> str:
        """The name that formulas go by: aten's without their space, what writes in place like what does not."""
        return self.name.removeprefix("aten.").rstrip("_")

    @cached_property
    def given(self) -> list[Tensor]:
        """The tensors among the arguments, in order."""
        return _flat((self.args, self.kwargs))

    @cached_property
    def made(self) -> list[Tensor]:
        """The tensors that came out, in order."""
        return _flat(self.out)

    @property
    def first(self) -> Tensor:
        """The main output; of what writes in place and gives nothing back, what it writes to."""
        return (self.made or self.given)[0]

    def named(self, name: str) -> Any:
        """An argument by its name, wherever it stands."""
        places = {argument.name: place for place, argument in enumerate(self.func._schema.arguments)}
        place = places[name]
        if place < len(self.args):
            return self.args[place]
        return self.kwargs.get(name, self.func._schema.arguments[place].default_value)


class Work(NamedTuple):
    """Multiply-adds (None: not known), all flops, the factors that are multiplied, and how often one after another."""

    macs: int | None
    flops: int = 0
    factors: Sequence[Any] = ()
    steps: int = 1


Formula: TypeAlias = Callable[[Call], Work]


def multiplied(macs: int | None, factors: Sequence[Any], beside: int = 0, steps: int = 1) -> Work:
    """The work of a product, with the flops done ``beside`` it."""
    return Work(macs, 2 * (macs or 0) + beside, factors, steps)


def _flat(tree: Any) -> list[Tensor]:
    """Arguments of operations are nested in plain tuples, lists and dicts only."""
    if isinstance(tree, Tensor):
        return [tree]
    if isinstance(tree, Mapping):
        tree = tuple(tree.values())
    return [tensor for each in tree for tensor in _flat(each)] if isinstance(tree, tuple | list) else []
