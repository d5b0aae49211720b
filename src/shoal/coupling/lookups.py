"""Look-ups: rules of the operations that read or write by number. An axis whose numbers count stays."""

from __future__ import annotations

from shoal.coupling.following import Follow, Rule, alike, axis_of
from shoal.coupling.labels import Axes, Axis
from shoal.coupling.recording import Operation, Value


def embedding(follow: Follow, op: Operation) -> list[Axes]:
    """A row for each number."""
    rows, width = follow.of(op.given["weight"])
    follow.labels.pin(rows, f"its rows are looked up by number {follow.here}")
    return [(*follow.of(op.given["indices"]), width)]


def bags(follow: Follow, op: Operation) -> list[Axes]:
    """Rows for numbers, those of a bag summed or averaged; what comes beside counts the numbers of each bag."""
    rows, width = follow.of(op.given["weight"])
    follow.labels.pin(rows, f"its rows are looked up by number {follow.here}")
    return [(follow.labels.fixed(follow.shape(op.made[0])[0], f"it is a bag {follow.here}"), width)]


def indexed(follow: Follow, op: Operation) -> list[Axes]:
    """x[..., index, ...]: the axes that are not indexed stay what they are."""
    x, indices = follow.of(op.given["self"]), op.given["indices"]
    used = [place for place, index in enumerate(indices) if index is not None]
    for place in used:
        follow.labels.pin(x[place], f"it is looked up by number {follow.here}")
    dims = len(follow.shape(op.made[0])) - (len(x) - len(used))
    first = used[0] if used == list(range(used[0], used[0] + len(used))) else 0
    kept = [axis for place, axis in enumerate(x) if place not in used]
    shape = follow.shape(op.made[0])[first : first + dims]
    found = [follow.labels.fixed(size, f"it is looked up by number {follow.here}") for size in shape]
    return [(*kept[:first], *found, *kept[first:])]


def put(follow: Follow, op: Operation) -> list[Axes]:
    """Values added or put at numbers of an axis: that axis stays, the others go together."""
    x, dim = follow.of(op.given["self"]), op.given.get("dim")
    source = op.given.get("source", op.given.get("src"))
    place = axis_of(dim, len(x))
    why = f"it is written to by number {follow.here}"
    follow.labels.pin(x[place], why)
    others = [follow.of(value) for value in (source, op.given["index"]) if isinstance(value, Value)]
    for axes in others:
        if len(axes) != len(x):
            continue  # the index of index_add: one number a row
        for n, (one, other) in enumerate(zip(x, axes, strict=True)):
            if n == place or len(one) != len(other):
                follow.labels.pin(other, why)
            else:
                follow.labels.unite(one, other)
    return [x]


def index_put(follow: Follow, op: Operation) -> list[Axes]:
    """Values put at numbers of some axes; only where it is all that is said of it."""
    x = follow.of(op.given["self"])
    why = f"it is written to by number {follow.here}"
    for axis in (*x, *follow.of(op.given["values"])):
        follow.labels.pin(axis, why)
    return [x]


def picked(follow: Follow, op: Operation) -> list[Axes]:
    """index_select and gather: along one axis by number, along the others as they are."""
    x = follow.of(op.given["self"])
    place = axis_of(op.given["dim"], len(x))
    why = f"it is looked up by number {follow.here}"
    follow.labels.pin(x[place], why)
    made: list[Axis] = []
    for n, size in enumerate(follow.shape(op.made[0])):
        made.append(x[n] if n != place and len(x[n]) == size else follow.labels.fixed(size, why))
    if op.name == "gather":
        for axis, other in zip(made, follow.of(op.given["index"]), strict=True):
            follow.labels.unite(axis, other)
    return [tuple(made)]


LOOKUPS: dict[str, Rule] = {
    **alike("index_add index_copy scatter scatter_add scatter_reduce index_reduce", put),
    **alike("index_select gather", picked),
    "embedding": embedding,
    **alike("_embedding_bag _embedding_bag_forward_only", bags),
    "index": indexed,
    "index_put": index_put,
}
