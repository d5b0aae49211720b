"""Checks of interventions, on small modules of six families: places that there are, changes that leave no trace."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from shoal.core.base import Intervention
from shoal.core.errors import Refused
from shoal.core.resuming import Resumable
from shoal.core.scene import Scene, answer
from shoal.core.spans import Change, Span, Visit
from shoal.intervening import Trial, placed
from shoal.testing._samples import Subject, build, require
from shoal.testing._strangers import dead, scenes, unsettled

MEMORY = 1 << 30
NEAR = 1e-3  # a distance of answers: an exit is fitted with a ridge

Done = tuple[tuple[Span, ...], Mapping[Visit, Change]]


def places_are_spans(subject: Subject) -> None:
    """Places are runs of visited spans in the order in which they run, none twice; there are some."""
    some = 0
    for name, scene in scenes():
        order = {span.at: number for number, span in enumerate(scene.spans)}
        places = list(_intervention(subject).places(scene.anatomy))
        some += len(places)
        require(len(set(places)) == len(places), f"{name}: a place is named twice")
        for spans in places:
            require(len(spans) > 0, f"{name}: a place has no span")
            require(all(span.at in order for span in spans), f"{name}: {spans} are not all visited spans")
            numbers = [order[span.at] for span in spans]
            require(numbers == sorted(set(numbers)), f"{name}: {spans} are not in the order in which they run")
    require(some > 0, "it finds no place in any of the families")


def changes_are_at_its_places(subject: Subject) -> None:
    """What is changed are visits of the place, at least one."""
    for name, scene in scenes():
        for spans, changes in _done(subject, scene):
            visits = {span.at for span in spans}
            require(bool(changes) and set(changes) <= visits, f"{name}: at {visits} it changes {set(changes)}")


def answers_are_answers(subject: Subject) -> None:
    """With the change, the module gives finite numbers of the shape that it gave, the same ones every time."""
    for name, scene in scenes():
        done = _done(subject, scene)
        with scene.runs() as runs:
            for batch in scene.batches:
                tape = runs.record(batch.example)
                own = answer(tape.output)
                for spans, changes in done:
                    found, again = (answer(runs.resume(tape, changes)) for _ in range(2))
                    require(found.shape == own.shape, f"{name}: at {spans} it answers {list(found.shape)}")
                    require(bool(found.isfinite().all()), f"{name}: at {spans} an answer is not finite")
                    require(torch.equal(found, again), f"{name}: at {spans} a second run answers something else")


def leaves_the_module_alone(subject: Subject) -> None:
    """Afterwards the module is as it was, and answers bit for bit what it answered."""
    for name, scene in scenes():
        wanted = _answers(scene)
        before = unsettled(scene.module)
        Trial(scene).told([changes for _, changes in _done(subject, scene)])
        require(not before.changed(), f"{name}: {before.changed()}")
        same = all(torch.equal(a, b) for a, b in zip(wanted, _answers(scene), strict=True))
        require(same, f"{name}: it answers something else than before")


def learns_as_said(subject: Subject) -> None:
    """What says that it learns, learns; what does not refuses to, in one line."""
    scene = dead()
    one = _intervention(subject)
    spans = next(iter(one.places(scene.anatomy)), scene.spans[:1])
    x = torch.randn(12, *spans[0].shape[1:])
    if one.learns:
        one.learn(spans, x, x, torch.randn(12, 3))
        require(bool(one.changes(spans)), "it has learned, and changes nothing")
        return
    try:
        one.learn(spans, x, x, x)
    except Refused as error:
        require("\n" not in str(error), f"it is refused in several lines: {error}")
        return
    require(False, "it learns, but does not say so; set `learns`")


def nothing_where_nothing_is_added(subject: Subject) -> None:
    """Where no layer adds anything, whatever is done to layers is no change."""
    scene = dead()
    done = _done(subject, scene)
    for (spans, _), told in zip(done, Trial(scene).told([changes for _, changes in done])[1], strict=True):
        gap = float(np.max(told.distance))
        require(gap < NEAR, f"at {[span.path for span in spans]}, which adds nothing, the answers move by {gap:.3g}")


def _intervention(subject: Subject) -> Intervention:
    made = build(subject)
    assert isinstance(made, Intervention)
    return made


def _done(subject: Subject, scene: Scene) -> list[Done]:
    """Every place and what is changed there; what learns has learned."""
    one = _intervention(subject)
    return [(spans, changes) for _, spans, changes in placed(scene, {subject.name: one}, MEMORY)]


def _answers(scene: Scene) -> list[Tensor]:
    with Resumable(scene.module, ()) as runs:
        return [answer(runs.record(batch.example).output) for batch in scene.batches]
