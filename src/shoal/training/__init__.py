"""Training: how weights are learned and judged.

fit          the loop, a generator of steps
train        a whole run: the best epoch kept, the test part scored once
evaluate     scores and quality of any model
baselines    what scikit-learn makes of the same table
"""

from shoal.training.baselines import Baseline, baselines
from shoal.training.checkpoint import Checkpoint
from shoal.training.engine import Objective
from shoal.training.evaluate import Result, evaluate
from shoal.training.loop import Step, fit
from shoal.training.recipe import TrainingRecipe, default_recipe
from shoal.training.train import Run, train

__all__ = [
    "Baseline",
    "Checkpoint",
    "Objective",
    "Result",
    "Run",
    "Step",
    "TrainingRecipe",
    "baselines",
    "default_recipe",
    "evaluate",
    "fit",
    "train",
]
