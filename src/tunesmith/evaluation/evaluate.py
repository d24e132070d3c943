"""Measure a run beside its base: loss on held-out rows, and answers against expected ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from tunesmith.data.progress import track
from tunesmith.data.token_rows import TokenRows
from tunesmith.errors import RunError
from tunesmith.evaluation.answers import evaluate_answers
from tunesmith.evaluation.classes import confuse
from tunesmith.evaluation.kept import keep_scores
from tunesmith.evaluation.rows import Asked, MeasuredRows, file_rows, held_out_rows
from tunesmith.evaluation.scores import Measures, Scores, compare_answers, summarize
from tunesmith.inference.generate import BATCH_ROWS, Answer, answer, encode_prompt, max_positions
from tunesmith.inference.sampling import Sampling
from tunesmith.logs import logger
from tunesmith.methods import Method, build_method
from tunesmith.methods.batches import joining_of
from tunesmith.methods.classify import learn_of
from tunesmith.methods.held_out import measure_held_out
from tunesmith.methods.online import OnlineMethod, make_sample
from tunesmith.methods.rewards import build_rewards
from tunesmith.models.chat import (
    ChatModel,
    Subject,
    find_subject,
    load_reward_model,
    load_subject,
)
from tunesmith.models.classes import load_classifier
from tunesmith.models.fingerprint import weights_sha256
from tunesmith.models.gguf_file import find_gguf
from tunesmith.models.inspect import is_scorer
from tunesmith.models.reader import find_reader
from tunesmith.models.roles import find_reference
from tunesmith.recipe.data import Data
from tunesmith.recipe.method import Classify, Reward
from tunesmith.runs.run import Run

log = logger(__name__)


def evaluate(
    name: str | Path | Subject,
    *,
    data: Sequence[Path] | Data = (),
    max_rows: int | None = None,
    max_tokens: int | None = None,
) -> Scores:
    """Measure a run and its base, and keep the result in the run's `scores.json`.

    What a checkpoint reached is kept in a file of its own, such as `scores-step-000100.json`. Of
    what is no run the answers alone are measured, on `data`, and nothing is kept.

    Args:
        data: files of rows to measure on, or sets that are described; the run's held-out rows if
            there are none.
        max_rows: answer at most so many questions; the loss is always over all rows.
        max_tokens: longest answer; 256 if not given.

    Raises:
        DataError: if there are no rows to measure on.
        RunError: if the run has no trained model, or its data changed since.
    """
    file = None if isinstance(name, Subject) else find_gguf(name)
    subject = None if file is not None else find_subject(name)
    run = None if subject is None else subject.run
    if run is None and data:
        return evaluate_answers(name, data, max_rows=max_rows, max_tokens=max_tokens)
    if subject is None or run is None:
        raise RunError(
            f"{subject.name if subject else name} is a model, and only runs are evaluated beside "
            "their base",
            hint="give the name of a run; or name questions and answers with --data FILE",
            where="command line",
        )
    recipe = run.recipe()
    method = build_method(recipe.method)
    if isinstance(recipe.method, Classify):
        refuse_answers({"max_rows": max_rows or None, "max_tokens": max_tokens})
        return _evaluate_classes(subject, run, method, data)
    reader = find_reader(subject.base, recipe.model.template)
    if data:
        rows = file_rows(data, recipe, learn_of(method, reader), reader)
    else:
        rows = held_out_rows(run, learn_of(method, reader), reader)
    if method.needs_reference:
        rows = replace(rows, tokens=_with_reference(run, method, rows.tokens))
    scores_only = isinstance(recipe.method, Reward)
    asked = [] if scores_only else rows.asked[:max_rows]
    sampling = Sampling(max_tokens=max_tokens or 256)
    tuned, said = _measure(subject, method, rows, asked, sampling, "tuned")
    base, base_said = None, None
    if not (recipe.model.from_scratch or scores_only):
        before = find_subject(run.path, base_only=True)
        base, base_said = _measure(before, method, rows, asked, sampling, "base")
        if method.needs_reference and find_reference(recipe) is None:
            base = replace(base, pair_accuracy=None)  # it has not moved from itself
    scores = Scores(
        run=subject.name,
        rows=rows.name,
        num_rows=len(rows.tokens),
        tuned=tuned,
        base=base,
        answers=list(compare_answers(asked, base_said, said)),
    )
    keep_scores(run, subject, asdict(scores))
    return scores


def refuse_answers(given: Mapping[str, object]) -> None:
    """Refuse what is asked of answers, where there are none.

    Raises:
        RunError: naming the option.
    """
    for name, value in given.items():
        if value is not None:
            raise RunError(
                f"--{name.replace('_', '-')} has no effect: a classifier gives no answers",
                hint="leave it away",
                where="command line",
            )


def _evaluate_classes(
    subject: Subject, run: Run, method: Method, data: Sequence[Path] | Data
) -> Scores:
    """Measure which classes a run names; its base has no head, so nothing stands beside."""
    recipe, model = run.recipe(), load_classifier(subject)
    learn = learn_of(method, model.reader)
    if data:
        rows = file_rows(data, recipe, learn, model.reader)
    else:
        rows = held_out_rows(run, learn, model.reader)
    confusion, loss = confuse(model, method, rows.tokens)
    tuned = Measures(loss=loss, accuracy=confusion.accuracy, macro_f1=confusion.macro_f1)
    scores = Scores(subject.name, rows.name, len(rows.tokens), tuned, None, [], confusion)
    keep_scores(run, subject, asdict(scores))
    return scores


def _with_reference(run: Run, method: Method, rows: TokenRows) -> TokenRows:
    """Let rows carry what the run's reference says of them, which most often is its base.

    Raises:
        RunError: if it is another model than the run learned with.
    """
    from tunesmith.methods.reference import reference_logps

    folder = find_reference(run.recipe())
    if folder and weights_sha256(folder) != run.environment().get("reference_weights"):
        raise RunError(
            "the reference is not the model that the run learned with: its weights differ",
            hint="put the very folder back",
            where=str(folder),
        )
    subject = Subject("reference", folder) if folder else find_subject(run.path, base_only=True)
    base = load_subject(subject, precision="fp32").model
    how = joining_of(base)
    most = BATCH_ROWS * int(rows.lengths.max())
    reference = reference_logps(base, method, rows, how=how, tokens=most)
    assert reference is not None  # nobody asked it to give up
    return rows.beside(reference=reference)


def _measure(
    subject: Subject,
    method: Method,
    rows: MeasuredRows,
    asked: Sequence[Asked],
    sampling: Sampling,
    label: str,
) -> tuple[Measures, list[str]]:
    scorer = is_scorer(subject.adapter or subject.base)
    model = (load_reward_model if scorer else load_subject)(subject, precision="fp32")
    if isinstance(method, OnlineMethod):
        assert isinstance(model, ChatModel)  # it has written answers before
        given = _answers(model, asked, sampling, label)
        said = [_text(one) for one in given]
        reward = _reward(model, method, asked, given)
        return replace(summarize(asked, said), reward=reward), said
    how = joining_of(model.model)
    found = measure_held_out(model.model, method, rows.tokens, how=how, batch_size=BATCH_ROWS)
    assert found is not None  # a row of which nothing is learned is never kept
    answers = _answers(model, asked, sampling, label) if isinstance(model, ChatModel) else []
    said = [_text(one) for one in answers]
    measures = replace(summarize(asked, said), loss=found["loss"])
    if "rewards_accuracy" in found:
        return replace(measures, pair_accuracy=found["rewards_accuracy"]), said
    return replace(measures, perplexity=math.exp(min(found["loss"], 700.0))), said


def _answers(
    model: ChatModel, asked: Sequence[Asked], sampling: Sampling, label: str
) -> list[Answer | None]:
    """Answer each question, but those that are too long."""
    prompts = [encode_prompt(model, row.messages, row.tools) for row in asked]
    fitting = [at for at, prompt in enumerate(prompts) if len(prompt) < max_positions(model)]
    if too_long := len(prompts) - len(fitting):
        log.warning("questions that are longer than the model takes: %s; no answer", too_long)
    said: list[Answer | None] = [None] * len(prompts)
    for start in track(range(0, len(fitting), BATCH_ROWS), f"answers of the {label} model, batch"):
        chosen = fitting[start : start + BATCH_ROWS]
        for at, given in zip(
            chosen, answer(model, [prompts[at] for at in chosen], sampling), strict=True
        ):
            said[at] = given
    return said


def _text(given: Answer | None) -> str:
    return "" if given is None else given.text


def _reward(
    model: ChatModel,
    method: OnlineMethod,
    asked: Sequence[Asked],
    said: Sequence[Answer | None],
) -> float | None:
    """Average the rewards of answers, of those alone that a question allowed."""
    samples = [
        make_sample(
            model.tokenizer,
            row.messages,
            encode_prompt(model, row.messages),
            given,
            row.expected or None,
        )
        for row, given in zip(asked, said, strict=True)
        if given is not None
    ]
    if not samples:
        return None
    rewards = build_rewards(method.rewards, device=next(model.model.parameters()).device)
    return float(rewards.total(rewards.score(samples)).mean())
