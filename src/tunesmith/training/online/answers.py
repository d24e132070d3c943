"""Answers of the policy as it is at the moment, and what they are worth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tunesmith.data.rows import Prompt
from tunesmith.data.token_rows import UNLEARNED, TokenRows
from tunesmith.errors import NoOdds, TrainingError
from tunesmith.hardware import give_back_memory
from tunesmith.inference.batching.build import build_writer
from tunesmith.inference.engine import Writer
from tunesmith.inference.generate import Answer
from tunesmith.inference.sampling import Sampling
from tunesmith.logs import logger
from tunesmith.methods.method import Row
from tunesmith.methods.online import OnlineMethod, make_sample
from tunesmith.methods.rewards import Sample, build_rewards
from tunesmith.models.autocast import number_type
from tunesmith.models.chat import as_chat_model
from tunesmith.models.reader import Reader
from tunesmith.models.roles import Roles
from tunesmith.training.online.asked import prompt_of, shown_by
from tunesmith.training.session import explain_memory

log = logger(__name__)
NO_ODDS = ("probability tensor contains", "device-side assert")
"""How transformers fails to draw a token whose odds are no numbers, on a CPU and on a GPU."""


class Answers:
    """Who answers, and who judges."""

    def __init__(self, roles: Roles, method: OnlineMethod) -> None:
        assert isinstance(roles.reader, Reader)  # who answers reads text
        self.method, self.policy, self.reader = method, roles.policy, roles.reader
        self.writer = let_write(roles, method)
        self.rewards = build_rewards(method.rewards, device=roles.device)

    @property
    def names(self) -> list[str]:
        """Name the rewards, those of the method too."""
        return [*self.rewards.names, *self.method.own_rewards([])]

    def to(self, rows: TokenRows, asked: Sequence[int], sampling: Sampling) -> list[Row]:
        """Write an answer to each question and reward it.

        Args:
            asked: numbers of the questions.
        """
        if not asked:
            return []
        prompts = [prompt_of(rows[row]) for row in asked]
        answers = self._write(prompts, sampling)
        samples = [
            self._sample(rows.conversation(row), prompt, given)
            for row, prompt, given in zip(asked, prompts, answers, strict=True)
        ]
        scores = self.rewards.score(samples)
        known = dict(zip(self.rewards.names, scores.T.tolist(), strict=True))
        written = [
            {**_row(prompt, given), **shown_by(rows, row), "reward": total}
            for row, prompt, given, total in zip(
                asked, prompts, answers, self.rewards.total(scores).tolist(), strict=True
            )
        ]
        more = self.method.own_rewards(written)
        for place, row in enumerate(written):
            row["reward"] += sum(each[place] for each in more.values())
            row["rewards"] = {name: each[place] for name, each in (known | more).items()}
        return written

    def _write(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[Answer]:
        """Write an answer to each prompt.

        Raises:
            TrainingError: if no token can be chosen any more, or memory runs out.
        """
        with answering(self.policy), giving_back():
            try:
                return self.writer.write(prompts, sampling)
            except (NoOdds, RuntimeError, MemoryError) as problem:
                if explain_memory(problem) is not None:
                    raise TrainingError(
                        "memory ran out while answers were written",
                        hint="lower method.rollout_rows or method.answer_tokens",
                        where="method.rollout_rows",
                    ) from problem
                known = isinstance(problem, NoOdds)
                if not known and not any(sign in str(problem) for sign in NO_ODDS):
                    raise
                raise TrainingError(
                    "no answer can be drawn: what the model expects is not a number any more",
                    hint="lower optimizer.learning_rate; the checkpoints before this step are kept",
                    where="optimizer.learning_rate",
                ) from problem

    def _sample(self, row: Any, prompt: Sequence[int], given: Answer) -> Sample:
        assert isinstance(row, Prompt)
        tokenizer = self.reader.tokenizer
        return make_sample(tokenizer, row.as_dicts(), prompt, given, row.reference)


def let_write(roles: Roles, method: OnlineMethod) -> Writer:
    """Let the policy itself answer, and say how it does."""
    assert isinstance(roles.reader, Reader)
    model = as_chat_model("policy", roles.policy, roles.reader)
    writer, why = build_writer(model, number_type(roles.precision), rows=method.writing.rows)
    log.info("answers of the policy: %s", why)
    return writer


@contextmanager
def answering(policy: Any) -> Iterator[None]:
    """Answer with the cache that training has no use for."""
    policy.eval()
    try:
        yield
    finally:
        policy.train()


@contextmanager
def giving_back() -> Iterator[None]:
    """Let what learning and writing take lie in the same memory, though in pieces of other sizes.

    On a CPU freed memory is kept, and one large piece finds no room between many small ones.
    """
    give_back_memory()
    try:
        yield
    finally:
        give_back_memory()


def _row(prompt: Sequence[int], given: Answer) -> Row:
    """Make a row of a question and the answer to it, all of which is learned."""
    written = list(given.written)
    return {
        "input_ids": [*prompt, *written],
        "labels": [*[UNLEARNED] * len(prompt), *written],
        "asked": len(prompt),
        "cut": given.finish == "length",
    }
