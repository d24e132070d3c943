"""The recipe: every option of a run, grouped the way a person thinks about it."""

from __future__ import annotations

from tunesmith.recipe.compute import Compute
from tunesmith.recipe.data import Data
from tunesmith.recipe.evaluate import Evaluate
from tunesmith.recipe.method import SFT, Method
from tunesmith.recipe.model import Model
from tunesmith.recipe.optimizer import AdamW, Optimizer
from tunesmith.recipe.run import RunOptions
from tunesmith.recipe.section import Section
from tunesmith.recipe.tuning import LoRA, Tuning


class Recipe(Section):
    """One run, completely described."""

    model: Model
    """The model we start from."""
    data: Data
    """The rows we learn from."""
    method: Method = SFT()
    """What the loss is."""
    tuning: Tuning = LoRA()
    """Which weights move."""
    optimizer: Optimizer = AdamW()
    """How weights move."""
    compute: Compute = Compute()
    """The device and its numbers."""
    evaluate: Evaluate = Evaluate()
    """How a run is watched and measured."""
    run: RunOptions = RunOptions()
    """How long a run lasts, what it is called and what it keeps."""
