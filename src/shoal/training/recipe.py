"""TrainingRecipe: how a net is trained; frozen, JSON both ways.

TrainingRecipe(epochs=10)                                  ten passes over the training part
TrainingRecipe(epochs=50, seconds=60, ema=0.99)            whichever ends first
default_recipe(data)                                       what suits such data
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from shoal.core.errors import BadSetting, suggest
from shoal.data import Dataset
from shoal.training.augment import AUGMENTS

WORDS: Mapping[str, tuple[str, ...]] = {
    "optimizer": ("adamw", "adam", "sgd"),
    "schedule": ("cosine", "constant"),
    "precision": ("auto", "float32", "bfloat16", "float16"),
}
RANGES: Mapping[str, tuple[float, float, str]] = {  # least, most, in words; None is let through where it is a default
    "lr": (1e-12, math.inf, "above 0"),
    "momentum": (0.0, 0.9999999, "at least 0 and below 1"),
    "weight_decay": (0.0, math.inf, "at least 0"),
    "warmup": (0.0, 1.0, "a share, from 0 to 1"),
    "epochs": (1e-9, math.inf, "above 0"),
    "seconds": (1e-9, math.inf, "above 0"),
    "batch": (1, math.inf, "at least 1"),
    "smoothing": (0.0, 0.9999999, "at least 0 and below 1"),
    "views": (1, math.inf, "at least 1"),
    "ema": (0.0, 0.9999999, "at least 0 and below 1"),
    "clip": (1e-12, math.inf, "above 0"),
}

WHOLE = ("batch", "views")


@dataclass(frozen=True, kw_only=True)
class TrainingRecipe:
    """How weights are learned.

    optimizer      adamw, adam or sgd (with Nesterov momentum)
    lr             the highest learning rate of the schedule
    momentum       share of the old direction that is kept (the first beta of adamw and adam)
    weight_decay   decoupled for adamw, in the gradient for adam and sgd; never on parameters of one axis
    schedule       cosine (to 0 at the end) or constant, behind the warm-up
    warmup         share of all training in which the rate rises from 0
    epochs         passes over the training part, also a fraction; None: as long as `seconds` lasts
    seconds        wall clock; the schedule then follows the share of it that has gone, and runs cannot be repeated
    batch          rows a step
    views          epochs after which batches come again, with the same rows, changed alike: what a teacher answered to
                   them is then known; None: ever new ones
    augment        names of changes made to images, in order: flip, crop, shift
    smoothing      share of the target spread over all classes, where there are classes
    ema            decay of the running average of the weights; the average is what is kept. None: the last weights
    clip           the largest norm of the whole gradient; None: as it is
    precision      of the forward pass: float32, bfloat16, float16, or auto (float32 on a CPU, else bfloat16)
    """

    optimizer: str = "adamw"
    lr: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 0.01
    schedule: str = "cosine"
    warmup: float = 0.05
    epochs: float | None = None
    seconds: float | None = None
    batch: int = 128
    views: int | None = None
    augment: tuple[str, ...] = ()
    smoothing: float = 0.0
    ema: float | None = None
    clip: float | None = None
    precision: str = "auto"

    def __post_init__(self) -> None:
        for name, known in WORDS.items():
            if getattr(self, name) not in known:
                raise BadSetting(f"recipe: {name}={getattr(self, name)!r}; {suggest(str(getattr(self, name)), known)}")
        optional = {"epochs", "seconds", "ema", "clip", "views"}
        for name, (least, most, words) in RANGES.items():
            value = getattr(self, name)
            if value is None and name in optional:
                continue
            whole = isinstance(value, int) and not isinstance(value, bool)
            if not (whole or (isinstance(value, float) and name not in WHOLE)) or not least <= value <= most:
                raise BadSetting(f"recipe: {name}={value!r} must be {'a whole number ' * (name in WHOLE)}{words}")
            if math.isinf(value):
                raise BadSetting(f"recipe: {name}={value!r} must be finite{'; leave it out' * (name in optional)}")
        if isinstance(self.augment, str) or not all(isinstance(name, str) for name in self.augment):
            raise BadSetting(f"recipe: augment={self.augment!r} must be a list of names; known: {', '.join(AUGMENTS)}")
        for name in self.augment:
            if name not in AUGMENTS:
                raise BadSetting(f"recipe: augment {name!r} is unknown; {suggest(name, AUGMENTS)}")
        object.__setattr__(self, "augment", tuple(self.augment))
        if self.epochs is None and self.seconds is None:
            raise BadSetting("recipe: neither epochs nor seconds, so training never ends; give one or both")

    def to_json(self) -> dict[str, Any]:
        """The fields by name, with a list for `augment`."""
        return {**asdict(self), "augment": list(self.augment)}

    @classmethod
    def from_json(cls, data: Any) -> TrainingRecipe:
        """The inverse of :meth:`to_json`; what is left out has its default. BadSetting for a field that is unknown."""
        if not isinstance(data, Mapping):
            raise BadSetting(f"recipe {data!r}: expected an object of settings, such as {{'epochs': 10}}")
        known = [field.name for field in fields(cls)]
        for key in data:
            if key not in known:
                raise BadSetting(f"recipe: no setting {key!r}; {suggest(str(key), known)}")
        return cls(**data)


def default_recipe(data: Dataset) -> TrainingRecipe:
    """What suits such data: a recipe by what a row is, as many epochs as make enough steps."""
    signature, rows = data.signature, len(data.train)
    if data.train.graph is not None:
        adam = TrainingRecipe(optimizer="adam", lr=0.01, weight_decay=5e-4, epochs=200, batch=rows)
        return replace(adam, schedule="constant", warmup=0.0)
    if signature.vocabulary is not None:
        epochs = _epochs(rows, 32, steps=2000, least=2, most=60)
        return TrainingRecipe(lr=2e-3, weight_decay=0.1, epochs=epochs, batch=32, ema=0.99, clip=1.0)
    if signature.places:
        images = len(signature.places) == 2
        augment = () if not images else ("shift",) if signature.channels == 1 else ("flip", "crop")
        epochs = _epochs(rows, 64, steps=2000, least=5, most=25)
        return TrainingRecipe(lr=3e-3, weight_decay=0.05, epochs=epochs, batch=64, augment=augment, ema=0.99, clip=1.0)
    epochs = _epochs(rows, 256, steps=2000, least=10, most=60)
    return TrainingRecipe(lr=2e-3, weight_decay=0.05, epochs=epochs, batch=256, ema=0.99, clip=1.0)


def _epochs(rows: int, batch: int, *, steps: int, least: int, most: int) -> float:
    """Epochs that make about so many steps, within bounds."""
    return float(min(most, max(least, round(steps * batch / rows))))
