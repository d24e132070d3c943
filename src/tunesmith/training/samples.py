"""Ask a model the same few questions before and after training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import orjson

from tunesmith.data.prepare import Splits
from tunesmith.data.rows import Conversation, Judged, Text, split_answer
from tunesmith.data.tokens import encode
from tunesmith.inference.generate import answer, encode_prompt
from tunesmith.inference.looked import Looked
from tunesmith.inference.sampling import Sampling
from tunesmith.models.chat import ChatModel, as_chat_model
from tunesmith.models.reader import Reader
from tunesmith.models.roles import Roles
from tunesmith.models.score import find_score
from tunesmith.recipe.options import Recipe
from tunesmith.runs.run import Run
from tunesmith.runs.write import write_bytes

TEXT_CHARS = 60
"""Characters of a plain text that the model is asked to continue."""


def answer_samples(run: Run, roles: Roles, splits: Splits, recipe: Recipe, *, when: str) -> None:
    """Answer the first held-out questions, or training questions if there are none.

    Args:
        when: `before` or `after`; kept side by side in `samples.jsonl`.
    """
    if find_score(roles.policy) is not None:
        return  # a model that scores gives no answers
    rows = splits.validation if splits.validation is not None else splits.train
    every = (rows.conversation(row) for row in range(len(rows)))
    fitting = (row for row in every if not isinstance(row, Judged) or row.good)
    asked = list(islice(fitting, recipe.evaluate.sample_rows))
    if not asked:
        return
    reader = roles.reader
    assert isinstance(reader, Reader)
    model = as_chat_model(run.name, roles.policy, reader)
    prompts = [_cut(_prompt(model, row), recipe.data.max_tokens) for row in asked]
    with _evaluating(roles):
        answers = answer(model, prompts, Sampling(max_tokens=recipe.evaluate.sample_tokens))
    samples = [_describe(row) for row in asked]
    known = read_samples(run)
    if when == "after" and [_asked(s) for s in known] == [_asked(s) for s in samples]:
        samples = known
    for sample, given in zip(samples, answers, strict=True):
        sample[when] = given.text
    write_bytes(run.samples_file, b"".join(orjson.dumps(sample) + b"\n" for sample in samples))


def read_samples(run: Run) -> list[dict[str, Any]]:
    """Read the questions with their expected answers and those before and after training."""
    if not run.samples_file.exists():
        return []
    return [orjson.loads(line) for line in run.samples_file.read_bytes().splitlines()]


def _prompt(model: ChatModel, row: Conversation | Text) -> list[int]:
    if isinstance(row, Text):
        return encode(model.tokenizer, row.text[:TEXT_CHARS])
    asked, _ = split_answer(row)
    return encode_prompt(model, Conversation(asked, row.place).as_dicts(), row.tools)


def _cut(prompt: list[int], limit: int) -> list[int]:
    """Keep the beginning of a prompt, but all of one that shows something."""
    return prompt if isinstance(prompt, Looked) else prompt[:limit]


def _describe(row: Conversation | Text) -> dict[str, Any]:
    if isinstance(row, Text):
        return {"question": row.text[:TEXT_CHARS], "expected": row.text[TEXT_CHARS:][:200]}
    asked, answer = split_answer(row)
    return {"question": asked[-1].spell(), "expected": answer}


def _asked(sample: dict[str, Any]) -> tuple[str, str]:
    return sample["question"], sample["expected"]


@contextmanager
def _evaluating(roles: Roles) -> Iterator[None]:
    """Answer without dropout, with the cache that training has no use for."""
    policy = roles.policy
    policy.eval()
    try:
        yield
    finally:
        policy.train()
