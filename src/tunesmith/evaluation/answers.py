"""Measure the answers of a model that is no run, with the engine that serves it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from tunesmith.data.progress import track
from tunesmith.evaluation.rows import Asked, questions_of, spell_files
from tunesmith.evaluation.scores import Scores, compare_answers, summarize
from tunesmith.inference.engine_model import EngineModel, open_model
from tunesmith.inference.sampling import Sampling
from tunesmith.logs import logger
from tunesmith.models.chat import Subject
from tunesmith.recipe.data import Data

AT_ONCE = 4
log = logger(__name__)


def evaluate_answers(
    name: str | Path | Subject,
    data: Sequence[Path] | Data,
    *,
    max_rows: int | None,
    max_tokens: int | None,
) -> Scores:
    """Measure answers against expected ones; a model that is no run has no base beside it.

    Raises:
        DataError: if rows are bad.
        ModelError: if it has no chat template.
        TunesmithError: if no engine can answer with it.
    """
    with closing(open_model(name, AT_ONCE)) as model:
        asked = questions_of(data, model.speech.template)
        num_rows = len(asked)
        asked = asked[:max_rows]
        said = _answers(model, asked, Sampling(max_tokens=max_tokens or 256))
    answers = list(compare_answers(asked, None, said))
    return Scores(model.name, spell_files(data), num_rows, summarize(asked, said), None, answers)


def _answers(model: EngineModel, asked: Sequence[Asked], sampling: Sampling) -> list[str]:
    """Answer each question, but those that are too long."""
    prompts = [model.encode(row.messages, row.tools) for row in asked]
    fitting = [at for at, prompt in enumerate(prompts) if len(prompt) < model.speech.longest]
    if too_long := len(prompts) - len(fitting):
        log.warning("questions that are longer than the model takes: %s; no answer", too_long)
    said = [""] * len(prompts)
    for start in track(range(0, len(fitting), AT_ONCE), "answers, batch"):
        chosen = fitting[start : start + AT_ONCE]
        given = model.write([prompts[at] for at in chosen], sampling)
        for at, answer in zip(chosen, given, strict=True):
            said[at] = answer.text
    return said
