"""Let the policy answer the questions of an update, and make rows to learn from of its answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from tunesmith.data.rows import Prompt
from tunesmith.data.token_rows import UNLEARNED, TokenRows
from tunesmith.errors import TrainingError
from tunesmith.inference.engine import Engine
from tunesmith.inference.generate import Answer
from tunesmith.inference.own_model import OwnModel
from tunesmith.inference.sampling import Sampling
from tunesmith.methods.averages import Averages
from tunesmith.methods.held_out import split_by_set
from tunesmith.methods.method import Batch, Joining, LossSum, Row
from tunesmith.methods.online import (
    Columns,
    Memory,
    OnlineMethod,
    Writing,
    make_sample,
    num_written,
    observe_rows,
    token_logps,
)
from tunesmith.methods.ranks import ALONE, Share
from tunesmith.methods.rewards import Sample, build_rewards
from tunesmith.models.chat import as_chat_model, find_beneath
from tunesmith.models.reader import Reader
from tunesmith.models.roles import Roles, load_reference
from tunesmith.runs.write import write_bytes
from tunesmith.training.asked import prompt_of, shown_by, with_shown, without_shown
from tunesmith.training.prepare import Prepared
from tunesmith.training.updates import UpdateBatches

if TYPE_CHECKING:
    import torch

FILE = "rollout.json"
"""Where answers lie that are still learned from after a checkpoint."""
NO_ODDS = ("probability tensor contains", "device-side assert")
"""How drawing a token fails where its odds are no numbers, on a CPU and on a GPU."""
ALIKE = 1e-9
"""Rewards of a group that deviate less are all the same."""


@dataclass(frozen=True)
class Rollout:
    """Answers that are learned from.

    Attributes:
        number: counted from 0; it and the run's seed decide the draws.
        rows: those of this process, the longest first.
    """

    number: int
    rows: list[Row]

    def part(self, update: int, writing: Writing, seed: int) -> list[Row]:
        """Choose what one of the updates learns from, each row once in each time."""
        if writing.minibatches == 1:
            return self.rows
        time, part = divmod(update, writing.minibatches)
        shuffled = np.random.default_rng([seed, self.number, time]).permutation(len(self.rows))
        chosen = np.array_split(shuffled, writing.minibatches)[part]
        return [self.rows[row] for row in sorted(chosen.tolist())]


class Rollouts:
    """The answers of a run, written by its policy as it is at that moment.

    Args:
        method: what learns from them.
        watched: gets what is measured of each rollout.
    """

    def __init__(
        self,
        prepared: Prepared,
        roles: Roles,
        how: Joining,
        *,
        method: OnlineMethod,
        watched: Averages,
    ) -> None:
        self.method, self.recipe = method, prepared.recipe
        self.train, self.validation = prepared.splits.train, prepared.splits.validation
        self.ranks, self.how, self.watched = prepared.ranks, how, watched
        assert isinstance(roles.reader, Reader)  # who answers reads text
        self.policy, self.reader = roles.policy, roles.reader
        self.engine = build_engine(roles, method)
        self.rewards = build_rewards(method.rewards, device=roles.device)
        self.reference = build_reference(prepared, roles, method)
        assert self.recipe.compute.tokens_per_batch is not None  # settled before the run began
        self.tokens = self.recipe.compute.tokens_per_batch
        self.kept: Rollout | None = None
        self.memory: Memory = {}

    def update(self, step: int, questions: Sequence[int]) -> dict[str, Any]:
        """Make the batches of an update, of new answers or of those that are still learned from.

        Args:
            step: updates before this one.
            questions: numbers of the training rows that it asks, of all processes.

        Returns:
            what `UpdateBatches` does.
        """
        import torch

        number, update = divmod(step, self.method.writing.updates)
        if self.kept is None or self.kept.number != number:
            ours = questions[self.ranks.rank :: self.ranks.count]
            self.kept = Rollout(number, self._roll_out(number, ours))
        rows = self.kept.part(update, self.method.writing, self.recipe.run.seed)
        batches = UpdateBatches(self.method, self.how, self.tokens, ALONE)(rows)
        num_tokens = self.ranks.total(torch.tensor(batches["num_tokens"]))
        return {**batches, "num_tokens": int(num_tokens)}

    def measure(self, give_up: Callable[[], bool]) -> dict[str, float] | None:
        """Answer each held-out question with the likeliest tokens, and average the rewards.

        Returns:
            those of a set after its name too; None if it gave up.
        """
        questions = self.validation
        assert questions is not None
        share, gave_up = Share(self.ranks, give_up), False
        averages = {name: Averages() for name in ("", *questions.sets)}
        for each in averages.values():
            each.add(self._measures([]))
        parts = split_by_set(questions, self.recipe.evaluate.batch_size)
        sampling = Sampling(max_tokens=self.method.writing.max_tokens)
        with self._measuring():
            for name, asked in [
                (name, one) for name, part in parts.items() for one in share.of(part)
            ]:
                gave_up = gave_up or give_up()
                if gave_up:
                    break
                summed = self._measures(self._answer(questions, asked, sampling))
                for key in {"", name}:
                    averages[key].add(summed)
        if self.ranks.any(gave_up):
            return None
        found = {name: each.take(self.ranks) for name, each in averages.items()}
        more = {
            f"{name}_{key}": value for name in questions.sets for key, value in found[name].items()
        }
        return {**found[""], **more}

    def save(self, folder: Path, step: int) -> None:
        """Keep what the method remembers, and answers that updates after this one learn from."""
        kept = self.kept if step % self.method.writing.updates else None
        content: dict[str, Any] = {"memory": self.memory}
        if kept is not None:
            content |= {"number": kept.number, "rows": without_shown(kept.rows)}
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(folder / FILE, orjson.dumps(content))

    def restore(self, folder: Path) -> None:
        """Take up what was remembered, and the answers that a checkpoint was made amidst."""
        content = orjson.loads((folder / FILE).read_bytes())
        self.memory = content["memory"]
        rows = with_shown(content.get("rows", ()), self.train)
        self.kept = Rollout(content["number"], rows) if "rows" in content else None

    def _roll_out(self, number: int, questions: Sequence[int]) -> list[Row]:
        """Write, reward and compare the answers to our questions."""
        writing = self.method.writing
        with self._measuring():
            first = self._answer_in_groups(questions, number)
            self.watched.add(self._measures(first, groups_of=writing.group_size))
            rows = self._observe(self._redraw(first, questions, number))
        judged = self.method.judge(rows, self.memory, self.ranks)
        self.watched.add(_figures(judged.figures))
        return sorted(judged.rows, key=lambda row: -len(row["input_ids"]))

    def _answer_in_groups(self, questions: Sequence[int], *number: int) -> list[Row]:
        """Answer each question several times, as the run's seed and some numbers decide."""
        writing = self.method.writing
        rollout, *attempt = number
        key = [self.recipe.run.seed, rollout, self.ranks.rank, *attempt]
        drawn = np.random.SeedSequence(key)
        sampling = Sampling(
            max_tokens=writing.max_tokens,
            temperature=writing.temperature,
            seed=int(drawn.generate_state(1, np.uint64)[0] >> 1),
        )
        asked = [row for row in questions for _ in range(writing.group_size)]
        return self._answer(self.train, asked, sampling)

    def _redraw(self, rows: list[Row], questions: Sequence[int], number: int) -> list[Row]:
        """Put answers to other questions in the place of groups that nothing is learned from."""
        writing, seen = self.method.writing, set(questions)
        groups = in_groups(rows, writing.group_size)
        for attempt in range(1, writing.redraws + 1):
            flat = [at for at, group in enumerate(groups) if is_flat(group)]
            others = [row for row in range(len(self.train)) if row not in seen]
            if not flat or not others:
                break
            drawn = np.random.default_rng([self.recipe.run.seed, number, self.ranks.rank, attempt])
            count = min(len(flat), len(others))
            chosen = drawn.choice(others, count, replace=False).tolist()
            seen.update(chosen)
            answers = self._answer_in_groups(chosen, number, attempt)
            for at, group in zip(flat, in_groups(answers, writing.group_size), strict=False):
                groups[at] = group
        if writing.redraws:
            self.watched.add(_share("flat_groups_left", list(map(is_flat, groups))))
        return [row for group in groups for row in group]

    def _answer(self, rows: TokenRows, asked: Sequence[int], sampling: Sampling) -> list[Row]:
        """Write an answer to each question and reward it."""
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
            TrainingError: if no token can be drawn any more.
        """
        try:
            return self.engine.write(prompts, sampling)
        except RuntimeError as problem:
            if not any(sign in str(problem) for sign in NO_ODDS):
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

    def _observe(self, rows: list[Row]) -> list[Row]:
        """Note what the policy says of its own answers, and what the reference says of them."""
        found = observe_rows(
            self.policy, rows, self.method.observe, how=self.how, tokens=self.tokens
        )
        if self.reference is None:
            return found
        return self.reference.observe(found, self.how, self.tokens)

    def _measures(self, rows: Sequence[Row], groups_of: int = 0) -> LossSum:
        """Sum up what is watched of answers.

        Args:
            groups_of: answers to each question, which are compared where there are several.
        """
        import torch

        names = [*self.rewards.names, *self.method.own_rewards([])]  # a process without rows too
        told = {
            "reward": [row["reward"] for row in rows],
            **{f"reward_{name}": [row["rewards"][name] for row in rows] for name in names},
            "answer_tokens": [num_written(row) for row in rows],
            "cut": [float(row["cut"]) for row in rows],
        }
        if groups_of > 1:
            groups = torch.tensor(told["reward"], dtype=torch.float64).view(-1, groups_of)
            deviations = groups.std(dim=1)
            told["reward_deviation"] = deviations.tolist()
            told["flat_groups"] = (deviations < ALIKE).double().tolist()
        summed = {name: sum(values) for name, values in told.items()}
        counts = {name: len(values) for name, values in told.items()}
        return LossSum(
            torch.zeros(()),
            0,
            {name: torch.tensor(value) for name, value in summed.items()},
            {name: torch.tensor(count) for name, count in counts.items()},
        )

    @contextmanager
    def _measuring(self) -> Iterator[None]:
        """Answer with the cache that training has no use for."""
        self.policy.eval()
        try:
            yield
        finally:
            self.policy.train()


def _share(name: str, true: Sequence[bool]) -> LossSum:
    """Watch how many of some are so; a process may have none."""
    import torch

    parts = {name: torch.tensor(float(sum(true)))}, {name: torch.tensor(float(len(true)))}
    return LossSum(torch.zeros(()), 0, *parts)


def in_groups(rows: Sequence[Row], size: int) -> list[list[Row]]:
    """Part answers by their questions."""
    return [list(rows[start : start + size]) for start in range(0, len(rows), size)]


def is_flat(group: Sequence[Row]) -> bool:
    """Whether all answers to a question are worth the same, so that none is better than others."""
    return float(np.std([row["reward"] for row in group], ddof=1)) < ALIKE


def _figures(figures: Mapping[str, float]) -> LossSum:
    """Watch figures of whole rollouts."""
    import torch

    one = torch.ones(())
    return LossSum(
        torch.zeros(()),
        0,
        {name: torch.tensor(value, dtype=torch.float64) for name, value in figures.items()},
        dict.fromkeys(figures, one),
    )


def _row(prompt: Sequence[int], given: Answer) -> Row:
    """Make a row of a question and the answer to it, all of which is learned."""
    written = list(given.written)
    return {
        "input_ids": [*prompt, *written],
        "labels": [*[UNLEARNED] * len(prompt), *written],
        "asked": len(prompt),
        "cut": given.finish == "length",
    }


def build_engine(roles: Roles, method: OnlineMethod) -> Engine:
    """Let the policy itself answer."""
    reader = roles.reader
    assert isinstance(reader, Reader)
    model = as_chat_model("policy", roles.policy, reader)
    return OwnModel(model, rows=method.writing.rows)


@dataclass(frozen=True)
class Reference:
    """The model before training.

    Attributes:
        model: the policy, its adapter switched off, or a copy of what it was.
    """

    model: torch.nn.Module
    temperature: float

    def observe(self, rows: list[Row], how: Joining, tokens: int) -> list[Row]:
        """Add to rows log p of each learned token."""
        from tunesmith.models.adapter import without_adapter

        def look(model: torch.nn.Module, batch: Batch) -> Columns:
            return {"reference_logps": token_logps(model, batch, self.temperature)}

        with without_adapter(self.model):
            return observe_rows(self.model, rows, look, how=how, tokens=tokens)


def build_reference(prepared: Prepared, roles: Roles, method: OnlineMethod) -> Reference | None:
    """Keep the model before training, if the method asks it: the policy if that has an adapter."""
    from peft import PeftModel

    from tunesmith.models.layout import find_layout

    if not method.asks_reference:
        return None
    model = roles.policy
    if not isinstance(model, PeftModel):
        recipe, beneath = prepared.recipe, find_beneath(prepared.recipe.model)
        model = load_reference(roles.reader.folder, recipe, roles, beneath)
        find_layout(model)  # it lets the model attend to rows that lie end to end
    return Reference(model, method.writing.temperature)
