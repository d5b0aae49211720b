"""Operations: one executed operation as a record of plain values."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

from shoal.costing.counting.storage import bytes_of
from shoal.costing.counting.work import Call, Work
from shoal.costing.table import Operation, Shape

# what looks rows of its first argument up: only what comes out is read of it
_LOOKUPS = {"embedding", "index_select", "gather", "index", "_unsafe_index", "take", "_embedding_bag_forward_only"}


def record(call: Call, work: Work, at: Any) -> Operation:
    """What was done, ``at`` which call of a module (``path`` and ``call``)."""
    given = [*call.given, *_packed(call)]
    first = [*call.made, *given][:1]
    return Operation(
        name=call.name,
        path=at.path,
        call=at.call,
        inputs=tuple(shape_of(tensor) for tensor in given),
        output=shape_of(call.made[0]) if call.made else None,
        settings=_settings(call),
        macs=work.macs or 0,
        flops=work.flops,
        moved=_moved(call.key, given, call.made),
        dtype=str(first[0].dtype).removeprefix("torch.") if first else "",
    )


def shape_of(tensor: Tensor) -> Shape:
    """A tensor's sizes; of several tensors nested in one only how many they are."""
    return (tensor.size(0),) if tensor.is_nested else tuple(tensor.shape)


def _settings(call: Call) -> tuple[object, ...]:
    """The arguments that are no tensors, in the order of the operation's signature, with their defaults."""
    if not isinstance(call.func, OpOverload):  # a higher order operator has no signature to read
        return ()
    found: list[object] = []
    for place, name, default in _signature(call.func):
        found.append(_plain(call.args[place] if place < len(call.args) else call.kwargs.get(name, default)))
    return tuple(found)


@cache
def _signature(func: OpOverload) -> list[tuple[int, str, Any]]:
    """Place, name and default of the arguments that are no tensors."""
    declared = enumerate(func._schema.arguments)
    return [(place, each.name, each.default_value) for place, each in declared if "Tensor" not in str(each.type)]


def _plain(value: Any) -> object:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return tuple(_plain(each) for each in value)
    return "packed" if isinstance(value, torch.ScriptObject) else str(value).removeprefix("torch.")


def _packed(call: Call) -> list[Tensor]:
    """The weights of quantised layers, which come packed for their kernel."""
    objects = [arg for arg in call.args if isinstance(arg, torch.ScriptObject) and hasattr(arg, "unpack")]
    return [packed.unpack()[0] for packed in objects]


def _moved(name: str, given: Sequence[Tensor], made: Sequence[Tensor]) -> int:
    if "empty" in name:
        return 0  # nothing is written yet
    written = sum(bytes_of(tensor) for tensor in {id(tensor): tensor for tensor in made}.values())
    read = {id(tensor): bytes_of(tensor) for tensor in given}
    if given and name in _LOOKUPS:
        table = id(given[0])
        read[table] = min(read[table], written)
    return written + sum(read.values())
