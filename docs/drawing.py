"""A wiring as a drawing, from `reads()` alone: nodes from left to right, an arc from what is read to who reads it.

A node stands one column behind the last that it reads, so layers side by side stand one above the other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

RADIUS, COLUMN, ROW = 13, 74, 52


def drawing(reads: Sequence[set[int]], title: str) -> str:
    """An SVG of len(reads) + 1 nodes: the input, each visited layer, the output. Colours come from the page."""
    columns = [0]
    for read in reads:
        columns.append(1 + max((columns[node] for node in read), default=0))
    stacks: dict[int, list[int]] = defaultdict(list)
    for node, column in enumerate(columns):
        stacks[column].append(node)
    at = {
        node: (column * COLUMN, round((row - (len(stack) - 1) / 2) * ROW))
        for column, stack in stacks.items()
        for row, node in enumerate(stack)
    }
    arcs, top, bottom = [], 0.0, 0.0
    for target, read in enumerate(reads, start=1):
        for source in sorted(read):
            (x0, y0), (x1, y1), span = at[source], at[target], columns[target] - columns[source]
            if span == 1:
                middle = (x0 + x1) / 2
                path = f"M{x0 + RADIUS},{y0} C{middle},{y0} {middle},{y1} {x1 - RADIUS},{y1}"
                arcs.append(f'<path class="arc near" d="{path}"/>')
                continue
            side = -1 if y0 + y1 <= 0 else 1
            edge = side * max(abs(y) for stack in stacks.values() for y in (at[stack[0]][1], at[stack[-1]][1]))
            high = edge + side * (22 + 21 * span)
            path = f"M{x0},{y0 + side * RADIUS} C{x0 + 14},{high} {x1 - 14},{high} {x1},{y1 + side * RADIUS}"
            arcs.append(f'<path class="arc" d="{path}"/>')
            reach = y0 / 8 + 3 * high / 4 + y1 / 8  # how far a cubic goes of the way to its handles
            top, bottom = min(top, reach), max(bottom, reach)
    ys = [y for _, y in at.values()]
    top, bottom = min([top, *(y - RADIUS for y in ys)]) - 4, max([bottom, *(y + RADIUS for y in ys)]) + 4
    left, width = -RADIUS - 4, max(columns) * COLUMN + 2 * RADIUS + 8
    names = ["x", *(f"f{i}" for i in range(1, len(reads))), "y"]
    nodes = [
        f'<g class="node{"" if 0 < node < len(reads) else " end"}"><circle cx="{x}" cy="{y}" r="{RADIUS}"/>'
        f'<text x="{x}" y="{y}" dy=".35em">{names[node]}</text></g>'
        for node, (x, y) in at.items()
    ]
    box = f"{left} {top:.0f} {width} {bottom - top:.0f}"
    return (
        f'<svg class="wiring" viewBox="{box}" width="{width}" role="img" aria-label="{title}">'
        f"{''.join(arcs)}{''.join(nodes)}</svg>"
    )
