"""Baselines: what scikit-learn makes of the very same rows, so that a net can be told good from bad. Tables only.

    linear     logistic regression, or ridge
    boosting   gradient boosting over histograms, with its defaults

Both learn from the training part as it was prepared for the net, and are scored once on the test part.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shoal.core.base import Task
from shoal.core.errors import BadData
from shoal.data import Dataset
from shoal.evidence import Evidence, Verdict, compare
from shoal.kinds import TASKS
from shoal.training.evaluate import judged


@dataclass(frozen=True, eq=False)
class Baseline:
    """A model that a net should beat: its scores and quality on the test part, and what is to be known of it."""

    name: str
    scores: np.ndarray
    quality: Evidence
    note: str = ""

    def against(self, scores: np.ndarray, margin: float) -> Verdict:
        """Whether a net of these scores on the same rows is better, equivalent or worse: paired."""
        return compare(self.scores, scores, margin)


def baselines(data: Dataset, *, seed: int = 0) -> list[Baseline]:
    """Fit and score the baselines. Raises BadData for data that are no table."""
    signature = data.signature
    if signature.places or signature.vocabulary is not None or signature.task.name not in MAKERS:
        raise BadData(
            f"{data.name}: baselines are for tables of features; this holds {signature.places} {signature.task}"
        )
    task: Task = TASKS.make(signature.task)
    return [_scored(name, model, data, task) for name, model in MAKERS[signature.task.name](seed, task.outputs).items()]


def _classifiers(seed: int, _outputs: int) -> dict[str, Any]:
    from sklearn.ensemble import HistGradientBoostingClassifier  # slow to import, and only needed here
    from sklearn.linear_model import LogisticRegression

    return {
        "linear": LogisticRegression(max_iter=1000),
        "boosting": HistGradientBoostingClassifier(random_state=seed % 2**32),
    }


def _regressors(seed: int, outputs: int) -> dict[str, Any]:
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.linear_model import Ridge
    from sklearn.multioutput import MultiOutputRegressor

    boosting = HistGradientBoostingRegressor(random_state=seed % 2**32)
    return {"linear": Ridge(), "boosting": boosting if outputs == 1 else MultiOutputRegressor(boosting)}


MAKERS = {"classification": _classifiers, "regression": _regressors}


def _scored(name: str, model: Any, data: Dataset, task: Task) -> Baseline:
    from sklearn.exceptions import ConvergenceWarning

    x, y = _arrays(data.train.batch(slice(None)))
    rows, targets = data.test.batch(slice(None))
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(x, y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y)
    note = "; ".join(sorted({str(item.message).partition("\n")[0] for item in heard}))
    result = judged(_outputs(model, rows.numpy(), task), targets, task)
    return Baseline(name, result.scores, result.quality, note)


def _outputs(model: Any, rows: np.ndarray, task: Task) -> Tensor:
    """What a net would give: a number for each class, or the outputs."""
    if not hasattr(model, "predict_proba"):
        return torch.from_numpy(np.asarray(model.predict(rows), dtype=np.float32).reshape(len(rows), task.outputs))
    found = np.full((len(rows), task.outputs), 1e-12)  # classes without a training row
    found[:, model.classes_] = np.maximum(model.predict_proba(rows), 1e-12)
    return torch.from_numpy(np.log(found).astype(np.float32))


def _arrays(pair: tuple[Tensor, Tensor]) -> tuple[np.ndarray, np.ndarray]:
    return pair[0].numpy(), pair[1].numpy()
