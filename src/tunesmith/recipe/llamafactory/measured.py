"""The rows that a LLaMA-Factory file measures a model on: do_eval and do_predict."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tunesmith.recipe.data import Data
from tunesmith.recipe.llamafactory.data import convert_measured
from tunesmith.recipe.llamafactory.file import TheirFile
from tunesmith.recipe.llamafactory.run import output_folder

FLAGS = ("do_eval", "do_predict", "predict_with_generate")


@dataclass(frozen=True)
class Measured:
    """What is measured, and where the results go.

    Attributes:
        rows: those of eval_dataset; None for the rows that the run held out.
        loss, answers: what is asked for; both, if the file does not say.
        tokens: of the longest answer; None if it is not said.
        to: the folder that gets the files of results; None for none.
    """

    rows: Data | None = None
    loss: bool = True
    answers: bool = True
    tokens: int | None = None
    to: Path | None = None


def read_measured(theirs: TheirFile, system: str | None) -> Measured:
    """Read what is measured.

    Args:
        system: the prompt of the template, where the file gives none.

    Raises:
        RecipeError: naming the key and its line, if it cannot be.
    """
    for name in ("dataset", "val_size"):
        if theirs.has("eval_dataset") and theirs[name]:
            raise theirs.refusal(name, f"both eval_dataset and {name} are given", "remove one")
    if theirs.has("dataset") and not theirs["val_size"]:
        raise theirs.refusal(
            "dataset",
            "rows of dataset are learned from, not measured",
            "name them as eval_dataset, or remove it to measure on the rows that the run held out",
        )
    if theirs["do_predict"] and not theirs["predict_with_generate"]:
        raise theirs.refusal(
            "do_predict",
            "do_predict writes no answers without predict_with_generate",
            "write predict_with_generate: true, or do_eval: true for the loss alone",
        )
    if theirs["predict_with_generate"] and theirs["compute_accuracy"]:
        raise theirs.refusal(
            "compute_accuracy",
            "compute_accuracy and predict_with_generate are both true",
            "remove one",
        )
    if theirs["val_size"] and not theirs.has("dataset"):
        raise theirs.refusal(
            "val_size", "val_size has no effect: there is no dataset", "name it, or an eval_dataset"
        )
    rows = None
    if theirs.has("eval_dataset"):
        rows = Data.model_validate(convert_measured(theirs, system))
    asked = any(theirs[name] for name in FLAGS)
    tokens = theirs["max_new_tokens"] if asked or theirs.has("max_new_tokens") else None
    return Measured(
        rows=rows,
        loss=theirs["do_eval"] or not asked,
        answers=theirs["predict_with_generate"] or not asked,
        tokens=tokens,
        to=output_folder(theirs),
    )
