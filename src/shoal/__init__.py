"""Shoal finds the depth a neural network needs: compress, search, analyze and study depth, with evidence.

    data = shoal.open_data("digits")
    net = shoal.build("residual(conv) 6x16", like=data)
    run = shoal.train(net, data)

The verbs are imported when they are first asked for: `import shoal` imports no torch. No module right under this
package bears the name of a verb: importing it would put the module in the verb's place.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:  # the same as _HOME, for type checkers and editors; a test holds the two together
    from shoal.analysis import Analysis as Analysis
    from shoal.analysis import analyze as analyze
    from shoal.artifact import export as export
    from shoal.artifact import load as load
    from shoal.artifact import save as save
    from shoal.building import build as build
    from shoal.building import load_published as load_published
    from shoal.compression import compress as compress
    from shoal.core.errors import ShoalError as ShoalError
    from shoal.core.part import Part as Part
    from shoal.core.spec import Spec as Spec
    from shoal.costing import cost as cost
    from shoal.costing import latency as latency
    from shoal.costing.predicting.prediction import predict_latency as predict_latency
    from shoal.costing.predicting.probing import probe as probe
    from shoal.data import open_data as open_data
    from shoal.evidence import compare as compare
    from shoal.matching import match as match
    from shoal.net import Net as Net
    from shoal.training import TrainingRecipe as TrainingRecipe
    from shoal.training import evaluate as evaluate
    from shoal.training import fit as fit
    from shoal.training import train as train

_HOME = {
    "Analysis": "shoal.analysis",
    "Net": "shoal.net",
    "Part": "shoal.core.part",
    "ShoalError": "shoal.core.errors",
    "Spec": "shoal.core.spec",
    "TrainingRecipe": "shoal.training",
    "analyze": "shoal.analysis",
    "build": "shoal.building",
    "compare": "shoal.evidence",
    "compress": "shoal.compression",
    "cost": "shoal.costing",
    "evaluate": "shoal.training",
    "export": "shoal.artifact",
    "fit": "shoal.training",
    "latency": "shoal.costing",
    "load": "shoal.artifact",
    "load_published": "shoal.building",
    "match": "shoal.matching",
    "open_data": "shoal.data",
    "predict_latency": "shoal.costing.predicting.prediction",
    "probe": "shoal.costing.predicting.probing",
    "save": "shoal.artifact",
    "train": "shoal.training",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(_HOME)}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
