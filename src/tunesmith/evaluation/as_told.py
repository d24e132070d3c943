"""Measure what a LLaMA-Factory file names, and leave the results under the names it expects."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from tunesmith.errors import RunError
from tunesmith.evaluation.evaluate import evaluate
from tunesmith.evaluation.scores import Scores
from tunesmith.models.chat import Subject
from tunesmith.recipe.llamafactory.measured import Measured
from tunesmith.runs.write import write_bytes

ALL = "all_results.json"


def evaluate_as_told(
    subject: Subject,
    measured: Measured,
    *,
    data: Sequence[Path] = (),
    max_rows: int | None = None,
    max_tokens: int | None = None,
) -> Scores:
    """Measure a model on the rows that a file names, or those that its run held out.

    Args:
        data, max_rows, max_tokens: as `evaluate` takes them; the file's own if not given.

    Raises:
        RunError: if a loss is asked for, of a model that is no run.
    """
    if subject.run is None and not measured.answers:
        raise RunError(
            f"{subject.name} is no run, and of other models answers alone are measured",
            hint="write do_predict: true and predict_with_generate: true in place of do_eval",
            where="do_eval",
        )
    scores = evaluate(
        subject,
        data=data or measured.rows or (),
        max_rows=max_rows if measured.answers else 0,
        max_tokens=max_tokens or measured.tokens,
    )
    if measured.to is not None:
        write_results(scores, measured.to, loss=measured.loss)
    return scores


def write_results(scores: Scores, folder: Path, *, loss: bool = True) -> None:
    """Write answers and figures; what a training left in `all_results.json` stays.

    Args:
        loss: whether the loss is among them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = scores.tuned
    predicted = {
        "predict_bleu-4": found.bleu,
        "predict_rouge-l": None if found.rouge_l is None else 100 * found.rouge_l,
        "predict_chrf": found.chrf,
        "predict_exact_match": found.exact_match,
    }
    lost = {"eval_loss": found.loss, "eval_rewards/accuracies": found.pair_accuracy} if loss else {}
    whole = _read(folder / ALL)
    for name, figures in (("predict_results.json", predicted), ("eval_results.json", lost)):
        known = {key: value for key, value in figures.items() if value is not None}
        if known:
            write_bytes(folder / name, _spell(known))
            whole |= known
    write_bytes(folder / ALL, _spell(whole))
    if scores.answers:
        said = [
            {"prompt": one.question, "predict": one.tuned, "label": one.expected}
            for one in scores.answers
        ]
        lines = [orjson.dumps(one, option=orjson.OPT_APPEND_NEWLINE) for one in said]
        write_bytes(folder / "generated_predictions.jsonl", b"".join(lines))


def _spell(figures: dict[str, Any]) -> bytes:
    return orjson.dumps(figures, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _read(path: Path) -> dict[str, Any]:
    """Read the results that are there; a file of somebody else's is written anew."""
    try:
        kept = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return {}
    return kept if isinstance(kept, dict) else {}
