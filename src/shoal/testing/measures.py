"""Checks of measures, on small modules of six families: a row a span, all finite, and the module as it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file

from shoal.core.base import Measure
from shoal.core.errors import Refused
from shoal.core.scene import Scene
from shoal.testing._samples import Subject, build, require
from shoal.testing._strangers import scenes, unsettled

LEAST = 2  # of the families: so many a measure must be able to look at


def one_row_a_span(subject: Subject) -> None:
    """``path`` and ``visit`` of every visited span in their order, then numbers, all finite."""
    seen = 0
    for name, scene, found in _tables(subject):
        seen += 1
        require(
            list(found.columns[:2]) == ["path", "visit"], f"{name}: the first columns are {list(found.columns[:2])}"
        )
        require(len(found.columns) > 2, f"{name}: there is no number in the table")
        ends = list(zip(found["path"], found["visit"], strict=True))
        require(ends == [tuple(span.at) for span in scene.spans], f"{name}: the rows are {ends}, not its visited spans")
        for column in found.columns[2:]:
            require(pd.api.types.is_numeric_dtype(found[column]), f"{name}: column {column!r} holds no numbers")
            require(bool(np.isfinite(found[column]).all()), f"{name}: column {column!r} is not finite")
    require(seen >= LEAST, f"it refuses all but {seen} of the families")


def leaves_the_module_alone(subject: Subject) -> None:
    """Weights, gradients, flags, hooks and the random state are as they were, whatever mode the module was in."""
    for name, scene in scenes():
        before = unsettled(scene.module)
        _table(subject, scene)
        require(not before.changed(), f"{name}: {before.changed()}")


def repeats(subject: Subject) -> None:
    """The same scene gives the same table, also where the module is in training mode."""
    for name, scene in scenes():
        found = _table(subject, scene)
        scene.module.train()
        again = _table(subject, scene)
        if found is not None and again is not None:
            require(found.equals(again), f"{name}: a second table is another")
        else:
            require(found is None and again is None, f"{name}: it refuses the module once, and once not")


def _tables(subject: Subject) -> Iterator[tuple[str, Scene, pd.DataFrame]]:
    for name, scene in scenes():
        found = _table(subject, scene)
        if found is not None:
            yield name, scene, found


def _table(subject: Subject, scene: Scene) -> pd.DataFrame | None:
    """The table; None where the module is refused, in one line."""
    with TemporaryDirectory() as folder:
        measure = _measure(subject, scene, Path(folder) / "other.safetensors")
        try:
            return measure.table(scene)
        except Refused as error:
            require("\n" not in str(error), f"it is refused in several lines: {error}")
            return None


def _measure(subject: Subject, scene: Scene, path: Path) -> Measure:
    """The measure at its tiny settings; where it asks for `other` weights, there are some."""
    settings = {}
    if "other" in subject.kind.settings(subject.name):
        drawn = torch.Generator().manual_seed(1)
        weights = {name: weight.detach().contiguous() for name, weight in scene.module.named_parameters()}
        save_file({name: one + 0.1 * torch.randn(one.shape, generator=drawn) for name, one in weights.items()}, path)
        settings["other"] = str(path)
    made = build(subject, subject.with_settings(**settings))
    assert isinstance(made, Measure)
    return made
