"""Costing as a verb does it: a target opened, counted, timed and held against the roof; told as a table or as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from rich.table import Table
from rich.text import Text

from shoal.commands._inputs import Given
from shoal.commands._layers import Layer, Standing, at_roof, farthest, standing
from shoal.commands._open_target import open_target
from shoal.commands._talk import Talk, stdout_kept
from shoal.commands._target import Target, Times
from shoal.costing import Cost
from shoal.costing.table import Shape
from shoal.costing.timing.roofline import Roof, measure_roof
from shoal.report.format import bare_ms, count, milliseconds, size

MOST = 20  # layers in a table that is cut
LEAST = 0.005  # of the multiply-adds or of the time: layers below both are left out of it


class Measured(NamedTuple):
    """What only a clock can tell."""

    times: Times
    roof: Roof
    standing: Standing


def costed(talk: Talk, text: str, given: Given, threads: int | None, *, every: bool, timed: bool) -> None:
    """Count, time and tell. What is wrong with the target is raised before anything is said."""
    with stdout_kept():
        target = open_target(text, given)
    layers, measured = target.layers, None
    if timed:
        with stdout_kept(), talk.progress(f"timing {text}") as tick:
            tick(None, "the model, then the machine")
            times = target.time(threads)
            roof = measure_roof(threads)
        found = standing(target.cost.macs, target.operations, times.latency.median / 1e3, roof)
        measured = Measured(times, roof, found)
        layers = at_roof(layers, times.ms, roof)
    _tell(talk, target, layers, measured, every)
    talk.done(_json(text, target, layers, measured))


def _tell(talk: Talk, target: Target, layers: list[Layer], measured: Measured | None, every: bool) -> None:
    talk.say(f"{target.name}, on {target.on}\n")
    shown = layers if every else _that_matter(layers)
    talk.show(_table(shown, target.cost.macs, measured))
    if len(shown) < len(layers):
        talk.say(f"and {len(layers) - len(shown)} smaller layers (--all shows them)")
    talk.say(f"\ntotal     {_totals(target)}")
    if target.cost.lower_bound:
        talk.say(f"uncounted {', '.join(target.cost.uncounted)}: multiply-adds are at least as many as said")
    if measured is not None:
        _tell_measured(talk, target, layers, measured)


def _tell_measured(talk: Talk, target: Target, layers: list[Layer], measured: Measured) -> None:
    times, roof, found = measured
    talk.say(f"latency   {times.latency}")
    if times.ms is None:
        talk.say(f"          {times.latency.runtime} fuses layers into one another: they are not timed one by one")
    else:
        talk.say(f"          timed one by one, the layers add up to {milliseconds(sum(times.ms.values()))}")
    fastest = max((rate for _, rate in roof.caches), default=roof.bytes_per_s)
    talk.say(
        f"roof      {count(roof.macs_per_s)} multiply-adds/s in float32, {size(roof.bytes_per_s)}/s from memory, "
        f"{size(fastest)}/s from cache, as measured now with {roof.threads} threads"
    )
    talk.say(
        f"reached   {found.macs_share:.1%} of the multiply-adds, {found.bandwidth_share:.1%} of the bandwidth; "
        f"at the roof it would take {milliseconds(found.least_ms)}"
    )
    for index, layer in enumerate(farthest(layers)):
        saves = f"{milliseconds(layer.above_ms)} of {milliseconds(layer.ms or 0.0)}"
        talk.say(f"{'farthest' if index == 0 else '':9} {_path(layer)} could save {saves} at best ({layer.by})")


def _totals(target: Target) -> str:
    found = target.cost
    at_least = "at least " if found.lower_bound else ""
    words = [f"{count(found.params)} params", f"{at_least}{count(found.macs)} MACs"]
    if isinstance(found, Cost):
        words.append(f"{at_least}{count(found.flops)} flops")
    words.append(f"{size(found.bytes)} of weights")
    if isinstance(found, Cost):
        peak = found.activation_bytes
        training = "" if peak.training is None else f" ({size(peak.training)} in training)"
        words.append(f"{size(peak.inference)} of activations at once{training}")
    return ", ".join([*words, f"depth {found.depth}"])


def _that_matter(layers: Sequence[Layer]) -> list[Layer]:
    """Those with the largest shares of the multiply-adds or of the time, in their order."""
    macs, ms = sum(layer.macs for layer in layers), sum(layer.ms or 0.0 for layer in layers)

    def weight(layer: Layer) -> float:
        return max(layer.macs / max(macs, 1), (layer.ms or 0.0) / ms if ms else 0.0)

    kept = sorted(range(len(layers)), key=lambda at: -weight(layers[at]))[:MOST]
    return [layers[at] for at in sorted(kept) if weight(layers[at]) >= LEAST or len(layers) <= MOST]


def _table(layers: Sequence[Layer], macs: int, measured: Measured | None) -> Table:
    table = Table(box=None, pad_edge=False, show_edge=False)
    for name in ("layer", "type", "input => output"):
        table.add_column(name, overflow="fold")
    timed = ["ms", "of roof"] if measured and measured.times.ms is not None else ["at least"] if measured else []
    for name in ("params", "MACs", "share", *timed):
        table.add_column(name, justify="right", no_wrap=True)
    if measured:
        table.add_column("bound by")
    for layer in layers:
        cells = [count(layer.params), count(layer.macs), f"{layer.macs / max(macs, 1):.1%}"]
        if timed == ["at least"]:
            cells.append(milliseconds(layer.least_ms or 0.0))
        elif timed:
            cells += [bare_ms(layer.ms or 0.0), "" if layer.reach is None else f"{layer.reach:.0%}"]
        shapes = f"{_shape(layer.input_shape)} => {_shape(layer.output_shape)}"
        rest = [Text(each) for each in (*cells, *([layer.by or ""] if measured else []))]
        table.add_row(Text(_path(layer)), Text(layer.type), Text(shapes), *rest)
    return table


def _path(layer: Layer) -> str:
    path = layer.path or "(itself)"
    return path if layer.calls == 1 else f"{path} x{layer.calls}"


def _shape(shape: Shape | None) -> str:
    return "-" if shape is None else "x".join(map(str, shape)) or "number"


def _json(text: str, target: Target, layers: Sequence[Layer], measured: Measured | None) -> dict[str, Any]:
    found = {
        "target": text,
        "kind": target.kind,
        "name": target.name,
        "on": target.on,
        "cost": {key: value for key, value in target.cost.to_json().items() if key not in ("layers", "nodes")},
        "lower_bound": target.cost.lower_bound,
        "layers": [{**layer.to_json(), "share": layer.macs / max(target.cost.macs, 1)} for layer in layers],
    }
    if measured is None:
        return {**found, "latency": None, "roof": None, "standing": None, "farthest": []}
    return {
        **found,
        "latency": measured.times.latency.to_json(),
        "roof": measured.roof.to_json(),
        "standing": asdict(measured.standing),
        "farthest": [layer.path for layer in farthest(layers)],
    }
