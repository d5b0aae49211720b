"""Specs for people: what a spec costs stage by stage, and a drawing of who reads whom, both computed from behaviour."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from shoal.commands._talk import Talk
from shoal.core.base import Task
from shoal.core.errors import BadSpec, ShoalError
from shoal.core.spec import Spec, Stage, wiring_of
from shoal.costing import Cost, cost
from shoal.data import Dataset
from shoal.kinds import TASKS
from shoal.net import complete, empty

WIDEST = 40  # layers that are drawn side by side


class StandIn(NamedTuple):
    """Rows of some kind, for a spec that does not say what it is for."""

    name: str
    places: tuple[int, ...]
    channels: int
    vocabulary: int | None = None


STAND_INS = (
    StandIn("a row of a table", (), 16),
    StandIn("a sequence", (64,), 8),
    StandIn("an image", (16, 16), 3),
    StandIn("a text", (64,), 0, 256),
)


def show_spec(talk: Talk, spec: Spec, data: Dataset | None) -> dict[str, Any]:
    """Say what the spec is and costs; the same as JSON."""
    full, example, on = _stand_in(spec) if data is None else _for(spec, data)
    found = cost(empty(full), example)
    talk.say(str(full))
    talk.say(f"{found} (on {on})\n")
    rows = [_row(index, stage, found) for index, stage in enumerate(full.stages)]
    talk.table(["stage", "wiring", "layers", "width", "visits", "params", "macs"], rows)
    drawn = []
    for index, stage in enumerate(full.stages):
        reads = wiring_of(stage.wiring, stage.dim, stage.depth).reads()
        drawn.append([sorted(read) for read in reads])
        talk.say(f"\nstage {index}: who reads whom\n{drawing(stage, reads)}")
    return {"text": str(full), "spec": full.to_json(), "cost": found.to_json(), "on": on, "reads": drawn}


def _row(index: int, stage: Stage, found: Cost) -> tuple[Any, ...]:
    own = [layer for layer in found.calls if layer.path.startswith(f"stages.{index}.")]
    params = sum(layer.params for layer in own if layer.call == 0)
    macs = sum(layer.macs for layer in own)
    return index, str(stage.wiring), len(stage.layers), stage.dim, stage.depth, params, macs


def drawing(stage: Stage, reads: list[set[int]]) -> str:
    """A line a layer, and one for the output; a column for the input and for what each layer gave."""
    calls = len(reads) - 1  # a wiring may call its layers more than once
    if calls > WIDEST:
        return f"  {calls} layers are too many to draw; --json has them"
    order = [stage.layers[stage.visits[call % stage.depth]].block.name for call in range(calls)]
    names = [*(f"{call + 1:>2} {name}" for call, name in enumerate(order)), "out"]
    wide = max(len(name) for name in names)
    lines = [f"  {'':{wide}}  " + " ".join(f"{node or 'in':>2}" for node in range(calls + 1))]
    for row, (name, read) in enumerate(zip(names, reads, strict=True)):
        marks = " ".join(f"{'o' if node in read else '.':>2}" for node in range(min(row, calls) + 1))
        lines.append(f"  {name:{wide}}  {marks}")
    return "\n".join(lines)


def _for(spec: Spec, data: Dataset) -> tuple[Spec, Tensor, str]:
    """The spec completed for some data, a row of it, and what it is called."""
    asked = data.signature
    task: Task = TASKS.make(asked.task)
    full = complete(spec, asked.places, asked.channels, asked.vocabulary, task.outputs, type(task).head)
    return full, data.example(1).to("meta"), f"one row of {data.name}"


def _stand_in(spec: Spec) -> tuple[Spec, Tensor, str]:
    """The same for the first of the stand-ins that the spec runs on."""
    why: ShoalError | None = None
    given = spec.stem.settings if spec.stem else {}
    for one in STAND_INS:
        channels = given.get("channels", given.get("features", one.channels))
        places = (int(str(given["length"])),) if "length" in given else one.places
        tokens = torch.zeros(1, *places, dtype=torch.int64, device="meta")
        try:
            full = complete(spec, places, int(str(channels)), one.vocabulary, 10)
            x = tokens if one.vocabulary else torch.zeros(1, *places, int(str(channels)), device="meta")
            empty(full)(x)
        except ShoalError as error:
            why = why or error
        except (RuntimeError, IndexError, ValueError):
            continue  # this net is not for such rows
        else:
            return full, x, f"{one.name} {list(x.shape[1:])}, as a stand-in: --like DATA says on what"
    raise why or BadSpec(f"spec {spec}: runs on no stand-in; say on what with --like DATA")
